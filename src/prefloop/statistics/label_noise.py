"""How often labels are wrong, told from how often people agree, and the accuracy that nobody can exceed because of it.

One-coin model (Dawid & Skene 1979, with one error rate for all): each vote is the true preference with probability
1 - e. Two votes then agree with probability a = (1 - e)^2 + e^2. Real comparisons are not equally hard; with error
rates that vary, the ceiling on labels of one vote comes out too high, never too low (Jensen): an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats


def pair_agreement(votes_a: int, votes_b: int) -> float:
    """Share of pairs of votes on one comparison that agree: (a (a - 1) + b (b - 1)) / (n (n - 1)), n = a + b >= 2."""
    total = votes_a + votes_b
    assert votes_a >= 0 and votes_b >= 0 and total >= 2, (votes_a, votes_b)
    return (votes_a * (votes_a - 1) + votes_b * (votes_b - 1)) / (total * (total - 1))


def error_rate(agreement: float) -> float:
    """The e in [0, 1/2] at which two votes agree with this probability: (1 - sqrt(2 a - 1)) / 2; 1/2 where a < 1/2."""
    assert 0 <= agreement <= 1, agreement
    return (1.0 - math.sqrt(max(0.0, 2.0 * agreement - 1.0))) / 2.0


def accuracy_ceiling(error: float, votes_per_label: Sequence[int]) -> float:
    """The accuracy that the true preference itself has on labels made by majority, the undecided ones left out.

    `votes_per_label` [n]: how many votes each label is the majority of. One vote: 1 - error. Mean over the labels of
    P(X > k/2) / (1 - P(X = k/2)), X ~ Binomial(k, 1 - error).
    """
    assert 0 <= error <= 0.5 and len(votes_per_label) and min(votes_per_label) >= 1
    by_count = {count: _majority_right(error, count) for count in set(votes_per_label)}
    return sum(by_count[count] for count in votes_per_label) / len(votes_per_label)


def _majority_right(error: float, count: int) -> float:
    right = float(stats.binom.sf(count // 2, count, 1 - error))
    tied = float(stats.binom.pmf(count // 2, count, 1 - error)) if count % 2 == 0 else 0.0
    return right / (1.0 - tied)
