"""Where audits are kept, and what they allow: reports under the sha256 of their subject, for every run to find.

A report is `audits/<sha256>.json` in the working directory, beside `runs/`; a newer audit of the same content replaces
the older one. A file that changes has another sha256, and so no audit. That on a model also lies in its directory, so
that it goes along when the model is copied: `sha256_of` passes it over.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefloop.console import say
from prefloop.rundir import InputEntry, read_json, write_json
from prefloop.types import AuditReport, Finding, InputError, Refusal

AUDITS = "audits"
"""Directory of the stored reports."""
INSIDE = "prefloop-audit.json"
"""The report on a model, inside its directory."""
NONE = "none"
"""What stands in inputs.json for an input without an audit."""
MADE_AGAIN = "audit its subject again with this version of prefloop"


def store_audit(report: AuditReport, directory: str | Path = AUDITS) -> Path:
    """Write a report, atomically, where `find_audit` finds it; returns the file."""
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{report.subject_sha256}.json"
    write_json(path, _finite(dataclasses.asdict(report)))
    return path


def store_inside(report: AuditReport, model: Path) -> None:
    """Write the report on a model into its directory, atomically. Raises OSError where it may not be written to."""
    write_json(model / INSIDE, _finite(dataclasses.asdict(report)))


def find_audit(sha256: str, directory: str | Path = AUDITS) -> AuditReport | None:
    """The stored report on the content with this hash. Raises InputError where the file is no such report."""
    path = Path(directory) / f"{sha256}.json"
    if not path.exists():
        return None
    report = _read(path)
    if report.subject_sha256 != sha256:
        raise InputError("is the report on another subject", path=path, remedy=MADE_AGAIN)
    return report


def find_inside(path: Path, sha256: str) -> AuditReport | None:
    """The report that lies in a model's directory, if it is on what the directory holds now."""
    if not (path / INSIDE).is_file():
        return None
    report = _read(path / INSIDE)
    return report if report.subject_sha256 == sha256 else None


def _read(path: Path) -> AuditReport:
    return report_of(read_json(path), path=path)


def report_of(stored: Mapping[str, Any], *, path: str | Path, line: int | None = None) -> AuditReport:
    """The report that a JSON object holds. Raises InputError, with the place, where it holds none."""
    try:
        findings = tuple(_finding(row) for row in stored["findings"])
        return AuditReport(**{**stored, "findings": findings})
    except (TypeError, KeyError) as error:
        raise InputError(f"is no report of an audit ({error})", path=path, line=line, remedy=MADE_AGAIN) from None


def blocking(report: AuditReport, accepted: Sequence[str] = ()) -> list[Finding]:
    """The findings that forbid to optimise against the subject, without the accepted ones."""
    return [finding for finding in report.findings if finding.severity == "block" and finding.name not in accepted]


def audit_lookup(
    commands: Mapping[str, str], *, accepted: Sequence[str]
) -> Callable[[Mapping[str, InputEntry]], dict[str, InputEntry]]:
    """What a RunDir does with those of its inputs that are to be audited: looks each up and notes the verdict.

    Args:
        commands: for each of these inputs, by the name that the run records, what makes its audit.
        accepted: findings by name that may block without effect; commas separate, too.

    The returned function raises Refusal for an audit that blocks, and warns once of inputs without one.
    """
    overridden = [name for words in accepted for name in words.split(",") if name]

    def look_up(inputs: Mapping[str, InputEntry]) -> dict[str, InputEntry]:
        found = {name: newest_audit(inputs[name]["path"], inputs[name]["sha256"]) for name in commands}
        for name, report in found.items():
            if report is not None and (refused := blocking(report, overridden)):
                raise Refusal(_refusal_text(inputs[name]["path"], report, refused, overridden))
        missing = {inputs[name]["path"]: commands[name] for name, report in found.items() if report is None}
        if missing:
            told = "; ".join(missing.values())
            say(f"warning: no audit of {', '.join(missing)} was found, so nobody knows what it rewards: {told}")
        noted = {}
        for name, report in found.items():
            verdict = NONE if report is None else report.verdict
            entry: InputEntry = {**inputs[name], "audit": verdict}
            blocked = [] if report is None else [finding.name for finding in blocking(report)]
            noted[name] = {**entry, "accepted_findings": blocked} if blocked else entry
        return noted

    return look_up


def newest_audit(path: str, sha256: str, directory: str | Path = AUDITS) -> AuditReport | None:
    """The latest of the reports on an input: that of the working directory and that inside a model's directory."""
    places = (find_audit(sha256, directory), find_inside(Path(path), sha256))
    return max((report for report in places if report is not None), key=lambda report: report.at, default=None)


def _refusal_text(path: str, report: AuditReport, refused: Sequence[Finding], accepted: Sequence[str]) -> str:
    first, others = refused[0], [finding.name for finding in refused[1:]]
    more = f" (and {', '.join(others)})" if others else ""
    override = ",".join(dict.fromkeys([*accepted, *(finding.name for finding in refused)]))
    return (
        f"{path}: the audit of {report.at} blocks: {first.name}{more}: {first.message}; "
        f"{first.remedy}; or take the risk with --accept-findings {override}"
    )


def _finding(row: Mapping[str, Any]) -> Finding:
    interval = row["interval"]
    return Finding(
        **{
            **row,
            "interval": None if interval is None else (float(interval[0]), float(interval[1])),
            "examples": tuple(row["examples"]),
        }
    )


def _finite(value: Any) -> Any:
    """`value` with None for what is not finite, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
