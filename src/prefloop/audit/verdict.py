"""From findings to a verdict, and which findings to show first."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from prefloop.types import AuditReport, Finding, Severity, Verdict

RANK: Mapping[Severity, int] = {"block": 0, "warn": 1, "ok": 2}
VERDICTS: Mapping[Severity, Verdict] = {"block": "block", "warn": "warn", "ok": "pass"}
NUM_WORST = 3


def make_report(subject: str, subject_sha256: str, findings: Sequence[Finding]) -> AuditReport:
    """The report of an audit: its verdict is that of the worst finding."""
    worst = min((finding.severity for finding in findings), key=RANK.__getitem__)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return AuditReport(subject, subject_sha256, VERDICTS[worst], tuple(findings), now)


def worst_findings(findings: Sequence[Finding], number: int = NUM_WORST) -> list[Finding]:
    """Those that block or warn, worst first: by severity, then by how far a rate is from one half, then as given."""
    raised = [finding for finding in findings if finding.severity != "ok"]
    return sorted(raised, key=lambda finding: (RANK[finding.severity], -_distance(finding)))[:number]


def _distance(finding: Finding) -> float:
    return abs(finding.human_rate - 0.5) if finding.human_rate is not None and finding.p_value is not None else 0.0
