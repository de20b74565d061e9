"""How far a policy may go: the least KL at which held-out evidence is as good as anywhere, from short runs.

A *unit* is what repeats the experiment: a run, or a prompt where there are too few runs. Every unit has a curve of its
own over windows of KL; what is compared is always two windows of one unit, so that units may begin at different heights
and end at different places. The budget is the least KL whose mean lies within one standard error of the best one's (the
rule of Breiman et al. 1984 for the size of a tree, with the error of the difference). Where the peak may lie is asked
apart from that: each unit is measured against the peak that the others chose, and a curve is taken to rise to one
peak and to fall after it. No law has a say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from prefloop.statistics.intervals import Estimate, mean_estimate
from prefloop.statistics.overoptimization import Fit, Floats, fit_law

FEWEST_UNITS = 3
"""Units below which nothing is known of how much they differ."""
FEWEST_WINDOWS = 3
MOST_WINDOWS = 10
FOLDS = 10
FARTHEST = 600.0
"""Largest reach of an interval of a logarithm: beyond it there is no number, and no KL either."""
SWEEPS = 200
"""Most rounds of fitting curve and heights in turn; units that all reach every window need one."""


@dataclass(frozen=True)
class Choice:
    """What the curves say. Windows are numbered from the least KL on."""

    budget: int
    """The window of the budget."""
    best: int
    """The window with the highest mean."""
    possible: tuple[int, int]
    """First and last window in which the peak may lie: beyond them is one that is shown to be worse than the peak."""
    behind: tuple[Estimate | None, ...]
    """By window, how far it lies below the best one; None where fewer than two units have both."""
    expected: Estimate
    """Gain over the first window that the rule finds for a unit when it is applied to the others."""

    @property
    def reached_peak(self) -> bool:
        """Whether a window beyond the best one is shown to be worse than the peak."""
        return self.possible[1] < len(self.behind) - 1


@dataclass(frozen=True)
class Curves:
    """Held-out evidence by unit and window of KL."""

    edges: Floats
    """[K + 1] KL at the borders of the windows."""
    kl: Floats
    """[K] mean KL of the points in a window."""
    values: Floats
    """[U, K] nan where a unit does not reach."""
    points: tuple[Floats, Floats, NDArray[np.int64]]
    """KL, evidence and unit of each point."""

    @property
    def gains(self) -> Floats:
        """[K] the common curve above its first window."""
        return _common(self.values)


def curves_of(kl: ArrayLike, values: ArrayLike, units: ArrayLike) -> Curves | None:
    """Curves from points [M]: the KL of a policy, the held-out evidence about it, and the unit (0 ... U - 1).

    At most ten windows with about as many points each, and two different KLs at least. Where a unit has no point in a
    window between two others, it is taken to lie on the line between them. None below three units, or three windows.
    """
    place = np.asarray(units, dtype=np.int64)
    d = np.sqrt(np.maximum(np.asarray(kl, dtype=np.float64), 0.0))
    worth = np.asarray(values, dtype=np.float64)
    assert d.shape == worth.shape == place.shape and d.ndim == 1, (d.shape, worth.shape, place.shape)
    counts = np.bincount(place)
    distinct, where, many = np.unique(d, return_inverse=True, return_counts=True)
    number = min(MOST_WINDOWS, len(distinct) // 2)
    if len(counts) < FEWEST_UNITS or number < FEWEST_WINDOWS:
        return None
    middle = (np.cumsum(many) - many / 2) / len(d)
    window_of = np.unique(np.floor(number * middle), return_inverse=True)[1]
    last = np.flatnonzero(np.diff(window_of))
    borders = np.concatenate([distinct[:1], (distinct[last] + distinct[last + 1]) / 2, distinct[-1:]])
    window = window_of[where]
    centre = np.bincount(window, weights=d**2) / np.bincount(window)
    cell = place * len(centre) + window
    size = len(counts) * len(centre)
    inside = np.bincount(cell, minlength=size).reshape(len(counts), -1)
    total = np.bincount(cell, weights=worth, minlength=size).reshape(len(counts), -1)
    means = np.where(inside > 0, total / np.maximum(inside, 1), np.nan)
    values = np.stack([_bridged(row, np.sqrt(centre)) for row in means])
    return Curves(borders**2, centre, values, (d**2, worth, place))


def choose(curves: Curves) -> Choice:
    """The budget, where the peak may lie, and what the rule gains for units that had no say in it."""
    values = curves.values
    number = values.shape[1]
    budget, best, behind = _rule(values)
    against = np.full(values.shape, np.nan)
    gains = np.full(len(values), np.nan)
    for inside in _folds(len(values)):
        chosen, peak, _ = _rule(values[~inside])
        against[inside] = values[inside, peak][:, None] - values[inside]
        gains[inside] = values[inside, chosen] - values[inside, 0]
    worse = [window for window in range(number) if _is_above_zero(against[:, window])]
    first = max((window + 1 for window in worse if window < best), default=0)
    last = min((window - 1 for window in worse if window > best), default=number - 1)
    known = gains[~np.isnan(gains)]
    expected = mean_estimate(known) if len(known) else Estimate(math.nan, math.inf, 0)
    return Choice(budget, best, (first, last), behind, expected)


def fitted(curves: Curves) -> tuple[Fit | None, tuple[float, float]]:
    """The law height[u] + d (alpha - beta log d) of the points, and the interval of its peak: delete-a-group jackknife
    of the logarithm of the peak. (0, inf) where a part of the units gives no peak.

    Source: the law: Gao et al. (2022); the jackknife over groups: Shao & Tu (1995), The Jackknife and Bootstrap, 2.3.
    """
    kl, worth, place = curves.points
    whole = _fitted(kl, worth, place)
    groups = list(_folds(len(curves.values)))
    kept = [~inside[place] for inside in groups]
    parts = [_fitted(kl[rows], worth[rows], place[rows]) for rows in kept]
    peaks = [_peak(fit) for fit in (whole, *parts)]
    if not np.isfinite(peaks).all():
        return whole, (0.0, math.inf)
    logs, count = np.log(peaks[1:]), len(groups)
    error = math.sqrt((count - 1) / count * float(((logs - logs.mean()) ** 2).sum()))
    reach = min(float(stats.t.ppf(0.975, count - 1)) * error, FARTHEST)
    return whole, (peaks[0] * math.exp(-reach), peaks[0] * math.exp(reach))


def _fitted(kl: Floats, worth: Floats, place: NDArray[np.int64]) -> Fit | None:
    """The law by least squares with a height for each unit, which falls out where all are taken about their means."""
    d = np.sqrt(kl)
    columns = np.stack([d, -special.xlogy(d, d)], axis=1)
    counts = np.maximum(np.bincount(place), 1)

    def mean(values: Floats) -> Floats:
        of_unit: Floats = (np.bincount(place, weights=values) / counts)[place]
        return of_unit

    about = np.stack([column - mean(column) for column in columns.T], axis=1)
    unknown, *_ = np.linalg.lstsq(about, worth - mean(worth), rcond=None)
    return fit_law(kl, worth - mean(worth - columns @ unknown), "rl", start=0.0)


def _peak(fit: Fit | None) -> float:
    return math.inf if fit is None or fit.peak_kl is None or fit.peak_kl <= 0 else fit.peak_kl


def _rule(values: Floats) -> tuple[int, int, tuple[Estimate | None, ...]]:
    """The window of the budget, the best one, and how far each lies below that."""
    best = int(np.argmax(_common(values)))
    behind = tuple(_mean(values[:, best] - values[:, window]) for window in range(values.shape[1]))
    near = [place for place, each in enumerate(behind) if each is not None and each.mean <= each.standard_error]
    return min([best, *near]), best, behind


def _mean(values: Floats) -> Estimate | None:
    known = values[~np.isnan(values)]
    return mean_estimate(known) if len(known) > 1 else None


def _is_above_zero(values: Floats) -> bool:
    """Whether the whole 95 % interval of the mean is."""
    estimate = _mean(values)
    return estimate is not None and estimate.mean > 0 and estimate.interval()[0] > 0


def _common(values: Floats) -> Floats:
    """[K] the curve c of values[u, k] = height[u] + c[k] + noise by least squares; it begins at 0 and is -inf where no
    unit reaches. Curve and heights are fitted in turn, which converges to it (the two-way layout)."""
    reached = ~np.isnan(values)
    counts, points = reached.sum(axis=0), np.maximum(reached.sum(axis=1), 1)
    filled = np.where(reached, values, 0.0)
    curve = np.zeros(values.shape[1])
    for _ in range(1 if reached.all() else SWEEPS):
        heights = (filled - np.where(reached, curve, 0.0)).sum(axis=1) / points
        before, curve = curve, (filled - np.where(reached, heights[:, None], 0.0)).sum(axis=0) / np.maximum(counts, 1)
        if np.allclose(before, curve, rtol=0, atol=1e-12):
            break
    common: Floats = np.where(counts > 0, curve - curve[0], -np.inf)
    return common


def _bridged(row: Floats, d: Floats) -> Floats:
    """A unit's curve with the gaps between its points filled, and nan beyond them."""
    known = ~np.isnan(row)
    return np.interp(d, d[known], row[known], left=math.nan, right=math.nan)


def _folds(number: int) -> Iterator[NDArray[np.bool_]]:
    """Masks of the units that are left out in turn: each alone, or in ten groups where there are many."""
    group = np.arange(number) % min(number, FOLDS)
    for fold in range(min(number, FOLDS)):
        yield group == fold
