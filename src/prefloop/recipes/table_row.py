"""One scenario at one seed: all the runs and decisions behind a row of the table, as one record of plain numbers.

The audit, the monitor, the panel and the gate say what they say before any truth is measured: `measure.py` reads it for
the record only, and no setting or decision depends on it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefloop.audit.config import AuditDataConfig
from prefloop.audit.data import audit
from prefloop.recipes.config import SandboxConfig
from prefloop.recipes.measure import Measured, curve_row, difference, means_of_parts, peak_step, plain
from prefloop.recipes.mend import Stock, mend, remedy_of
from prefloop.recipes.panel import Desk
from prefloop.recipes.scenario import alarms_of, last, measure_runs, optimise
from prefloop.recipes.stages import Bench
from prefloop.rundir import METRICS, read_json, write_json, write_rows
from prefloop.statistics.intervals import Estimate, paired_difference
from prefloop.world.scenarios import SCENARIOS


def make_row(
    root: Path, config: SandboxConfig, scenario: str, *, panel: int, fresh: int, rounds: int
) -> dict[str, Any]:
    """Run what is not finished of a row, and measure it. The scenario's reward model must be there.

    `panel` and `fresh` are comparisons for a decision and for a round of the remedy, of which there are at most
    `rounds`.
    """
    bench = Bench.build(root, config)
    name = f"{scenario}-{config.algorithm}"
    unguarded, guarded = (f"{name}-{each}" for each in ("unguarded", "guarded"))
    optimise(root, config, scenario, unguarded, None)
    optimise(root, config, scenario, guarded, config.kl_budget)
    audited = _audited(bench, scenario)

    # Decisions are made again as a whole where a row was interrupted; the runs behind them are not.
    desk = Desk(bench, name, num_comparisons=panel)
    shutil.rmtree(desk.root, ignore_errors=True)
    desk.open()
    decisions = {"unguarded": desk.decide(unguarded, go_live=False), "guarded": desk.decide(guarded, go_live=True)}
    remedy = remedy_of(audited["named"], promoted=desk.live == guarded)
    mending: list[dict[str, Any]] = []
    stages = {"sft": "sft", guarded: "guarded"}
    if remedy.fresh:
        newest = guarded
        stock = Stock(
            str(bench.stage(f"reward-{scenario}")), (str(bench.data(f"pairs-{scenario}")),), balance=remedy.balance
        )
        for number in range(1, rounds + 1):
            mended = f"{name}-mended-{number}"
            found, stock = mend(bench, stock, mended, newest=newest, live=desk.live, fresh=fresh)
            decisions["mended"] = desk.decide(mended, go_live=True)
            mending.append({**found, "win_rate": decisions["mended"]["win_rate"]})
            stages[mended], newest = "mended", mended
            if decisions["mended"]["verdict"] == "promote":
                break

    measured = measure_runs(root, config, scenario, (unguarded,), ends=tuple(stages)[1:])
    _write_curve(root / "curves" / f"{name}.jsonl", measured)
    # Of several rounds the last stands for the remedy.
    after = {stage: last(measured[each]) for each, stage in stages.items() if stage != "sft"}
    return {
        "scenario": scenario,
        "algorithm": config.algorithm,
        "seed": config.seed,
        "audit": audited,
        "alarms": {each: alarms_of(root, config, f"{name}-{each}") for each in ("unguarded", "guarded")},
        "steps": {each: _steps(bench, f"{name}-{each}") for each in ("unguarded", "guarded")},
        "stopped": {each: _stopped(bench, f"{name}-{each}") for each in ("unguarded", "guarded")},
        "decisions": decisions,
        "panel_comparisons": desk.judged,
        "remedy": {"text": remedy.text, "rounds": mending},
        "live": stages[desk.live],
        **truth_of(measured[unguarded], after, stages[desk.live], kind=SCENARIOS[scenario].concerned_kind),
    }


def truth_of(curve: Mapping[int, Measured], after: Mapping[str, Measured], live: str, *, kind: str) -> dict[str, Any]:
    """What the truth says: of all prompts under "all", of the kind that the scenario concerns under "concerned".

    The peak of the unguarded run is that of the concerned prompts, on the half that is not reported.
    """
    concerned = {step: of_kind(each, kind) for step, each in curve.items()}
    top = peak_step(concerned)
    views = {"all": (dict(curve), dict(after))}
    views["concerned"] = (concerned, {name: of_kind(each, kind) for name, each in after.items()})
    before, end = concerned[top].reported(), last(concerned).reported()
    return {
        "peak_step": top,
        "kl": {"peak": curve[top].kl, "unguarded": last(curve).kl} | {name: each.kl for name, each in after.items()},
        "parts_changed": _change(means_of_parts(before), means_of_parts(end)),
        **{view: _view(points, ends, top, live) for view, (points, ends) in views.items()},
    }


def of_kind(measured: Measured, kind: str) -> Measured:
    """The same policy on one kind of prompt; all of them where there is no kind."""
    return Measured([row for row in measured.rows if not kind or row["kind"] == kind], measured.kl)


def _view(curve: Mapping[int, Measured], after: Mapping[str, Measured], top: int, live: str) -> dict[str, Any]:
    sft, peak, end = curve[0], curve[top], last(curve)
    policies = {"sft": sft, "peak": peak, "unguarded": end, **after}
    return {
        "true_utility": {name: plain(each.utility()) for name, each in policies.items()},
        "proxy": {name: plain(each.proxy()) for name, each in policies.items()},
        "end_minus_peak": plain(difference(end, peak)),
        "proxy_end_minus_peak": plain(_proxy_difference(end, peak)),
        "live_minus_unguarded": plain(difference(policies[live], end)),
        "live_minus_sft": plain(difference(policies[live], sft))
        if live != "sft"
        else {"mean": 0.0, "standard_error": 0.0},
        **{f"{name}_minus_sft": plain(difference(each, sft)) for name, each in after.items()},
    }


def _proxy_difference(a: Measured, b: Measured) -> Estimate:
    return paired_difference(a.values("report", "proxy"), b.values("report", "proxy"))


def _change(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after.get(name, 0.0) - before.get(name, 0.0) for name in sorted({**before, **after})}


def _audited(bench: Bench, scenario: str) -> dict[str, Any]:
    """What the audit says of the votes."""
    path = bench.root / "audits" / f"table-{scenario}.json"
    if not path.exists():
        report = audit(AuditDataConfig(file=str(bench.data(f"judgments-{scenario}"))))
        raised = [each for each in report.findings if each.severity != "ok"]
        path.parent.mkdir(exist_ok=True)
        write_json(
            path,
            {
                "verdict": report.verdict,
                "named": [each.name for each in raised],
                "raised": [{"name": e.name, "severity": e.severity, "message": e.message} for e in raised],
            },
        )
    return read_json(path)


def _steps(bench: Bench, stage: str) -> int:
    return max(json.loads(line)["step"] for line in (bench.stage(stage) / METRICS).read_text("utf-8").splitlines())


def _stopped(bench: Bench, stage: str) -> str:
    return str(read_json(bench.stage(stage) / "result.json")["stopped"])


def _write_curve(path: Path, measured: Mapping[str, Mapping[int, Measured]]) -> None:
    path.parent.mkdir(exist_ok=True)
    rows = [curve_row(name, step, point) for name, points in measured.items() for step, point in points.items()]
    write_rows(path, rows)
