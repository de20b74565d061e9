"""Agreement, error rate and ceiling against numbers by hand, and against simulated votes whose error rate is known."""

from __future__ import annotations

import numpy as np
import pytest

from prefloop.statistics.label_noise import accuracy_ceiling, error_rate, pair_agreement


def test_agreement_by_hand():
    assert pair_agreement(2, 0) == 1.0
    assert pair_agreement(1, 1) == 0.0
    # aab: of the pairs aa, ab, ab one agrees.
    assert pair_agreement(2, 1) == pytest.approx(1 / 3)
    assert pair_agreement(1, 2) == pair_agreement(2, 1)
    # Four of ten pairs: aaabb has 3 of aa and 1 of bb.
    assert pair_agreement(3, 2) == pytest.approx(4 / 10)


def test_error_rate_inverts_the_probability_of_agreement():
    for error in (0.0, 0.1, 0.25, 0.5):
        assert error_rate((1 - error) ** 2 + error**2) == pytest.approx(error)
    assert error_rate(0.3) == 0.5, "less agreement than coins have says no more than coins do"


def test_the_ceiling_by_hand():
    assert accuracy_ceiling(0.2, [1]) == pytest.approx(0.8)
    # Three votes: 0.8^3 + 3 * 0.8^2 * 0.2.
    assert accuracy_ceiling(0.2, [3]) == pytest.approx(0.896)
    # Two votes, decided: both right or both wrong.
    assert accuracy_ceiling(0.2, [2]) == pytest.approx(0.64 / (0.64 + 0.04))
    assert accuracy_ceiling(0.2, [1, 3]) == pytest.approx((0.8 + 0.896) / 2)
    assert accuracy_ceiling(0.5, [1, 2, 3]) == pytest.approx(0.5)


@pytest.mark.parametrize("error", [0.05, 0.2, 0.35])
def test_the_truth_reaches_the_ceiling_that_simulated_votes_imply(error):
    right = np.random.default_rng(1).binomial(3, 1 - error, size=40_000)
    agreement = np.mean([pair_agreement(int(votes), 3 - int(votes)) for votes in right])
    assert error_rate(agreement) == pytest.approx(error, abs=0.01)
    assert accuracy_ceiling(error_rate(agreement), [3]) == pytest.approx((right >= 2).mean(), abs=0.01)


def test_unequal_difficulty_makes_the_ceiling_an_upper_bound():
    # Half the comparisons without error, half coins: a truthful model is right on 3/4 of the labels of one vote.
    agreement = (1.0 + 0.5) / 2
    assert accuracy_ceiling(error_rate(agreement), [1]) > 0.75
