"""The command `evaluate overoptimization`: curve, laws, peak, alarm and tail, from samples or from a training run."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prefloop.data.rows import Row
from prefloop.evaluate.config import OveroptimizationConfig
from prefloop.evaluate.rows import number, read_rows, warn
from prefloop.statistics.best_of_n import SAMPLES_PER_N, best_of_n_curve, best_of_n_kl, sizes_up_to
from prefloop.statistics.intervals import cluster_bootstrap
from prefloop.statistics.overoptimization import (
    Drop,
    Fit,
    Floats,
    Windows,
    bootstrap_curves,
    fit_law,
    paired_drop,
    run_drop,
    windows_of,
)
from prefloop.statistics.tails import hill, proxy_error
from prefloop.types import InputError

FEWEST_SAMPLES = 2 * SAMPLES_PER_N
"""Samples that every prompt must have: with fewer there is no best of two."""


@dataclass
class Measured:
    """The columns of a file. `kl` and `step` are empty for samples, `names` for a run without prompts."""

    proxy: array[float] = field(default_factory=lambda: array("d"))
    gold: array[float] = field(default_factory=lambda: array("d"))
    kl: array[float] = field(default_factory=lambda: array("d"))
    step: array[float] = field(default_factory=lambda: array("d"))
    names: list[Hashable] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Take a row in. Raises InputError where it lacks something that the first one has."""
        values = row.values
        proxy, gold = number(values, "proxy"), number(values, "gold")
        is_run = bool(self.kl) if self.proxy else "kl" in values and "step" in values
        has_names = bool(self.names) if self.proxy else values.get("prompt_id") is not None
        if not is_run and not has_names:
            remedy = "give prompt_id, proxy, gold (samples) or step, kl, proxy, gold (a training run)"
            raise InputError("is missing", field="prompt_id", remedy=remedy)
        name = values.get("prompt_id")
        if has_names and (name is None or not isinstance(name, str | int | float)):
            raise InputError(
                "is missing" if name is None else "is no name", field="prompt_id", remedy="name the prompt"
            )
        if is_run:
            kl, step = number(values, "kl"), number(values, "step")
            self.kl.append(kl)
            self.step.append(step)
        elif "kl" in values and "step" in values:
            raise InputError("the rows before are samples, not steps of a run", field="step", remedy="give one kind")
        if has_names:
            self.names.append(name)
        self.proxy.append(proxy)
        self.gold.append(gold)


def run(config: OveroptimizationConfig) -> dict[str, Any]:
    """The over-optimisation that a file of samples, or of a training run, shows.

    Raises InputError for bad rows, and for too few samples of a prompt.
    """
    measured = Measured()
    _, tally = read_rows(config.file, measured.add, skip_bad=config.skip_bad)
    answer = _of_run(config, measured) if measured.kl else _of_samples(config, measured)
    return {**answer, "num_rows": len(measured.proxy), "num_bad": len(tally.bad)}


def _of_samples(config: OveroptimizationConfig, measured: Measured) -> dict[str, Any]:
    warnings: list[str] = []
    proxy, gold = np.asarray(measured.proxy), np.asarray(measured.gold)
    index: dict[Hashable, int] = {}
    place = np.array([index.setdefault(name, len(index)) for name in measured.names])
    counts = np.bincount(place)
    if counts.min() < FEWEST_SAMPLES:
        name = list(index)[int(counts.argmin())]
        problem = f"the prompt {name!r} has {counts.min()} samples; {FEWEST_SAMPLES} are the least"
        raise InputError(problem, path=config.file, field="prompt_id", remedy="sample more, or leave it out")
    if counts.max() > counts.min():
        told = f"n goes to {counts.min() // SAMPLES_PER_N}, a tenth of the {counts.min()} samples of one prompt"
        warn(warnings, f"{told}; others have up to {counts.max()}")
    sizes = sizes_up_to(int(counts.min()) // SAMPLES_PER_N)
    groups = np.split(np.argsort(place, kind="stable"), np.cumsum(counts)[:-1])
    gold_curves = np.stack([best_of_n_curve(proxy[rows], gold[rows], sizes) for rows in groups])
    proxy_curve = np.mean([best_of_n_curve(proxy[rows], proxy[rows], sizes) for rows in groups], axis=0)
    kl = np.mean([best_of_n_kl(proxy[rows], sizes) for rows in groups], axis=0)
    curve = gold_curves.mean(axis=0)
    resampled = bootstrap_curves(gold_curves, num_resamples=config.num_resamples, seed=config.seed)
    known = len(groups) > 1
    if not known:
        warn(warnings, "one prompt: nothing is known of how far the curve would hold for others")
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    peaks = np.quantile(kl[resampled.argmax(axis=1)], [0.025, 0.975])
    drop = paired_drop(gold_curves, seed=config.seed)
    if drop is None:
        warn(warnings, f"{len(groups)} prompts are too few to say whether the curve turned over; four are the least")
    laws = {
        "best_of_n": fit_law(kl, curve, "best_of_n", start=float(curve[0])),
        "rl": fit_law(kl, curve, "rl", start=float(curve[0])),
    }
    points = [
        {
            "n": int(n),
            "kl": float(kl[at]),
            "proxy": float(proxy_curve[at]),
            "gold": float(curve[at]),
            "gold_interval": [float(low[at]), float(high[at])] if known else None,
        }
        for at, n in enumerate(sizes)
    ]
    return {
        "kind": "best_of_n",
        "best_of_n": points,
        **_verdict(laws, "best_of_n", drop),
        "empirical_peak_kl": float(kl[curve.argmax()]),
        "empirical_peak_kl_interval": [float(bound) for bound in peaks] if known else None,
        "tail_index": hill(proxy_error(proxy, gold, place)),
        "num_prompts": len(groups),
        "warnings": warnings,
    }


def _of_run(config: OveroptimizationConfig, measured: Measured) -> dict[str, Any]:
    warnings: list[str] = []
    proxy, gold, kl = (np.asarray(column) for column in (measured.proxy, measured.gold, measured.kl))
    distinct, place = np.unique(np.asarray(measured.step), return_inverse=True)
    counts = np.bincount(place)
    kl_by_step, gold_by_step = (np.bincount(place, weights=column) / counts for column in (kl, gold))
    if (kl_by_step < 0).any():
        warn(warnings, f"{int((kl_by_step < 0).sum())} steps have a KL below 0 (an estimate may): counted as 0")
    laws = {"best_of_n": fit_law(kl_by_step, gold_by_step, "best_of_n"), "rl": fit_law(kl_by_step, gold_by_step, "rl")}
    names = measured.names or None
    windows = windows_of(place)
    if windows is None:
        drop, windows = None, Windows(place, len(distinct), 1)
        warn(warnings, f"{len(place)} rows are too few to say whether gold fell: three times five are the least")
    else:
        drop = run_drop(windows, gold, names, seed=config.seed)
        if drop is None:
            warn(warnings, "the last steps have too few prompts to say whether gold fell")
    peak = int(windows.means(gold).argmax())
    return {
        "kind": "rl",
        "curve": [
            _point(config, windows, start, distinct, (kl, proxy, gold), names)
            for start in range(0, windows.num_steps, windows.width)
        ],
        **_verdict(laws, "rl", drop),
        "empirical_peak_kl": float(windows.means(kl)[peak]),
        "tail_index": hill(proxy_error(proxy, gold, place)),
        "num_steps": len(distinct),
        "warnings": warnings,
    }


def _point(
    config: OveroptimizationConfig,
    windows: Windows,
    start: int,
    steps: Floats,
    columns: tuple[Floats, Floats, Floats],
    names: list[Hashable] | None,
) -> dict[str, Any]:
    """The means of one window of a run; the last one may be shorter."""
    rows = np.flatnonzero(windows.inside(start))
    kl, proxy, gold = (column[rows] for column in columns)
    clusters = list(rows) if names is None else [names[row] for row in rows]
    low, high = cluster_bootstrap(gold, clusters, num_resamples=config.num_resamples, seed=config.seed)
    return {
        "step": [float(steps[start]), float(steps[min(start + windows.width, windows.num_steps) - 1])],
        "kl": float(kl.mean()),
        "proxy": float(proxy.mean()),
        "gold": float(gold.mean()),
        "gold_interval": [low, high] if len(set(clusters)) > 1 else None,
        "num_rows": len(rows),
    }


def _verdict(laws: dict[str, Fit | None], law: str, drop: Drop | None) -> dict[str, Any]:
    """What both kinds answer: the law that belongs to the kind, both laws, and whether gold fell."""
    return {
        "fit": _fit(laws[law]),
        "laws": {name: _fit(fit) for name, fit in laws.items()},
        "overoptimized": drop is not None and drop.overoptimized,
        "drop": None if drop is None else drop.value,
        "drop_interval": None if drop is None else list(drop.interval),
    }


def _fit(fit: Fit | None) -> dict[str, float | None]:
    if fit is None:
        return {"alpha": None, "beta": None, "r_squared": None, "peak_kl": None}
    return {"alpha": fit.alpha, "beta": fit.beta, "r_squared": fit.r_squared, "peak_kl": fit.peak_kl}
