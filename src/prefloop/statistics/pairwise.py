"""Accuracy on preference pairs, and whether two models differ in it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


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


def smallest_detectable_difference(n: int, *, discordant_rate: float, power: float = 0.8, level: float = 0.05) -> float:
    """The difference of two accuracies that a McNemar test on n pairs finds with probability `power`.

    discordant_rate psi: share of pairs on which the two models disagree. Solves
    z_{1 - level/2} sqrt(psi) + z_power sqrt(psi - d^2) = d sqrt(n) for d; the positive root is
    d = (z_a sqrt(n psi) + z_b sqrt(psi (n - z_a^2 + z_b^2))) / (n + z_b^2).
    A difference cannot exceed psi: where the root does, the answer is infinite (no difference can be seen).

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
