"""Files of evidence: JSON Lines or JSON, each object an evaluation, an approval, or the report of an audit.

An object with `approved` is an approval, one with `subject_sha256` a report, everything else an evaluation. Further
keys are left alone: whoever measures may write down more than the gate reads.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prefloop.audits import report_of
from prefloop.data.rows import Row, describe, shown, stream_rows
from prefloop.gate.decide import Evidence, moment
from prefloop.types import Approval, AuditReport, Evaluation, InputError

SHA256 = re.compile(r"[0-9a-f]{64}")
Record = Evaluation | Approval | AuditReport
T = TypeVar("T")


def read_evidence(files: Sequence[str | Path]) -> Evidence:
    """All that the files hold, in order. Raises InputError with file, line and field for what cannot be read."""
    evaluations: list[Evaluation] = []
    audits: list[AuditReport] = []
    approvals: list[Approval] = []
    for record in _records(files):
        match record:
            case Evaluation():
                evaluations.append(record)
            case AuditReport():
                audits.append(record)
            case Approval():
                approvals.append(record)
    return Evidence(evaluations, audits, approvals)


def _records(files: Sequence[str | Path]) -> Iterator[Record]:
    for file in files:
        if str(file).lower().endswith(".parquet"):
            raise InputError("evidence is no Parquet", path=file, remedy="give .jsonl or .json")
        for row in stream_rows(file):
            try:
                yield record_of(row)
            except InputError as error:
                remedy = error.remedy or "an evaluation, an approval or the report of an audit, see docs/registry.md"
                raise InputError(
                    error.problem, path=row.path, line=row.line, field=error.field, remedy=remedy
                ) from None


def record_of(row: Row) -> Record:
    """What one object is. Raises InputError, with the field, where it is nothing of the kind."""
    values = row.values
    if "subject_sha256" in values:
        report = report_of(values, path=row.path)
        _hash(values, "subject_sha256")
        if report.verdict not in ("pass", "warn", "block"):
            raise InputError(f"is {shown(report.verdict)}", field="verdict", remedy="pass, warn or block")
        _moment(values, "at")
        return report
    if "approved" in values:
        return Approval(
            candidate_sha256=_hash(values, "candidate_sha256"),
            approved=_of(values, "approved", lambda value: isinstance(value, bool), "true or false"),
            by=_text(values, "by"),
            why=_of({"why": "", **values}, "why", lambda value: isinstance(value, str), "text"),
            at=_moment(values, "at"),
        )
    return Evaluation(
        name=_text(values, "name"),
        candidate_sha256=_hash(values, "candidate_sha256"),
        baseline_sha256=_hash(values, "baseline_sha256") if values.get("baseline_sha256") else "",
        data_sha256=_hash(values, "data_sha256"),
        value=float(_of(values, "value", _is_number, "a number")),
        interval=_interval(values),
        n=_of(
            values, "n", lambda value: _is_number(value) and value >= 1 and value == int(value), "a whole number >= 1"
        ),
        at=_moment(values, "at"),
    )


def _of(values: Mapping[str, Any], field: str, is_right: Callable[[Any], bool], wanted: str) -> Any:
    if field not in values:
        raise InputError("is missing", field=field)
    value = values[field]
    if not is_right(value):
        said = describe(value) if isinstance(value, list | dict) or value is None else shown(value)
        raise InputError(f"is {said}", field=field, remedy=f"should be {wanted}")
    return value


def _is_number(value: Any) -> bool:
    """Whether it is one that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _text(values: Mapping[str, Any], field: str) -> str:
    text: str = _of(values, field, lambda value: isinstance(value, str) and bool(value.strip()), "text")
    return text


def _hash(values: Mapping[str, Any], field: str) -> str:
    wanted = "a sha256, 64 digits of 0-9 and a-f"
    text: str = _of(values, field, lambda value: isinstance(value, str) and bool(SHA256.fullmatch(value)), wanted)
    return text


def _moment(values: Mapping[str, Any], field: str) -> str:
    def is_right(value: Any) -> bool:
        try:
            return isinstance(value, str) and bool(moment(value))
        except ValueError:
            return False

    text: str = _of(values, field, is_right, "a date and time as ISO 8601 has them, 2026-01-31T12:00:00+00:00")
    return text


def _interval(values: Mapping[str, Any]) -> tuple[float, float] | None:
    """Two numbers in order, or null; null also for an end of which nothing is known."""

    def is_right(value: Any) -> bool:
        if value is None:
            return True
        ends = isinstance(value, list) and len(value) == 2 and all(end is None or _is_number(end) for end in value)
        return ends and (None in value or value[0] <= value[1])

    interval = _of(values, "interval", is_right, "two numbers, the lower first, or null where nothing is known")
    if interval is None:
        return None
    low, high = interval
    return (-math.inf if low is None else float(low), math.inf if high is None else float(high))
