"""`metrics.jsonl` -> series -> small figures, one per metric, runs of one kind drawn over each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prefloop.report.figures import PALETTE, Line, Moment, curves
from prefloop.report.page import Plot
from prefloop.report.records import read_lines
from prefloop.report.wording import plain
from prefloop.rundir import METRICS

MAX_POINTS = 400
"""More steps than this are averaged in blocks: a page of a long run stays small."""

METRIC_NAMES: Mapping[str, str] = {
    "sft/loss": "Loss, nats per token",
    "reward/loss": "Loss of the reward model",
    "preference/loss": "Preference loss",
    "score/mean": "Score of the reward model",
    "score/spread": "Disagreement of the ensemble",
    "held_out/score": "Held-out score",
    "eval/score": "Held-out score on the evaluation prompts",
    "kl/budget_left": "KL budget that is left, nats per response",
    "reward/mean": "Reward (score minus KL penalty)",
    "reward/accuracy": "Share of pairs ordered as the annotator did",
    "preference/accuracy": "Share of pairs ordered as the annotator did, by implicit reward",
    "preference/margin": "Chosen minus rejected implicit reward",
    "eval/loss": "Loss on held-out rows",
    "eval/accuracy": "Accuracy on held-out pairs",
    "eval/margin": "Chosen minus rejected implicit reward, held-out pairs",
    "eval/perplexity": "Perplexity on held-out rows",
    "kl/full": "KL to the reference, exact, nats per response",
    "kl/sequence": "KL to the reference, sampled, nats per response",
    "kl/coef": "KL coefficient",
    "response/length": "Tokens per response",
    "response/truncated_fraction": "Share of responses cut off",
    "policy/entropy": "Entropy, nats per token",
    "policy/clip_fraction": "Share of tokens clipped",
    "value/explained_variance": "Explained variance of the value model",
}
"""What the common metrics are, in words; the others go by their key."""

GROUP_NAMES: Mapping[str, str] = {
    "sft": "Supervised fine-tuning",
    "kl": "KL",
    "optim": "Optimiser",
    "eval": "Held-out rows",
    "response": "Responses",
    "value": "Value model",
}
"""Groups of metrics whose key is no heading as it stands."""


@dataclass
class Series:
    """One metric of one run."""

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


Metrics = Mapping[str, Series]


def read_metrics(run_dir: Path) -> dict[str, Series]:
    """Every numeric metric of a run by key, in the order of first appearance; empty if it logged none."""
    path = run_dir / METRICS
    return series_of(read_lines(path)) if path.exists() else {}


def series_of(rows: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[str, Series]:
    """The same of (line number, object of that line)."""
    series: dict[str, Series] = {}
    for number, row in rows:
        step = row.get("step", number)
        for key, value in row.items():
            if key != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                found = series.setdefault(key, Series())
                found.steps.append(float(step))
                found.values.append(float(value))
    return series


def group_of(key: str) -> str:
    """The part of a key before its slash; "training" where there is none."""
    return key.split("/", 1)[0] if "/" in key else "training"


def heading_of(group: str) -> str:
    """A group of metrics as a heading."""
    return GROUP_NAMES.get(group) or plain(group).capitalize()


def grouped_keys(metrics: Metrics) -> dict[str, list[str]]:
    """Keys by group, times left out."""
    groups: dict[str, list[str]] = {}
    for key in metrics:
        if group_of(key) != "time":
            groups.setdefault(group_of(key), []).append(key)
    return groups


def metric_plot(
    key: str, runs: Mapping[str, Metrics], colors: Mapping[str, str], moments: Sequence[Moment] = ()
) -> Plot:
    """One metric of all runs that logged it. `colors` names the runs' colours; others take the palette's."""
    lines = [
        Line(name, *thinned(metrics[key]), colors.get(name, PALETTE[index % len(PALETTE)]))
        for index, (name, metrics) in enumerate(runs.items())
        if key in metrics
    ]
    assert lines, key
    return Plot(curves(lines, moments=moments), METRIC_NAMES.get(key, key), key if key in METRIC_NAMES else "")


def thinned(series: Series) -> tuple[Sequence[float], Sequence[float]]:
    """(steps, values), at most MAX_POINTS of them: means of equal blocks of steps."""
    if len(series.steps) <= MAX_POINTS:
        return series.steps, series.values
    blocks = np.linspace(0, len(series.steps), MAX_POINTS + 1).astype(int)[:-1]
    counts = np.diff([*blocks, len(series.steps)])
    steps = np.add.reduceat(np.asarray(series.steps), blocks) / counts
    values = np.add.reduceat(np.asarray(series.values), blocks) / counts
    return steps.tolist(), values.tolist()


def seconds_by_phase(metrics: Metrics) -> dict[str, float]:
    """Sum over the run of every `time/*_seconds`, by phase.

    Where phases stand beside `time/step_seconds`, which contains them, that key gives "rest": what no phase claims.
    """
    seconds = {
        key.removeprefix("time/").removesuffix("_seconds"): float(np.nansum(series.values))
        for key, series in metrics.items()
        if key.startswith("time/") and key.endswith("_seconds")
    }
    if len(seconds) > 1 and "step" in seconds:
        whole = seconds.pop("step")
        seconds["rest"] = max(0.0, whole - sum(seconds.values()))
    return seconds
