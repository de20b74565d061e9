"""The page of a policy run: what it was paid, what else was measured, what the monitor said, and what it wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefloop.report import figures
from prefloop.report.figures import COLORS, PALETTE, Drift, Line, Mark, Moment
from prefloop.report.metrics import (
    METRIC_NAMES,
    Metrics,
    group_of,
    grouped_keys,
    heading_of,
    metric_plot,
    read_metrics,
    thinned,
)
from prefloop.report.monitor import ACTIONS
from prefloop.report.page import Block, Fold, PageSection, Plot, Plots, Prose, Table, render_page
from prefloop.report.records import Record, parse, read_records, read_result
from prefloop.report.run import (
    ROLLOUTS,
    StoredResult,
    configuration,
    input_blocks,
    random_rollouts,
    result_blocks,
    time_blocks,
)
from prefloop.report.suspicious import StoredAlarm, suspicious_rollouts
from prefloop.report.wording import compact, count, number, plain
from prefloop.rundir import ALARMS

FIRST = ("score/mean", "held_out/score", "kl/full", "policy/entropy", "response/length", "score/spread")
"""Metrics that are shown large."""
SHOWN_BEFORE = ("monitor/num_alarms", "monitor/score", "monitor/kl")
HELD_OUT = ("held_out/score", "eval/score")
"""What stands for the truth, the first that was logged."""
KL_AXIS = "KL from the reference, nats (square-root scale)"
ALARM_COLORS = {"stop": COLORS["hacked"], "rewind": COLORS["hacked"]}
REVIEW_COLOR = COLORS["hacked_peak"]
FAR = 4
"""Times the KL that was reached: a budget beyond that is not drawn."""


class StoredCheck(Record):
    """A check of a gate's decision."""

    name: str
    passed: bool
    observed: float | str | None = None
    required: str
    reason: str


class StoredDecision(Record):
    """What a registry's ledger keeps of a gate's decision."""

    verdict: str
    label: str = ""
    checks: tuple[StoredCheck, ...] = ()


def render_policy(run_dir: Path, decision: Mapping[str, Any] | None = None, place: str = "") -> str:
    """The report of one finished policy run as one HTML string; `decision` is the gate's about its model, from `place`.

    Raises InputError if the directory is not such a run.
    """
    result = parse(read_result(run_dir), StoredResult, run_dir / "result.json")
    metrics = read_metrics(run_dir)
    path = run_dir / ALARMS
    alarms = read_records(path, StoredAlarm) if path.exists() else []
    decided = None if decision is None else parse(dict(decision), StoredDecision, Path(place))
    suspicious = suspicious_rollouts(run_dir / ROLLOUTS, alarms) if (run_dir / ROLLOUTS).exists() else []
    sections = [
        *course(result, metrics, alarms),
        PageSection("The gate", "gate", [] if decided is None else _gate(decided, place)),
        PageSection("Suspicious responses", "suspicious", suspicious),
        PageSection("Random responses", "responses", random_rollouts(run_dir / ROLLOUTS)),
        PageSection("Result", "result", result_blocks(result, run_dir / "result.json")),
        PageSection("Further curves", "curves", further_curves(metrics)),
        PageSection("Inputs", "inputs", input_blocks(run_dir)),
        PageSection("Where time went", "time", time_blocks(metrics)),
        PageSection("Configuration", "configuration", configuration(run_dir)),
    ]
    return render_page(
        [section for section in sections if section.blocks],
        title=f"prefloop {result.command}",
        subtitle=f"Run {run_dir.resolve().name} · ended: {ended(result.stopped)}",
    )


def course(result: StoredResult, metrics: Metrics, alarms: Sequence[StoredAlarm]) -> list[PageSection]:
    """How a policy run went, or goes so far: alarms, what was paid and what else was measured."""
    return [
        PageSection("Alarms", "alarms", _alarms(alarms, metrics)),
        PageSection("Score against KL", "drift", _drift(result, metrics, alarms)),
        PageSection("Score, KL, length", "score", _first(metrics, alarms)),
        PageSection("Signals of the monitor", "signals", _signals(metrics, alarms)),
    ]


def ended(stopped: str) -> str:
    """Why a run ended, in words."""
    return {"monitor": "stopped by an alarm", "kl_budget": "KL budget", "done": "all steps done"}.get(
        stopped, plain(stopped)
    )


def _alarms(alarms: Sequence[StoredAlarm], metrics: Metrics) -> list[Block]:
    if not alarms:
        watched = any(group_of(key) == "monitor" for key in metrics)
        return [Prose("No signal left its limits." if watched else "The run was not watched, or not for long enough.")]
    rows = [[str(each.step), plain(each.signal), ACTIONS[each.action], each.message] for each in alarms]
    return [
        Table(["step", "signal", "asks to", "what was seen"], rows, numeric_from=4),
        Prose(
            "A signal of the text says that the policy writes differently, not that it writes worse; a held-out score "
            "tells which of the two it is."
        ),
    ]


def _moments(alarms: Sequence[StoredAlarm]) -> list[Moment]:
    """One for each step with alarms, in the colour of the strongest."""
    colors: dict[int, str] = {}
    for alarm in alarms:
        color = ALARM_COLORS.get(alarm.action, REVIEW_COLOR)
        colors[alarm.step] = color if color != REVIEW_COLOR else colors.get(alarm.step, color)
    return [Moment(float(step), color) for step, color in colors.items()]


def _first(metrics: Metrics, alarms: Sequence[StoredAlarm]) -> list[Block]:
    keys, moments = [key for key in FIRST if key in metrics], _moments(alarms)
    plots = [
        _kl_plot(metrics, moments)
        if key == "kl/full"
        else metric_plot(key, {"run": metrics}, {"run": PALETTE[0]}, moments)
        for key in keys
    ]
    told = "Dashed lines are alarms: yellow asks to read responses, red to stop." if moments else ""
    return [*([Prose(told)] if told and plots else []), *([Plots(plots)] if plots else [])]


def _kl_plot(metrics: Metrics, moments: Sequence[Moment]) -> Plot:
    """The KL below its budget; of one that is far away only the number, or the curve would be a flat line."""
    budget, (steps, values) = _budget(metrics), thinned(metrics["kl/full"])
    lines = [Line("KL", steps, values, PALETTE[0])]
    if budget is not None and budget <= FAR * max(values):
        lines.append(Line(f"budget {budget:g}", [steps[0], steps[-1]], [budget, budget], COLORS["limit"]))
    caption = "no budget" if budget is None else f"budget {budget:g}"
    return Plot(figures.curves(lines, moments=moments), METRIC_NAMES["kl/full"], f"kl/full, {caption}")


def _signals(metrics: Metrics, alarms: Sequence[StoredAlarm]) -> list[Block]:
    """Every signal with its own alarms on it, those that had one first."""
    names = [key.partition("/")[2] for key in metrics if group_of(key) == "monitor" and key not in SHOWN_BEFORE]
    fired = {name: [each for each in alarms if each.signal == name] for name in names}
    unmoved = [name for name in names if not fired[name] and len(set(metrics[f"monitor/{name}"].values)) == 1]
    plots = []
    for name in sorted((each for each in names if each not in unmoved), key=lambda name: not fired[name]):
        series = metrics[f"monitor/{name}"]
        # The step of an alarm that stopped the run was not trained on, and has no metrics.
        after = [alarm for alarm in fired[name] if alarm.step > series.steps[-1]]
        x, y = [*series.steps, *(alarm.step for alarm in after)], [*series.values, *(alarm.value for alarm in after)]
        lines = [Line(plain(name), x, y, PALETTE[0])]
        lines += [Line("limit", [x[0], x[-1]], [alarm.limit] * 2, COLORS["limit"]) for alarm in fired[name][:1]]
        steps = ", ".join(str(each.step) for each in fired[name])
        figure = figures.curves(lines, moments=_moments(fired[name]))
        plots.append(Plot(figure, plain(name), f"alarm at step {steps}" if steps else ""))
    blocks: list[Block] = [Plots(plots, small=True)] if plots else []
    if unmoved:
        seen = [f"{plain(name)} ({compact(metrics[f'monitor/{name}'].values[0])})" for name in unmoved]
        blocks.append(Prose(f"{', '.join(seen)}.", "The same in every look:"))
    return blocks


def _drift(result: StoredResult, metrics: Metrics, alarms: Sequence[StoredAlarm]) -> list[Block]:
    """Proxy and held-out score over the root of the KL, where both were measured."""
    key = next((name for name in HELD_OUT if name in metrics), None)
    if key is None or "kl/full" not in metrics or "score/mean" not in metrics:
        return []
    kl = dict(zip(metrics["kl/full"].steps, metrics["kl/full"].values, strict=True))

    def over_kl(name: str, title: str, color: str) -> Line:
        # What is not finite is null in the file, so a step may have the one and not the other.
        both = zip(metrics[name].steps, metrics[name].values, strict=True)
        points = [(kl[step], value) for step, value in both if step in kl]
        return Line(title, [x for x, _ in points], [y for _, y in points], color)

    proxy = over_kl("score/mean", "score that is optimised", COLORS["proxy"])
    held_out = over_kl(key, "held-out score", COLORS["true_utility"])
    if not proxy.x or not held_out.x:
        return []
    values = [*proxy.y, *held_out.y]
    budget, reached = _budget(metrics), max(kl.values())
    if budget is not None and budget > FAR * reached:
        # Twice as far to the right as anything that was measured, on this scale.
        budget = None
    limits = Drift(max(reached, budget or 0.0), min(values), max(values), KL_AXIS)
    marks = _marks(result, metrics, key, kl, alarms)
    figure = figures.utility_by_drift(proxy, held_out, budget=budget, marks=marks, limits=limits)
    best = max(range(len(held_out.y)), key=lambda place: held_out.y[place])
    caption = (
        f"The held-out score was highest ({number(held_out.y[best])}) at {number(held_out.x[best])} nats and ended at "
        f"{number(held_out.y[-1])}; the score that is optimised ended at {number(proxy.y[-1])}. Each is in units of "
        "its own reward model: compare directions, not heights."
    )
    return [Plot(figure, "Is what is optimised still what is wanted?", caption)]


def _budget(metrics: Metrics) -> float | None:
    """The KL budget: what is left of it after the first step, and the KL of that step."""
    if "kl/budget_left" not in metrics:
        return None
    return round(metrics["kl/budget_left"].values[0] + metrics["kl/full"].values[0], 6)


def _marks(
    result: StoredResult, metrics: Metrics, key: str, kl: Mapping[float, float], alarms: Sequence[StoredAlarm]
) -> list[Mark]:
    """The policy that is the result, and where the held-out alarm came."""
    held_out = dict(zip(metrics[key].steps, metrics[key].values, strict=True))
    marks = []
    name = Path(result.outputs.get("model", "")).parent.name
    if name.startswith("step-") and name.removeprefix("step-").isdecimal():
        # The policy after n updates writes the responses of step n + 1; the held-out evaluation comes after the update.
        step = int(name.removeprefix("step-"))
        at = float(step + 1 if key == "held_out/score" else step)
        if at in held_out and step + 1.0 in kl:
            marks.append(Mark(f"the result, step {step}", kl[step + 1.0], held_out[at], COLORS["guarded"], "star"))
    for alarm in [each for each in alarms if each.signal == "held_out_score"][:1]:
        # The step of an alarm that stops a run is not trained on, and has no metrics.
        last = max((step for step in held_out if step <= alarm.step), default=None)
        if last is not None and last in kl:
            marks.append(Mark(f"held-out alarm, step {alarm.step}", kl[last], alarm.value, COLORS["hacked"], "x"))
    return marks


def _gate(decided: StoredDecision, place: str) -> list[Block]:
    rows = [
        ["yes" if each.passed else "no", each.name, observed_text(each.observed), each.required, each.reason]
        for each in sorted(decided.checks, key=lambda check: check.passed)
    ]
    passed = sum(each.passed for each in decided.checks)
    told = f"{count(len(rows), 'check')}, {passed} passed; recorded in {place}."
    return [
        Prose(told, f"{decided.verdict}:" if not decided.label else f"{decided.label}, {decided.verdict}:"),
        Table(["passed", "check", "observed", "required", "reason"], rows, numeric_from=5),
    ]


def observed_text(value: float | str | None) -> str:
    """What a check has seen."""
    return "none" if value is None else value if isinstance(value, str) else compact(value)


def further_curves(metrics: Metrics) -> list[Block]:
    """All metrics that `course` does not show, folded away."""
    blocks: list[Block] = []
    for group, keys in grouped_keys(metrics).items():
        left = [key for key in keys if key not in FIRST]
        if group != "monitor" and left:
            plots = [metric_plot(key, {"run": metrics}, {"run": PALETTE[0]}) for key in left]
            blocks.append(Plots(plots, small=True, title=heading_of(group)))
    return [Fold("What the optimiser and the reward did", blocks)] if blocks else []
