"""`prefloop report RUN`: write the HTML report of a finished run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefloop.report.config import ReportConfig
from prefloop.report.demo import render_demo
from prefloop.report.records import read_result
from prefloop.report.run import render_run
from prefloop.rundir import atomic_file, output_file

PAGES: dict[str, Callable[[Path], str]] = {"demo": render_demo}
"""Command that made the run -> its page; the others get the page of a single run."""


def make(config: ReportConfig) -> dict[str, str]:
    """Write the report, atomically, and answer where it is. Raises InputError for anything but a finished run."""
    run_dir = Path(config.run)
    page = PAGES.get(read_result(run_dir)["command"], render_run)(run_dir)
    target = run_dir / "report.html" if config.out is None else output_file(config.out)
    with atomic_file(target) as file:
        file.write(page)
    return {"report": str(target)}
