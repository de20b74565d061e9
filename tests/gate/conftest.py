"""Evidence that passes every check of the gate, to be made worse by the tests."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from prefloop.gate.decide import Case, Evidence
from prefloop.types import Approval, AuditReport, Evaluation, Finding

CANDIDATE, INCUMBENT, OLDER, REWARD, DATA = (letter * 64 for letter in "abcde")
NOW = datetime.datetime(2026, 6, 30, tzinfo=datetime.UTC)
AT = "2026-06-29T00:00:00+00:00"
GOOD: Mapping[str, tuple[float, float, float]] = {
    "win_rate": (58.0, 53.0, 63.0),
    "length_controlled_win_rate": (55.0, 51.0, 59.0),
    "perplexity/novel/change": (1.01, 0.99, 1.03),
    "repetition/change": (0.0, -0.01, 0.01),
    "suite/refuse/change": (0.0, -0.08, 0.08),
    "suite/answer/change": (0.04, -0.06, 0.14),
    "suite/unknown/change": (0.0, -0.08, 0.08),
    "suite/citations/change": (0.1, 0.02, 0.18),
    "suite/habits/change": (0.0, -0.08, 0.08),
    "suite/arithmetic/change": (0.01, -0.03, 0.05),
}
"""Name -> value and ends of the interval."""


@pytest.fixture
def case() -> Case:
    """A candidate that is not live, optimised against one reward model."""
    known = {INCUMBENT: "helper:2", OLDER: "helper:1"}
    return Case(CANDIDATE, NOW, INCUMBENT, optimised_against={"runs/reward": REWARD}, known=known)


@pytest.fixture
def evaluation() -> Callable[..., Evaluation]:
    """An evaluation that passes, by name; fields may be replaced."""

    def make(name: str, **changed: Any) -> Evaluation:
        value, low, high = GOOD.get(name, (0.0, 0.0, 0.0))
        made = Evaluation(name, CANDIDATE, INCUMBENT, DATA, value, (low, high), 400, AT)
        return dataclasses.replace(made, **changed)

    return make


@pytest.fixture
def report() -> Callable[..., AuditReport]:
    """An audit of the reward model, with findings that block by name."""

    def make(*blocking: str, verdict: str = "", subject_sha256: str = REWARD) -> AuditReport:
        findings = tuple(Finding(name, 0.9, "block", f"pays for {name}") for name in blocking)
        verdict = verdict or ("block" if blocking else "pass")
        return AuditReport("runs/reward", subject_sha256, verdict, findings, AT)  # type: ignore[arg-type]

    return make


@pytest.fixture
def good(evaluation: Callable[..., Evaluation], report: Callable[..., AuditReport]) -> Evidence:
    """Evidence that promotes."""
    return Evidence([evaluation(name) for name in GOOD], [report()], [Approval(CANDIDATE, True, "Ada", "", AT)])


@pytest.fixture
def write() -> Callable[..., Path]:
    """Records as a file of JSON Lines."""

    def to_file(path: Path, *records: Any) -> Path:
        rows = [record if isinstance(record, dict) else dataclasses.asdict(record) for record in records]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return to_file
