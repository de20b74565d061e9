"""`prefloop report RUN`: write the HTML report of a finished run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefloop.report.config import ReportConfig
from prefloop.report.demo import render_demo
from prefloop.report.policy import render_policy
from prefloop.report.records import read_result
from prefloop.report.run import render_run
from prefloop.rundir import atomic_file, output_file
from prefloop.types import InputError

POLICY = "train policy"
PAGES: dict[str, Callable[[Path], str]] = {"demo": render_demo, POLICY: render_policy}
"""Command that made the run -> its page; the others get the page of a single run."""


def make(config: ReportConfig, decision: Mapping[str, Any] | None = None, place: str = "") -> dict[str, str]:
    """Write the report, atomically, and answer where it is; with the gate's decision about the run's model, if given,
    and where that stands. Raises InputError for anything but a finished run."""
    run_dir = Path(config.run)
    made_by = read_result(run_dir)["command"]
    if decision is None:
        page = PAGES.get(made_by, render_run)(run_dir)
    elif made_by == POLICY:
        page = render_policy(run_dir, decision, place)
    else:
        raise InputError(f"has no effect on a run of {made_by}", field="registry", remedy="leave it out")
    target = run_dir / "report.html" if config.out is None else output_file(config.out)
    with atomic_file(target) as file:
        file.write(page)
    return {"report": str(target)}
