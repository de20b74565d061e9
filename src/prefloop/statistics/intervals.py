"""Means and proportions with the interval that belongs to them.

Rows that share a prompt are not independent: `cluster_bootstrap` resamples prompts, so that a prompt whose rows were
copied ten times counts as one prompt.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

# Resampled cluster indices held in memory at a time (8 bytes each).
_INDICES_AT_A_TIME = 2_000_000


@dataclass(frozen=True)
class Estimate:
    """A mean of `n` independent values, and how well it is known."""

    mean: float
    standard_error: float
    """Sample standard deviation / sqrt(n); infinite for n = 1, where the spread is unknown."""
    n: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval, mean +- t_{n-1} * standard_error (Student 1908)."""
        assert 0 < level < 1, level
        if math.isinf(self.standard_error):
            return -math.inf, math.inf
        half = float(stats.t.ppf((1 + level) / 2, self.n - 1)) * self.standard_error
        return self.mean - half, self.mean + half


def mean_estimate(values: ArrayLike) -> Estimate:
    """Mean of independent values [n] and its standard error, sqrt(sum (x - mean)^2 / (n - 1) / n)."""
    array = _finite(values)
    n = len(array)
    standard_error = float(array.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return Estimate(float(array.mean()), standard_error, n)


def paired_difference(a: ArrayLike, b: ArrayLike) -> Estimate:
    """Mean of a - b where a[i] and b[i] belong to the same prompt.

    What a prompt contributes to both sides cancels, so this is sharper than comparing two separate means
    (the paired t statistic is mean / standard_error).
    """
    first, second = _finite(a), _finite(b)
    assert first.shape == second.shape, (first.shape, second.shape)
    return mean_estimate(first - second)


def cluster_bootstrap(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    statistic: Literal["mean", "median"] = "mean",
    num_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic over all rows, resampling whole clusters with replacement.

    `values` and `clusters` are [n]: a number and its cluster's name (usually the prompt) for each row. With a single
    cluster nothing is known about the spread and the interval is infinite. Below about 20 clusters the interval is
    somewhat too narrow, as every percentile bootstrap is.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3; clusters: Davison & Hinkley,
    Bootstrap Methods and their Application (1997), section 3.8.
    """
    array = _finite(values)
    assert len(array) == len(clusters), (len(array), len(clusters))
    assert 0 < level < 1, level
    number: dict[Hashable, int] = {}
    membership = np.array([number.setdefault(cluster, len(number)) for cluster in clusters])
    if len(number) == 1:
        return -math.inf, math.inf
    resampled = np.empty(num_resamples)
    generator = np.random.default_rng(seed)
    step = max(1, _INDICES_AT_A_TIME // len(number))
    for start in range(0, num_resamples, step):
        stop = min(start + step, num_resamples)
        drawn = generator.integers(len(number), size=(stop - start, len(number)))
        resampled[start:stop] = (
            _resampled_means(array, membership, drawn)
            if statistic == "mean"
            else _resampled_medians(array, membership, drawn)
        )
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def difference_bootstrap(
    a: ArrayLike,
    clusters_a: Sequence[Hashable],
    b: ArrayLike,
    clusters_b: Sequence[Hashable],
    *,
    num_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of mean(a) - mean(b) for different rows, a [n] and b [m], that may share clusters.

    Clusters with rows in both, in a only and in b only are three strata, each resampled with replacement: what a shared
    cluster adds to both means is kept together. Infinite where either side has a single cluster.

    Source: Davison & Hinkley, Bootstrap Methods and their Application (1997), sections 3.2 (strata) and 3.8 (clusters).
    """
    first, second = _finite(a), _finite(b)
    assert len(first) == len(clusters_a) and len(second) == len(clusters_b), "a cluster for each row"
    if min(len(set(clusters_a)), len(set(clusters_b))) == 1:
        return -math.inf, math.inf
    number: dict[Hashable, int] = {}
    places = [np.array([number.setdefault(name, len(number)) for name in side]) for side in (clusters_a, clusters_b)]
    size = len(number)
    sums = [np.bincount(at, side, size) for at, side in zip(places, (first, second), strict=True)]
    counts = [np.bincount(at, minlength=size) for at in places]
    in_a, in_b = counts[0] > 0, counts[1] > 0
    strata = [np.flatnonzero(where) for where in (in_a & in_b, in_a & ~in_b, ~in_a & in_b) if where.any()]
    generator = np.random.default_rng(seed)
    differences = np.empty(num_resamples)
    for index in range(num_resamples):
        drawn = np.concatenate([stratum[generator.integers(len(stratum), size=len(stratum))] for stratum in strata])
        means = [side[drawn].sum() / count[drawn].sum() for side, count in zip(sums, counts, strict=True)]
        differences[index] = means[0] - means[1]
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson(successes: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Score interval for a proportion; `successes` may be fractional (a tie is half a success),
    and so may n (an effective number of rows).

    centre = (p + z^2 / 2n) / (1 + z^2 / n), half width = z sqrt(p (1 - p) / n + z^2 / 4n^2) / (1 + z^2 / n).
    Without observations: (0, 1). Source: Wilson (1927); Newcombe (1998), method 3.
    """
    assert 0 <= successes <= n, (successes, n)
    if n == 0:
        return 0.0, 1.0
    z = float(stats.norm.ppf((1 + level) / 2))
    share = successes / n
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    # Exact at the ends, where rounding would leave 1e-17.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    return low, 1.0 if successes == n else min(1.0, (centre + half) / scale)


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    assert array.ndim == 1 and array.size, f"a vector with at least one value is needed, not shape {array.shape}"
    assert np.isfinite(array).all(), "a value is not finite"
    return array


def _resampled_means(
    values: NDArray[np.float64], membership: NDArray[np.int64], drawn: NDArray[np.int64]
) -> NDArray[np.float64]:
    sums, counts = np.bincount(membership, weights=values), np.bincount(membership)
    means: NDArray[np.float64] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def _resampled_medians(
    values: NDArray[np.float64], membership: NDArray[np.int64], drawn: NDArray[np.int64]
) -> NDArray[np.float64]:
    order = np.argsort(membership, kind="stable")
    rows = np.split(values[order], np.cumsum(np.bincount(membership))[:-1])
    return np.array([np.median(np.concatenate([rows[cluster] for cluster in picked])) for picked in drawn])
