"""Files of evidence: what is read, and what is wrong with a file by file, line and field."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.gate.decide import Evidence
from prefloop.gate.evidence import read_evidence
from prefloop.types import AuditReport, InputError

SHA = "a" * 64
ROW: dict[str, Any] = {
    "name": "win_rate",
    "candidate_sha256": SHA,
    "baseline_sha256": "b" * 64,
    "data_sha256": "c" * 64,
    "value": 58,
    "interval": [53.0, 63.5],
    "n": 400,
    "at": "2026-06-29T00:00:00+00:00",
}
APPROVAL: dict[str, Any] = {"candidate_sha256": SHA, "approved": True, "by": "Ada", "at": "2026-06-29"}


def test_all_kinds_come_back_from_files_as_they_were_written(
    good: Evidence, write: Callable[..., Path], tmp_path: Path
) -> None:
    write(tmp_path / "a.jsonl", *good.evaluations, *good.approvals)
    # The report as `audit reward` keeps it.
    (tmp_path / "b.json").write_text(json.dumps(dataclasses.asdict(good.audits[0]), indent=1))
    found = read_evidence([tmp_path / "a.jsonl", tmp_path / "b.json"])
    assert found == good
    (tmp_path / "c.json").write_text(json.dumps([dataclasses.asdict(each) for each in good.evaluations]))
    assert read_evidence([tmp_path / "c.json"]).evaluations == good.evaluations


def test_what_is_not_known_is_null_and_further_keys_are_left_alone(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {**ROW, "baseline_sha256": None, "interval": [None, 60], "p_value": 0.01})
    (evaluation,) = read_evidence([file]).evaluations
    assert evaluation.baseline_sha256 == ""
    assert evaluation.interval == (-math.inf, 60.0) and evaluation.value == 58.0
    (unknown,) = read_evidence([write(tmp_path / "b.jsonl", {**ROW, "interval": None})]).evaluations
    assert unknown.interval is None
    (approval,) = read_evidence([write(tmp_path / "c.jsonl", APPROVAL)]).approvals
    assert approval.why == ""


def test_the_least_and_the_most_that_a_number_may_be(write: Callable[..., Path], tmp_path: Path) -> None:
    largest = sys.float_info.max
    rows = [
        {**ROW, "n": 1, "interval": [58.0, 58.0]},
        {**ROW, "value": largest, "interval": [-largest, None]},
    ]
    one, other = read_evidence([write(tmp_path / "a.jsonl", *rows)]).evaluations
    assert one.n == 1 and one.interval == (58.0, 58.0)
    assert other.value == largest and other.interval == (-largest, math.inf)


def test_reports_with_any_verdict_come_back(
    report: Callable[..., AuditReport], write: Callable[..., Path], tmp_path: Path
) -> None:
    reports = [report(verdict="pass"), report(verdict="warn"), report("length")]
    assert read_evidence([write(tmp_path / "a.jsonl", *reports)]).audits == reports
    assert reports[2].verdict == "block"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"name": ""}, "name: is ''; should be text"),
        ({"candidate_sha256": "abc"}, "candidate_sha256: is 'abc'; should be a sha256, 64 digits of 0-9 and a-f"),
        ({"baseline_sha256": "A" * 64}, "baseline_sha256: is 'AAAAA"),
        ({"data_sha256": None}, "data_sha256: is null; should be a sha256"),
        ({"value": None}, "value: is null; should be a number"),
        ({"value": True}, "value: is True; should be a number"),
        ({"value": 10**400}, "value: is 1000"),
        ({"value": "58"}, "value: is '58'; should be a number"),
        ({"interval": 58}, "interval: is 58; should be two numbers, the lower first, or null"),
        ({"interval": [63, 53]}, "interval: is a list; should be two numbers"),
        ({"interval": [1, 2, 3]}, "interval: is a list; should be two numbers"),
        ({"n": 0}, "n: is 0; should be a whole number >= 1"),
        ({"n": 1.5}, "n: is 1.5; should be a whole number >= 1"),
        ({"at": "yesterday"}, "at: is 'yesterday'; should be a date and time as ISO 8601 has them"),
        ({"at": 2026}, "at: is 2026; should be a date"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(
    changed: dict[str, Any], problem: str, write: Callable[..., Path], tmp_path: Path
) -> None:
    file = write(tmp_path / "a.jsonl", ROW, {**ROW, **changed})
    with pytest.raises(InputError) as caught:
        read_evidence([file])
    assert str(caught.value).startswith(f"{file}:2: {problem}")


@pytest.mark.parametrize("field", ROW)
def test_a_missing_field_is_named(field: str, write: Callable[..., Path], tmp_path: Path) -> None:
    row = {key: value for key, value in ROW.items() if key != field}
    file = write(tmp_path / "a.jsonl", row)
    if field == "baseline_sha256":
        assert read_evidence([file]).evaluations[0].baseline_sha256 == ""
        return
    with pytest.raises(
        InputError, match=f"a.jsonl:1: {field}: is missing; an evaluation, an approval or the report of"
    ):
        read_evidence([file])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({**APPROVAL, "approved": "yes"}, "approved: is 'yes'; should be true or false"),
        ({**APPROVAL, "by": " "}, "by: is ' '; should be text"),
        ({**APPROVAL, "why": 3}, "why: is 3; should be text"),
        ({"subject_sha256": SHA}, "is no report of an audit"),
    ],
)
def test_a_wrong_approval_or_report(
    row: dict[str, Any], problem: str, write: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        read_evidence([write(tmp_path / "a.jsonl", row)])
    assert str(caught.value).startswith(f"{tmp_path / 'a.jsonl'}:1: {problem}")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [({"verdict": "fine"}, "verdict: is 'fine'; pass, warn or block"), ({"subject_sha256": "x"}, "subject_sha256: is")],
)
def test_a_report_with_a_wrong_value(
    changed: dict[str, Any],
    problem: str,
    report: Callable[..., AuditReport],
    tmp_path: Path,
    write: Callable[..., Path],
) -> None:
    row = {**dataclasses.asdict(report()), **changed}
    with pytest.raises(InputError, match=f"a.jsonl:1: {problem}"):
        read_evidence([write(tmp_path / "a.jsonl", row)])


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "text.jsonl").write_text("win_rate 58\n")
    for name, problem in [
        ("none.jsonl", "no such file"),
        ("empty.jsonl", "the file holds no rows"),
        ("text.jsonl", "broken JSON at column 1"),
        ("x.parquet", "evidence is no Parquet; give .jsonl or .json$"),
    ]:
        with pytest.raises(InputError, match=f"{name}(:1)?: {problem}"):
            read_evidence([tmp_path / name])
