"""Does what was meant still rise while the proxy is optimised? Laws of the curve, its peak, and whether it turned over.

d = sqrt(KL) throughout, and R is the gain of gold over the start, where d = 0. Source: Gao et al. (2022), "Scaling laws
for reward model overoptimization", section 1 (the two laws). That a curve turned over is decided by gold alone, without
a law: the peak is chosen on one half of the prompts (or rows) and measured on the other, both ways round.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from prefloop.statistics.intervals import mean_estimate

Floats = NDArray[np.float64]
Law = Literal["best_of_n", "rl"]

WINDOW_ROWS = 5
"""Least rows of a training run whose mean is compared."""
WINDOWS = 10
"""Into how many windows a long run is divided at most."""


@dataclass(frozen=True)
class Fit:
    """A law fitted to a curve by least squares."""

    law: Law
    alpha: float
    beta: float
    r_squared: float
    """Share of the variance of gold over the points that the law explains; nan where gold does not vary."""
    start: float
    """Gold at d = 0."""

    @property
    def peak_kl(self) -> float | None:
        """The KL at which the law has its maximum over d >= 0; None where it rises for ever (beta <= 0)."""
        if self.beta <= 0:
            return None
        if self.law == "best_of_n":
            return max(0.0, self.alpha / (2 * self.beta)) ** 2
        # The square of exp(alpha / beta - 1); far beyond any KL that means something it is infinite.
        return math.exp(2 * (self.alpha / self.beta - 1)) if self.alpha / self.beta < 300 else math.inf


@dataclass(frozen=True)
class Drop:
    """Gold at the end minus gold at the peak."""

    value: float
    interval: tuple[float, float]

    @property
    def overoptimized(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.interval[1] < 0


def fit_law(kl: ArrayLike, gold: ArrayLike, law: Law, *, start: float | None = None) -> Fit | None:
    """best_of_n: R = d (alpha - beta d); rl: R = d (alpha - beta log d). kl, gold: [K] points of a curve.

    `start` is gold at d = 0 where it is known; else it is a third unknown. None where there are fewer different d > 0
    than unknowns, or as many: such a fit explains everything. Points below KL 0 (an estimate may be) count as 0.
    """
    d = np.sqrt(np.maximum(np.asarray(kl, dtype=np.float64), 0.0))
    worth = np.asarray(gold, dtype=np.float64)
    assert d.shape == worth.shape and d.ndim == 1, (d.shape, worth.shape)
    bend = -(d**2) if law == "best_of_n" else -special.xlogy(d, d)
    columns = [d, bend] if start is not None else [d, bend, np.ones_like(d)]
    if len(np.unique(d[d > 0])) <= len(columns):
        return None
    unknown, *_ = np.linalg.lstsq(np.stack(columns, axis=1), worth - (start or 0.0), rcond=None)
    begin = float(unknown[2]) if start is None else start
    away = worth - (begin + unknown[0] * d + unknown[1] * bend)
    around = float(((worth - worth.mean()) ** 2).sum())
    r_squared = 1 - float((away**2).sum()) / around if around > 0 else math.nan
    return Fit(law, float(unknown[0]), float(unknown[1]), r_squared, begin)


def bootstrap_curves(curves: ArrayLike, *, num_resamples: int, seed: int) -> Floats:
    """[num_resamples, K]: mean curves of prompts [P, K] drawn with replacement."""
    rows = np.asarray(curves, dtype=np.float64)
    generator = np.random.default_rng(seed)
    number = len(rows)
    drawn = [generator.multinomial(number, np.full(number, 1 / number)) @ rows for _ in range(num_resamples)]
    return np.stack(drawn) / number


def paired_drop(curves: ArrayLike, *, seed: int = 0) -> Drop | None:
    """The drop of gold curves [P, K] (one a prompt, the end last), each prompt measured at the peak of the other half.

    Student's interval over prompts. None with fewer than four prompts, which make no two halves.
    """
    rows = np.asarray(curves, dtype=np.float64)
    if len(rows) < 4:
        return None
    half = np.random.default_rng(seed).permutation(len(rows)) % 2 == 0
    drops = np.empty(len(rows))
    for own in (half, ~half):
        drops[own] = rows[own, -1] - rows[own, rows[~own].mean(axis=0).argmax()]
    estimate = mean_estimate(drops)
    return Drop(estimate.mean, estimate.interval())


@dataclass(frozen=True)
class Windows:
    """A training run as means over neighbouring steps: window i holds the steps i ... i + width - 1."""

    step: NDArray[np.int64]
    """[T] the place of each row's step among the T different steps, for each row [M]."""
    num_steps: int
    width: int

    def sums(self, values: ArrayLike, rows: NDArray[np.bool_] | None = None) -> Floats:
        """[T - width + 1] sums over the rows of each window, of those that `rows` marks."""
        weights = np.asarray(values, dtype=np.float64)
        weights = weights if rows is None else np.where(rows, weights, 0.0)
        totals = np.bincount(self.step, weights=weights, minlength=self.num_steps)
        running = np.append(0.0, np.cumsum(totals))
        inside: Floats = running[self.width :] - running[: -self.width]
        return inside

    def means(self, values: ArrayLike, rows: NDArray[np.bool_] | None = None) -> Floats:
        """[T - width + 1] means over the rows of each window; -inf where it has none."""
        counts = np.round(self.sums(np.ones(len(self.step)), rows))
        return np.where(counts > 0, self.sums(values, rows) / np.maximum(counts, 1), -np.inf)

    def inside(self, window: int) -> NDArray[np.bool_]:
        """[M] the rows of a window."""
        return (self.step >= window) & (self.step < window + self.width)


def windows_of(steps: ArrayLike) -> Windows | None:
    """Windows of at least five rows over the steps of rows [M], at most ten side by side; None below three."""
    distinct, place = np.unique(np.asarray(steps), return_inverse=True)
    number = len(distinct)
    width = max(math.ceil(number / WINDOWS), math.ceil(WINDOW_ROWS * number / len(place)))
    return Windows(place.astype(np.int64), number, width) if number >= 3 * width else None


def run_drop(windows: Windows, gold: ArrayLike, clusters: Sequence[Hashable] | None, *, seed: int = 0) -> Drop | None:
    """The drop of a training run, from rows [M] in windows: the last one against the one with the highest gold.

    With one row a step and without `clusters` the rows are halved by turns, and their noise is what distinguishes a row
    from the mean of its neighbours; that takes the noise of different steps as independent. Else whole clusters
    (usually prompts) are halved, and the interval is that of a difference of two means over clusters, linearised. None
    where a half has no row in the last window, or there are too few clusters.

    Source: the noise from neighbours: Gasser, Sroka & Jennen-Steinmetz (1986); ratio means over clusters: Cochran
    (1977), Sampling Techniques, section 6.5.
    """
    values = np.asarray(gold, dtype=np.float64)
    series = clusters is None and len(values) == windows.num_steps
    names = np.arange(len(values)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    if series:
        half = windows.step % 2 == 0
    else:
        order = np.random.default_rng(seed).permutation(int(names.max()) + 1)
        half = order[names] % 2 == 0
    last = windows.num_steps - windows.width
    drops, variances, counted = [], [], 0
    for own in (half, ~half):
        peak = int(windows.means(values, ~own)[: last + 1].argmax())
        at_end, at_peak = own & windows.inside(last), own & windows.inside(peak)
        if not at_end.any() or not at_peak.any():
            return None
        drops.append(float(values[at_end].mean() - values[at_peak].mean()))
        weights = at_end / at_end.sum() - at_peak / at_peak.sum()
        if series:
            noise = _noise_of_series(values[np.argsort(windows.step)])
            variances.append(noise * float((weights**2).sum()))
            counted += len(values) // 2
        else:
            away = np.where(at_end, values - values[at_end].mean(), values - values[at_peak].mean())
            parts = np.bincount(names, weights=weights * away)
            used = len(np.unique(names[at_end | at_peak]))
            variances.append(float((parts**2).sum()) * used / max(1, used - 1))
            counted += used
    if counted < 4:
        return None
    value = float(np.mean(drops))
    width = float(stats.t.ppf(0.975, counted - 2)) * math.sqrt(sum(variances)) / 2
    return Drop(value, (value - width, value + width))


def _noise_of_series(values: Floats) -> float:
    """Variance of the noise around a smooth curve: mean of (2/3) (y_i - (y_{i-1} + y_{i+1}) / 2)^2."""
    away = values[1:-1] - (values[:-2] + values[2:]) / 2
    return float((away**2).mean()) * 2 / 3
