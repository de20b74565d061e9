"""Rates of yes and no where rows come in clusters (usually the pairs of a prompt), and several tests at once.

Everything here takes counts by cluster. Rows that are copied inside their cluster change no p-value and no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from prefloop.statistics.intervals import wilson
from prefloop.statistics.pairwise import sign_flip_p


def sign_test(wins: int, n: int) -> float:
    """Exact two-sided p-value of `wins` out of n independent fair tosses: min(1, 2 P(X <= min(wins, n - wins))).

    1 without a toss. Source: Conover, Practical Nonparametric Statistics (1999), section 3.4.
    """
    assert 0 <= wins <= n, (wins, n)
    return min(1.0, 2 * float(stats.binom.cdf(min(wins, n - wins), n, 0.5)))


def clustered_sign_test(wins: ArrayLike, losses: ArrayLike) -> float:
    """Exact two-sided p-value that wins and losses are alike in number, given those of each cluster, int [clusters].

    Under the null hypothesis the balance d_c = wins_c - losses_c of a cluster is as likely with the other sign:
    p = P(|sum_c s_c d_c| >= |sum_c d_c|), s_c fair signs. Clusters of one row each give `sign_test`.

    Source: Fisher (1935), The Design of Experiments, section 21; over clusters: Gail et al. (1996).
    """
    won, lost = _counts(wins), _counts(losses)
    assert won.shape == lost.shape, (won.shape, lost.shape)
    balance = won - lost
    return sign_flip_p(balance[balance != 0]) if balance.any() else 1.0


def effective_size(wins: ArrayLike, sizes: ArrayLike) -> float:
    """How many independent rows would know the rate sum(wins) / sum(sizes) as well: n / design effect.

    wins, sizes: int [clusters], sizes above 0. The design effect is the variance of the rate as a ratio of cluster
    totals, sum_c (w_c - r n_c)^2 / n^2, over that of independent rows, r (1 - r) / n; below 1 it counts as 1. Where r
    is 0 or 1 the spread tells nothing, and the clusters are counted.

    Source: Kish (1965), Survey Sampling; Cochran (1977), Sampling Techniques, equation 2.39, for the ratio.
    """
    won, size = _counts(wins), _counts(sizes)
    assert won.shape == size.shape and size.size and (size > 0).all() and (won <= size).all()
    n = int(size.sum())
    rate = int(won.sum()) / n
    if rate in (0.0, 1.0):
        return float(len(size))
    together = float(((won - rate * size) ** 2).sum())
    return n / max(1.0, together / (n * rate * (1 - rate)))


def clustered_wilson(wins: ArrayLike, sizes: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of the rate sum(wins) / sum(sizes), int [clusters]: Wilson's, for `effective_size` rows.

    Holds at rates of 0 and 1, where a bootstrap gives an interval without width, and is the same for swapped sides.
    (0, 1) without rows. Source: Wilson (1927); the effective size in it: Korn & Graubard (1998).
    """
    won, size = _counts(wins), _counts(sizes)
    won, size = won[size > 0], size[size > 0]
    if not size.size:
        return 0.0, 1.0
    n = effective_size(won, size)
    return wilson(int(won.sum()) / int(size.sum()) * n, n, level=level)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the given order: each may be compared with the level that all tests together may have.

    adjusted of the i-th smallest (i from 1 to m) = max over j <= i of min(1, (m - j + 1) p_j). Source: Holm (1979).
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        assert 0 <= p_values[place] <= 1, p_values[place]
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def permutation_test(differences: ArrayLike, *, num_permutations: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value that the mean of real-valued differences is 0, one for each cluster, float [clusters].

    Signs are flipped at random where there are more than 16 differences, else all 2^n ways are tried. Sampled:
    p = (1 + flips at least as far from 0) / (1 + num_permutations), never 0. Source: Phipson & Smyth (2010).
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not values.size:
        return 1.0
    observed = abs(float(values.sum()))
    # Sums of the same numbers in another order differ in their last bits.
    limit = observed * (1 - 1e-12) if observed else 0.0
    if len(values) <= 16:
        patterns = (np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1
        return float((np.abs((2 * patterns - 1) @ values) >= limit).mean())
    generator = np.random.default_rng(seed)
    reached, step = 0, max(1, 2_000_000 // len(values))
    for start in range(0, num_permutations, step):
        rows = min(step, num_permutations - start)
        signs = 2 * generator.integers(2, size=(rows, len(values)), dtype=np.int8) - 1
        reached += int((np.abs(signs @ values) >= limit).sum())
    return (1 + reached) / (1 + num_permutations)


def smallest_visible_rate(n: float, *, power: float = 0.8, level: float = 0.05) -> float:
    """The rate above 1/2 that a two-sided sign test on n independent rows finds with probability `power`; 1 at most.

    Normal approximation: solves (r - 1/2) sqrt(n) = z_{1 - level/2} / 2 + z_power sqrt(r (1 - r)) for r.
    Source: Fleiss, Statistical Methods for Rates and Proportions (1981), equation 1.28.
    """
    z_level, z_power = float(stats.norm.isf(level / 2)), float(stats.norm.ppf(power))
    if n <= z_level**2:
        return 1.0
    low, high = 0.5, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        found = (rate - 0.5) * math.sqrt(n) >= z_level / 2 + z_power * math.sqrt(rate * (1 - rate))
        low, high = (low, rate) if found else (rate, high)
    return high


def _counts(values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values, dtype=np.int64)
    assert array.ndim == 1 and (array >= 0).all(), "counts by cluster are needed"
    return array
