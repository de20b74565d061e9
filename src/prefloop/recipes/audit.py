"""`audit data`: audit, keep the report where training finds it, and tell people and programs."""

from __future__ import annotations

import shlex
from pathlib import Path

from prefloop.audit.config import AuditDataConfig
from prefloop.audit.data import audit
from prefloop.audit.text import as_table, as_values, next_command
from prefloop.audit.verdict import worst_findings
from prefloop.audits import store_audit
from prefloop.console import say
from prefloop.report.audit import render_audit
from prefloop.rundir import atomic_file, output_file
from prefloop.types import AuditReport, Told


def data(config: AuditDataConfig) -> Told:
    """Audit a data file. Refused (exit code 1) where the verdict is "block".

    Raises InputError where the file cannot be read as preferences at all, or the page cannot be written.
    """
    page = None if config.html is None else output_file(config.html, "html")
    report = audit(config)
    unusable = any(finding.name == "unusable" and finding.value for finding in report.findings)
    following = next_command(report, {"file": shlex.quote(config.file), "skip_bad": " --skip-bad" if unusable else ""})
    return tell(report, config.audits, page, following)


def tell(report: AuditReport, audits: str, page: Path | None, following: str) -> Told:
    """Keep a report where training finds it, write its page, and answer. `following` is the next command."""
    stored = store_audit(report, audits)
    if page is not None:
        with atomic_file(page) as file:
            file.write(render_audit(report, worst=worst_findings(report.findings), next_command=following))
        say(f"page: {page}")
    say(f"audit: {stored}")
    places = {"audit": str(stored), **({} if page is None else {"html": str(page)})}
    return Told(
        {**as_values(report), **places, "next": following},
        as_table(report, following),
        refused=report.verdict == "block",
    )
