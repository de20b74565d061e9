"""An audit's report as values for programs and as text for a terminal."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Mapping
from typing import Any

from prefloop.audit.verdict import RANK, worst_findings
from prefloop.types import AuditReport, Finding

SAID = {"pass": "pass: nothing was found against it", "warn": "warn: look before you train", "block": "block"}
COLORS = {"block": "red", "warn": "yellow", "ok": "green", "pass": "green"}
SHOWN_CHARS = 160
"""How much of a text a terminal shows of an example."""
PIPE_WIDTH = 110
"""Columns where standard output is no terminal."""


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
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding

    stream = io.StringIO()
    console = Console(file=stream, width=max(80, shutil.get_terminal_size((PIPE_WIDTH, 24)).columns), highlight=False)
    console.print(f"[bold]{escape(report.subject)}[/bold]: [bold]{SAID[report.verdict]}[/bold]")
    for number, finding in enumerate(worst_findings(report.findings), start=1):
        console.print(f"\n{number}. [bold]{finding.name}[/bold] ({finding.severity}): {escape(finding.message)}")
        if finding.remedy:
            console.print(Padding(escape(f"remedy: {finding.remedy}"), (0, 0, 0, 3)))
        for name, text in _example(finding).items():
            console.print(Padding(escape(f"{name}: {text}"), (0, 0, 0, 3)))
    console.print()
    console.print(_table(report))
    again = "next, after the remedies" if report.verdict == "block" else "next"
    console.print(f"\n{again}: {escape(next_command)}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def _example(finding: Finding) -> dict[str, str]:
    """The first example pair, cut to a line or two for each text."""
    if not finding.examples:
        return {}
    example = finding.examples[0]
    texts = {name: _cut(example[name]) for name in ("prompt", "chosen", "rejected")}
    place = example["place"] if "place" in example else f"line {example['line']}"
    sides = {str(example.get(f"said_{key}", key)): texts[key] for key in ("chosen", "rejected")}
    return {f"{place}, prompt": texts["prompt"], **sides}


def _cut(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= SHOWN_CHARS else f"{words[: SHOWN_CHARS - 1]}\u2026"


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
