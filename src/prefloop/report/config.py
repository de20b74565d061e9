"""What `prefloop report` is told."""

from __future__ import annotations

from prefloop.config import Section


class ReportConfig(Section):
    """Write the HTML report of a finished run."""

    run: str
    """A finished run directory, of the demo or of a single training run."""
    registry: str | None = None
    """Of a policy run: registry whose gate has decided about its model; the page shows the decision."""
    out: str | None = None
    """File to write (default: report.html in the run directory)."""
