"""The decision as people read it."""

from __future__ import annotations

from prefloop.gate.text import as_table
from prefloop.types import Check, GateDecision


def test_what_fails_stands_first_and_long_reasons_are_folded() -> None:
    long = " ".join(["a reason of many words"] * 8)
    checks = (Check("first", True, 1.0, "r", "good"), Check("second", False, None, "r", long))
    table = as_table(GateDecision("c" * 64, None, checks, "hold"), "helper:2")
    assert table.splitlines() == [
        "helper:2: hold: not shown to be good enough",
        "",
        "  NO   second",
        "       " + "a reason of many words " * 4 + "a reason of",
        "       many words" + " a reason of many words" * 3,
        "  yes  first",
        "       good",
    ]
