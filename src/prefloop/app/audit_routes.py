"""The stored reports of audits: a list, and a page for each."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

from prefloop.app.boards import BOARDS, is_offered, shown
from prefloop.app.pages import page
from prefloop.app.station import station_of
from prefloop.audit.verdict import RANK, VERDICTS, worst_findings
from prefloop.audits import MADE_AGAIN, report_of
from prefloop.report.audit import audit_sections
from prefloop.report.wording import plain
from prefloop.rundir import read_json
from prefloop.types import AuditReport, InputError

router = APIRouter()

SHOWN = 200
"""Newest reports on their page."""
NAMED = re.compile(r"[0-9a-f]{64}\.json")


@router.get("/audits")
def all_audits(request: Request) -> HTMLResponse:
    """All reports, newest first; those that cannot be read on top."""
    config = station_of(request).config
    if not is_offered(config, "/audits"):
        return page(request, "absent.html", board=BOARDS["/audits"])
    readable, problems = [], []
    for sha256, path in _files(config.audits).items():
        try:
            report = _report(path)
        except InputError as error:
            problems.append(str(error))
            continue
        worst = ", ".join(plain(finding.name) for finding in worst_findings(report.findings))
        readable.append((sha256, report, worst))
    readable.sort(key=lambda each: each[1].at, reverse=True)
    return page(request, "audits.html", rows=readable[:SHOWN], problems=problems[:SHOWN], total=len(readable))


@router.get("/audits/{sha256}")
def one_audit(request: Request, sha256: str) -> HTMLResponse:
    """One report: verdict, findings, what to do, example rows."""
    path = _files(station_of(request).config.audits).get(sha256)
    if path is None:
        raise HTTPException(404, "no such audit")
    report = _report(path)
    worst = worst_findings(report.findings)
    sections = shown(lambda: audit_sections(report, worst=worst), path)
    return page(request, "audit.html", report=report, sections=sections)


def _files(directory: str | None) -> dict[str, Path]:
    """sha256 of the subject -> file."""
    if directory is None or not Path(directory).is_dir():
        return {}
    return {path.stem: path for path in Path(directory).iterdir() if NAMED.fullmatch(path.name)}


def _report(path: Path) -> AuditReport:
    """Raises InputError where the file is no report that the page knows how to show."""
    report = report_of(read_json(path), path=path)
    severities = {finding.severity for finding in report.findings}
    if report.verdict not in VERDICTS.values() or not severities <= RANK.keys() or not isinstance(report.at, str):
        raise InputError("is no report of an audit", path=path, remedy=MADE_AGAIN)
    return report
