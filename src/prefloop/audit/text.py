"""An audit's report as values for programs and as text for a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from prefloop.audit.verdict import RANK, worst_findings
from prefloop.console import Sheet, in_a_line
from prefloop.types import AuditReport, Finding

SAID = {"pass": "pass: nothing was found against it", "warn": "warn: look before you train", "block": "block"}
COLORS = {"block": "red", "warn": "yellow", "ok": "green", "pass": "green"}


def as_values(report: AuditReport) -> dict[str, Any]:
    """The JSON answer: verdict, findings and what was audited."""
    findings = [dataclasses.asdict(finding) for finding in report.findings]
    return {
        "verdict": report.verdict,
        "findings": findings,
        "subject": report.subject,
        "subject_sha256": report.subject_sha256,
        "at": report.at,
    }


def as_table(report: AuditReport, next_command: str) -> str:
    """The verdict, the three worst findings with an example each, all probes as a table, and the next command."""
    # Loaded here: slow, and no help needs it.
    from rich.markup import escape

    sheet = Sheet()
    sheet.draw(f"[bold]{escape(report.subject)}[/bold]: [bold]{SAID[report.verdict]}[/bold]", wrapped=False)
    for number, finding in enumerate(worst_findings(report.findings), start=1):
        sheet.draw(f"\n{number}. [bold]{finding.name}[/bold] ({finding.severity}): {escape(finding.message)}")
        if finding.remedy:
            sheet.draw(escape(f"remedy: {finding.remedy}"), indent=3)
        for name, text in _example(finding).items():
            sheet.draw(escape(f"{name}: {text}"), indent=3)
    sheet.draw()
    sheet.draw(_table(report))
    again = "next, after the remedies" if report.verdict == "block" else "next"
    sheet.draw(f"\n{again}: {escape(next_command)}", wrapped=False)
    return sheet.text()


def _example(finding: Finding) -> dict[str, str]:
    """The first example pair, cut to a line or two for each text."""
    if not finding.examples:
        return {}
    example = finding.examples[0]
    texts = {name: in_a_line(example[name]) for name in ("prompt", "chosen", "rejected")}
    place = example["place"] if "place" in example else f"line {example['line']}"
    sides = {str(example.get(f"said_{key}", key)): texts[key] for key in ("chosen", "rejected")}
    return {f"{place}, prompt": texts["prompt"], **sides}


def _table(report: AuditReport) -> Any:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table("probe", "", "value", "95 % interval", "pairs", box=SIMPLE, pad_edge=False)
    for column in (2, 3, 4):
        table.columns[column].justify = "right"
    for finding in sorted(report.findings, key=lambda finding: RANK[finding.severity]):
        table.add_row(*_cells(finding))
    return table


def _cells(finding: Finding) -> tuple[str, ...]:
    interval = "" if finding.interval is None else "{:.2f} to {:.2f}".format(*finding.interval)
    mark = "-" if finding.value is None else finding.severity
    value = "" if finding.value is None else f"{finding.value:.3g}"
    return finding.name, mark, value, interval, str(finding.num_pairs) if finding.num_pairs else ""


def next_command(report: AuditReport, settings: Mapping[str, str]) -> str:
    """What usually follows: training, or after a remedy the audit again."""
    file, skip_bad = settings["file"], settings["skip_bad"]
    if report.verdict == "block":
        return f"prefloop audit data {file}{skip_bad}"
    return f"prefloop train reward --model MODEL --data {file}{skip_bad}"
