"""Training runs as they go: a list, and for each its curves and alarms. The pages load themselves again."""

from __future__ import annotations

import time
from typing import Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

from prefloop.app.boards import BOARDS, is_offered, shown
from prefloop.app.pages import page
from prefloop.app.run_files import RunFiles, RunState, alarms_of, find_run, rows_of, runs_in, state_of
from prefloop.app.station import station_of
from prefloop.report.command import POLICY
from prefloop.report.metrics import Series, series_of
from prefloop.report.page import PageSection
from prefloop.report.policy import course, ended, further_curves
from prefloop.report.records import parse
from prefloop.report.run import StoredResult, curve_blocks, input_blocks, result_blocks
from prefloop.report.wording import compact, count, duration
from prefloop.types import InputError

router = APIRouter()

SHOWN = 200
"""Newest runs on their page."""
RELOAD_SECONDS = 10
COLUMNS = ("score/mean", "kl/full", "response/length", "policy/entropy")
"""Metrics of the list: score, KL, length, entropy."""
ORDER = ("score", "drift", "alarms", "signals")
"""Of the sections of a policy run, by anchor: what is looked at every day first."""
Again = Literal["yes", "no"]


@router.get("/runs")
def all_runs(request: Request, reload: Again = "yes") -> HTMLResponse:
    """All runs, newest first."""
    config = station_of(request).config
    if not is_offered(config, "/runs"):
        return page(request, "absent.html", board=BOARDS["/runs"])
    found = runs_in(config.runs)
    rows = [_row(run) for run in found[:SHOWN]]
    seconds = RELOAD_SECONDS if reload == "yes" and any(row["unfinished"] for row in rows) else 0
    return page(request, "runs.html", rows=rows, total=len(found), reload=seconds)


@router.get("/runs/{run}")
def one_run(request: Request, run: str, reload: Again = "yes") -> HTMLResponse:
    """How one run went, or goes."""
    files = find_run(station_of(request).config.runs, run)
    if files is None:
        raise HTTPException(404, "no such run")
    state = state_of(files)
    seconds = RELOAD_SECONDS if reload == "yes" and state.result is None else 0
    return page(
        request,
        "run.html",
        run=files,
        state=state,
        said=_said(state),
        written=_ago(files),
        sections=shown(lambda: _sections(files, state), files.path),
        reload=seconds,
    )


def _row(run: RunFiles) -> dict[str, object]:
    row: dict[str, object] = {"run": run, "written": _ago(run), "numbers": [""] * len(COLUMNS), "problem": ""}
    try:
        state = state_of(run)
    except InputError as error:
        return {**row, "command": "", "said": "cannot be read", "problem": str(error), "step": "", "unfinished": False}
    numbers = [compact(state.latest[key]) if key in state.latest else "" for key in COLUMNS]
    step = "" if state.step is None else state.step
    unfinished = state.result is None
    said = {"numbers": numbers, "step": step, "unfinished": unfinished, "said": _said(state)}
    return {**row, **said, "command": state.command}


def _said(state: RunState) -> str:
    if state.result is None:
        return "unfinished"
    stopped = str(state.result.get("stopped", "unknown"))
    return stopped if stopped == "done" else ended(stopped)


def _ago(run: RunFiles) -> str:
    seconds = max(0.0, time.time() - run.changed)
    for length, noun in ((86400, "day"), (3600, "hour")):
        if seconds >= 2 * length:
            return f"{count(int(seconds // length), noun)} ago"
    return f"{duration(seconds)} ago"


def _sections(run: RunFiles, state: RunState) -> list[PageSection]:
    metrics: dict[str, Series] = series_of(rows_of(run))
    path = run.path / "result.json"
    result = parse({"command": state.command, **(state.result or {})}, StoredResult, path)
    if state.command == POLICY:
        sections = [
            *sorted(course(result, metrics, alarms_of(run)), key=lambda section: ORDER.index(section.anchor)),
            PageSection("Further curves", "curves", further_curves(metrics)),
        ]
    else:
        sections = [PageSection("Curves", "curves", curve_blocks(state.command, metrics))]
    if state.result is not None:
        sections.append(PageSection("Result", "result", result_blocks(result, path)))
    return [*sections, PageSection("Inputs", "inputs", input_blocks(run.path))]
