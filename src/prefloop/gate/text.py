"""A gate's decision as values for programs and as text for a terminal."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from prefloop.types import GateDecision

SAID = {
    "promote": "promote: every check passes",
    "hold": "hold: not shown to be good enough",
    "rollback": "roll back: what is live is shown to be worse than allowed",
}
WIDTH = 110
"""Columns of the text."""
INDENT = " " * 7


def as_values(decision: GateDecision) -> dict[str, Any]:
    """The JSON answer: verdict, checks, and who was judged."""
    checks = [dataclasses.asdict(check) for check in decision.checks]
    return {
        "verdict": decision.verdict,
        "checks": checks,
        "candidate": decision.candidate,
        "incumbent": decision.incumbent,
    }


def as_table(decision: GateDecision, title: str) -> str:
    """The verdict and every check with its reason, those that fail first."""
    lines = [f"{title}: {SAID[decision.verdict]}", ""]
    for check in sorted(decision.checks, key=lambda check: check.passed):
        lines.append(f"  {'yes' if check.passed else 'NO '}  {check.name}")
        lines += textwrap.wrap(check.reason, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
    return "\n".join(lines)
