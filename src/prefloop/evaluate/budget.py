"""The command `evaluate budget`: a KL budget from short policy runs and held-out evidence, without the truth."""

from __future__ import annotations

import math
import shlex
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prefloop.data.rows import Row, shown, stream_rows
from prefloop.evaluate.config import BudgetConfig
from prefloop.evaluate.rows import number, read_rows, warn
from prefloop.rundir import METRICS, read_section
from prefloop.statistics.intervals import Estimate
from prefloop.statistics.kl_budget import FEWEST_UNITS, Choice, Curves, choose, curves_of, fitted
from prefloop.types import InputError

FEWEST_PROMPTS = 10
"""Prompts that may stand for repetitions where there are too few runs."""
DEALT = 4
"""Parts into which the evaluations of too few runs are dealt by turns."""
FEWEST_EVALUATIONS = 6
SAME = ("model", "reward", "eval_reward", "eval_prompts")
"""Inputs that runs must share to be repetitions of one experiment."""
EVALUATE = "train each with --eval-reward HELD_OUT --eval-prompts PROMPTS --eval-every 2"


@dataclass
class Points:
    """The evaluations of all runs, one policy (or one policy's response to a prompt) each."""

    run: list[str] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    proxy: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    prompts: list[Hashable] = field(default_factory=list)
    """Empty where no row names one."""

    def add(self, row: Row) -> None:
        """Take a row of a file in. Raises InputError where it lacks something."""
        values = row.values
        named = bool(self.prompts) if self.step else values.get("prompt_id") is not None
        prompt, run = values.get("prompt_id"), values.get("run", "")
        if named and not isinstance(prompt, str | int | float):
            raise InputError(
                "is missing" if prompt is None else f"is {shown(prompt)}", field="prompt_id", remedy="name it"
            )
        if isinstance(run, bool) or not isinstance(run, str | int):
            raise InputError(f"is {shown(run)}", field="run", remedy="name the run")
        found = {name: number(values, name) for name in ("step", "kl", "proxy", "held_out")}
        self.take(str(run), **found)
        if named:
            self.prompts.append(prompt)

    def take(self, run: str, *, step: float, kl: float, proxy: float, held_out: float) -> None:
        """Add a point."""
        self.run.append(run)
        self.step.append(step)
        self.kl.append(kl)
        self.proxy.append(proxy)
        self.held_out.append(held_out)


def run(config: BudgetConfig) -> dict[str, Any]:
    """A budget, where the peak may lie, and whether the runs have come that far.

    Raises InputError for bad rows, for runs without held-out evaluations or of different experiments, and for too few.
    """
    points, num_bad = Points(), 0
    if config.file is not None:
        _, tally = read_rows(config.file, points.add, skip_bad=config.skip_bad)
        num_bad = len(tally.bad)
    else:
        _require_one_experiment(config.runs)
        for path in config.runs:
            _take_run(points, path)
    warnings: list[str] = []
    policies, kl = _policies(points)
    unit, units, kind = _units(points, policies, warnings)
    curves = curves_of(kl, points.held_out, units) if len(unit) >= FEWEST_UNITS else None
    if curves is None or len(set(policies)) < FEWEST_EVALUATIONS:
        num_runs = len(set(points.run))
        told = f"{len(set(policies))} evaluations in {num_runs} run{'' if num_runs == 1 else 's'} are too few"
        remedy = f"evaluate more often: {FEWEST_EVALUATIONS} evaluations at different KLs are the least"
        raise InputError(told, path=config.file or config.runs[0], remedy=remedy)
    choice = choose(curves)
    return {
        **_verdict(curves, choice, warnings),
        "curve": _curve(curves, choice, np.asarray(kl), np.asarray(points.proxy), np.asarray(points.held_out)),
        "num_runs": len(set(points.run)),
        "num_evaluations": len(set(policies)),
        "repeated_over": kind,
        "num_repetitions": len(unit),
        "num_bad": num_bad,
        "warnings": warnings,
        "next": _following(config, float(curves.kl[choice.budget])),
    }


def _require_one_experiment(runs: Sequence[str]) -> None:
    """Raises InputError where two runs began at another policy, or were scored by others."""
    if len({str(Path(path).resolve()) for path in runs}) < len(runs):
        raise InputError("a run is named twice", field="runs", remedy="a copy is no repetition")
    first: dict[str, Any] = {}
    for path in runs:
        if not (Path(path) / METRICS).exists():
            raise InputError("is no run with metrics", path=path, field="runs", remedy="give runs of train policy")
        inputs = read_section(Path(path) / "inputs.json", "inputs")
        for name in SAME:
            found = sorted(entry["sha256"] for key, entry in inputs.items() if key.partition(":")[0] == name)
            if found != first.setdefault(name, found):
                problem = f"has another {name} than {runs[0]}: the two are no repetitions of one experiment"
                raise InputError(problem, path=path, field="runs", remedy="give runs that differ in seed or settings")


def _take_run(points: Points, path: str) -> None:
    """The evaluations of a run. That of step n measures the policy after n updates, whose KL and score are those of
    the round that it samples next; so the evaluation after the last round has none, and is left out."""
    file = Path(path) / METRICS
    rows = {int(row.values["step"]): row.values for row in stream_rows(file)}
    evaluated = [step for step, row in rows.items() if row.get("eval/score") is not None]
    if not evaluated:
        raise InputError("holds no held-out evaluation", path=file, field="runs", remedy=EVALUATE)
    for step in evaluated:
        following = rows.get(step + 1, {})
        if following.get("kl/full") is not None:
            points.take(
                path,
                step=float(step),
                kl=number(following, "kl/full"),
                proxy=number(following, "score/mean"),
                held_out=number(rows[step], "eval/score"),
            )


def _policies(points: Points) -> tuple[list[tuple[str, float]], list[float]]:
    """For each point the policy that it is about, and the KL of that, which is the mean over its rows."""
    policies = list(zip(points.run, points.step, strict=True))
    sums: dict[tuple[str, float], list[float]] = {}
    for policy, kl in zip(policies, points.kl, strict=True):
        sums.setdefault(policy, []).append(kl)
    mean = {policy: math.fsum(values) / len(values) for policy, values in sums.items()}
    return policies, [mean[policy] for policy in policies]


def _units(
    points: Points, policies: Sequence[tuple[str, float]], warnings: list[str]
) -> tuple[list[Hashable], list[int], str]:
    """What repeats the experiment: the units, that of each point, and what they are."""
    runs = list(dict.fromkeys(points.run))
    names: Sequence[Hashable]
    if len(runs) >= FEWEST_UNITS:
        names, kind = points.run, "runs"
    elif len(set(points.prompts)) >= FEWEST_PROMPTS:
        names, kind = points.prompts, "prompts"
        warn(warnings, f"{_count(runs)}: the interval says how far it holds for other prompts, not for other runs")
    else:
        parts = math.ceil(DEALT / len(runs))
        order = {policy: place for place, policy in enumerate(sorted(set(policies)))}
        names, kind = [(name, order[name, step] % parts) for name, step in policies], "evaluations"
        warn(warnings, f"{_count(runs)}: the interval knows the noise of the evaluations, not how runs differ")
    number_of: dict[Hashable, int] = {}
    place = [number_of.setdefault(name, len(number_of)) for name in names]
    return list(number_of), place, kind


def _count(runs: Sequence[str]) -> str:
    return f"{len(runs)} run{'' if len(runs) == 1 else 's'}, three are the least that tell how runs differ"


def _verdict(curves: Curves, choice: Choice, warnings: list[str]) -> dict[str, Any]:
    low, high = curves.edges[choice.possible[0]], curves.edges[choice.possible[1] + 1]
    top, budget = float(curves.kl[-1]), float(curves.kl[choice.budget])
    reached = choice.reached_peak
    if reached:
        says = f"the peak of the held-out score lies between KL {low:.3g} and {high:.3g}"
    else:
        says = f"no peak seen up to KL {top:.3g}; it is not below {low:.3g}"
    gain = choice.expected
    interval = gain.interval() if gain.n > 1 else (-math.inf, math.inf)
    if not interval[0] > 0:
        least = f"KL {curves.kl[0]:.3g}, the least that was evaluated"
        warn(warnings, f"no gain of the held-out score over {least}, is shown: evaluate more, and earlier")
    fit, peaks = fitted(curves)
    return {
        "kl_budget": budget,
        "interval": [float(low), float(high) if reached else None],
        "reached_peak": reached,
        "says": says,
        "expected_gain": _ends(gain),
        "fit": {
            "alpha": None if fit is None else fit.alpha,
            "beta": None if fit is None else fit.beta,
            "r_squared": None if fit is None else fit.r_squared,
            "peak_kl": None if fit is None else fit.peak_kl,
            "peak_kl_interval": list(peaks),
        },
    }


def _ends(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None or not estimate.n:
        return None
    return {"mean": estimate.mean, "interval": list(estimate.interval())}


def _curve(curves: Curves, choice: Choice, kl: Any, proxy: Any, held_out: Any) -> list[dict[str, Any]]:
    """By window: its KL, the proxy and the held-out score, the gain over the first, and how far below the best."""
    inside = np.clip(np.searchsorted(curves.edges, kl, side="right") - 1, 0, len(curves.kl) - 1)
    rows = []
    for window, gain in enumerate(curves.gains):
        behind = choice.behind[window]
        ends = None if behind is None else behind.interval()
        rows.append(
            {
                "kl": float(curves.kl[window]),
                "kl_from": float(curves.edges[window]),
                "kl_to": float(curves.edges[window + 1]),
                "proxy": float(proxy[inside == window].mean()),
                "held_out": float(held_out[inside == window].mean()),
                "gain": float(gain),
                "below_best": None if behind is None else behind.mean,
                "below_best_interval": None if ends is None else list(ends),
                "may_be_peak": choice.possible[0] <= window <= choice.possible[1],
            }
        )
    return rows


def _following(config: BudgetConfig, budget: float) -> str:
    if config.file is not None:
        return ""
    settings = shlex.quote(str(Path(config.runs[0]) / "config.yaml"))
    return f"prefloop train policy --config {settings} --kl-budget {budget:.3g} --out runs/budgeted"
