"""Accuracy on preference pairs, and whether two models differ in it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import signal, stats


class PairedTest(NamedTuple):
    """A difference of two accuracies on the same pairs, and how surprising it is if there is none."""

    difference: float
    p_value: float


def accuracy_with_ties(margins: ArrayLike) -> float:
    """Share of margins [n] (chosen over rejected) above 0, a tie counting 1/2: a constant score has accuracy 1/2."""
    array = np.asarray(margins, dtype=np.float64)
    assert array.ndim == 1 and array.size, f"a vector with at least one margin is needed, not shape {array.shape}"
    assert not np.isnan(array).any(), "a margin is nan"
    return float((array > 0).mean() + (array == 0).mean() / 2)


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> PairedTest:
    """Exact two-sided McNemar test of two models on the same pairs; both arguments are bool [n].

    difference = accuracy(a) - accuracy(b). A alone gets b pairs right and B alone c; for equal models
    b ~ Binomial(b + c, 1/2), and p = min(1, 2 P(X <= min(b, c))). Without discordant pairs p = 1.

    Source: McNemar (1947); exact form: Fagerland, Lydersen & Laake (2013), section "The exact conditional test".
    """
    first, second = np.asarray(correct_a), np.asarray(correct_b)
    assert first.dtype == bool and second.dtype == bool, (first.dtype, second.dtype)
    assert first.shape == second.shape and first.ndim == 1 and first.size, (first.shape, second.shape)
    only_a, only_b = int((first & ~second).sum()), int((second & ~first).sum())
    tail = float(stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5))
    return PairedTest((only_a - only_b) / first.size, min(1.0, 2 * tail))


def clustered_mcnemar(margins_a: ArrayLike, margins_b: ArrayLike, clusters: Sequence[Hashable]) -> PairedTest:
    """As `mcnemar`, where the pairs of a cluster (usually the prompt) are not independent: exact, two-sided.

    Margins of chosen over rejected and clusters are [n]; a pair is right above 0 and half right at 0, so difference =
    accuracy_with_ties(a) - accuracy_with_ties(b). For equal models what a cluster adds to it is as likely with the
    other sign: S = sum_c s_c d_c with independent fair signs s_c, and p = P(|S| >= |observed|). Clusters of one pair
    without ties give `mcnemar`; rows copied inside their cluster change no p.

    Source: Fisher (1935), The Design of Experiments, section 21; over clusters: Gail et al. (1996).
    """
    gains = _half_gains(margins_a, margins_b)
    sums = _cluster_sums(gains, clusters)
    p_value = sign_flip_p(sums[sums != 0].astype(np.int64)) if sums.any() else 1.0
    return PairedTest(float(gains.mean()) / 2, p_value)


def sign_flip_p(sums: NDArray[np.int64]) -> float:
    """P(|S| >= |sum of sums|), S = sum_c s_c sums_c with fair signs; none of the sums is 0."""
    unit = int(np.gcd.reduce(sums))
    sizes, counts = np.unique(np.abs(sums) // unit, return_counts=True)
    # (S + sum of sizes) / 2 is a sum of size x Binomial(count, 1/2) over the distinct sizes.
    distribution = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        spread = np.zeros(size * count + 1)
        spread[::size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = signal.convolve(distribution, spread)
    values = 2 * np.arange(len(distribution)) - (len(distribution) - 1)
    observed = abs(int(sums.sum())) // unit
    return min(1.0, max(0.0, float(distribution[np.abs(values) >= observed].sum())))


def paired_change(passed_a: ArrayLike, passed_b: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of rate(a) - rate(b) for two models on the same n items; both arguments are bool [n].

    With b items that only a passes and c that only b passes: half an item is added to each of the four cells, then
    (b - c) / n +- z sqrt(b + c - (b - c)^2 / n) / n, cut off at -1 and 1. It has a width without discordant items too.
    Source: Agresti & Min (2005), "Simple improved confidence intervals for comparing matched proportions".
    """
    first, second = np.asarray(passed_a), np.asarray(passed_b)
    assert first.dtype == bool and second.dtype == bool, (first.dtype, second.dtype)
    assert first.shape == second.shape and first.ndim == 1 and first.size, (first.shape, second.shape)
    only_a, only_b = float((first & ~second).sum()) + 0.5, float((second & ~first).sum()) + 0.5
    n = first.size + 2
    change = (only_a - only_b) / n
    half = float(stats.norm.ppf((1 + level) / 2)) * math.sqrt(only_a + only_b - (only_a - only_b) ** 2 / n) / n
    return max(-1.0, change - half), min(1.0, change + half)


def independent_pairs(margins_a: ArrayLike, margins_b: ArrayLike, clusters: Sequence[Hashable]) -> float:
    """How many independent pairs would know the difference of two accuracies as well as these n do, at most n.

    Arguments as in `clustered_mcnemar`. n / design effect, the ratio of the variance of the mean difference with
    clusters, sum_c (sum_{i in c} (d_i - mean))^2, to that without, sum_i (d_i - mean)^2. Copies of a row inside its
    cluster add nothing. Where all d are equal their spread tells nothing, and the clusters are counted.

    Source: Kish (1965), Survey Sampling, on the design effect.
    """
    gains = _half_gains(margins_a, margins_b)
    away = gains - gains.mean()
    alone, clustered = float((away**2).sum()), float((_cluster_sums(away, clusters) ** 2).sum())
    if alone == 0:
        return float(len(set(clusters)))
    return len(gains) * min(1.0, alone / clustered) if clustered > 0 else float(len(gains))


def smallest_detectable_difference(
    n: float, *, discordant_rate: float, power: float = 0.8, level: float = 0.05
) -> float:
    """The difference of two accuracies that a McNemar test on n pairs finds with probability `power`.

    discordant_rate psi: share of pairs on which the two models disagree. Solves
    z_{1 - level/2} sqrt(psi) + z_power sqrt(psi - d^2) = d sqrt(n) for d; the positive root is
    d = (z_a sqrt(n psi) + z_b sqrt(psi (n - z_a^2 + z_b^2))) / (n + z_b^2).
    A difference cannot exceed psi: where the root does, the answer is infinite (no difference can be seen).

    n may be a number of independent pairs that is not whole (`independent_pairs`).

    Source: Miettinen (1968); Connor (1987), equation 3. A normal approximation: the exact test needs slightly more.
    """
    assert n >= 1 and 0 < discordant_rate <= 1, (n, discordant_rate)
    assert 0 < level < 1 and level / 2 < power < 1, (level, power)
    z_level, z_power = float(stats.norm.isf(level / 2)), float(stats.norm.ppf(power))
    under_root = discordant_rate * (n - z_level**2 + z_power**2)
    if under_root < 0:
        return math.inf
    difference = (z_level * math.sqrt(n * discordant_rate) + z_power * math.sqrt(under_root)) / (n + z_power**2)
    return difference if difference <= discordant_rate else math.inf


def _half_gains(margins_a: ArrayLike, margins_b: ArrayLike) -> NDArray[np.int64]:
    """Twice what a gains over b on each pair: 2 where only a is right, 1 where one of them has a tie."""
    first, second = np.sign(np.asarray(margins_a, float)), np.sign(np.asarray(margins_b, float))
    assert first.shape == second.shape and first.ndim == 1 and first.size, (first.shape, second.shape)
    assert not np.isnan(first + second).any(), "a margin is nan"
    gains: NDArray[np.int64] = (first - second).astype(np.int64)
    return gains


def _cluster_sums(values: NDArray[Any], clusters: Sequence[Hashable]) -> NDArray[np.float64]:
    """The sum of the values [n] of each cluster."""
    assert len(values) == len(clusters), (len(values), len(clusters))
    number: dict[Hashable, int] = {}
    membership = [number.setdefault(cluster, len(number)) for cluster in clusters]
    return np.bincount(membership, weights=values).astype(np.float64)
