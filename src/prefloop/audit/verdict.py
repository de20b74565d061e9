"""From findings to a verdict, and which findings to show first."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from prefloop.signals.measures import SIGNALS
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
    """Those that block or warn, worst first: by severity, then by how far a rate is from one half (of a model:
    by the effect of the probe), then as given."""
    raised = [finding for finding in findings if finding.severity != "ok"]
    return sorted(raised, key=lambda finding: (RANK[finding.severity], -_distance(finding)))[:number]


def _distance(finding: Finding) -> float:
    if finding.name not in SIGNALS or finding.value is None or finding.p_value is None:
        return 0.0
    return abs(finding.value - 0.5) if finding.value == finding.human_rate else finding.value
