"""Paired accuracy tests against published tables and exact enumeration."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prefloop.statistics.pairwise import accuracy_with_ties, mcnemar, smallest_detectable_difference


def table(both, only_a, only_b, neither):
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array(a), np.array(b)


def test_accuracy_counts_a_tie_as_half():
    assert accuracy_with_ties([2.0, -1.0, 0.0, 0.5]) == pytest.approx(2.5 / 4)
    assert accuracy_with_ties([0.0, 0.0, 0.0]) == 0.5


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=30))
def test_accuracy_of_the_opposite_order_is_the_rest(margins):
    assert accuracy_with_ties(margins) + accuracy_with_ties([-m for m in margins]) == pytest.approx(1)


@pytest.mark.parametrize("bad", [[], [math.nan], [[1.0]]])
def test_margins_that_are_none_are_refused(bad):
    with pytest.raises(AssertionError):
        accuracy_with_ties(bad)


def test_mcnemar_published_example():
    # Fagerland, Lydersen & Laake (2013), table 2 (Bentur et al. 2009): 1, 1, 7, 12 of 21 children; exact p = 0.0703.
    result = mcnemar(*table(1, 1, 7, 12))
    assert result.difference == pytest.approx(-6 / 21)
    assert result.p_value == pytest.approx(0.0703, abs=5e-5)


def test_mcnemar_without_disagreement():
    assert mcnemar(*table(5, 0, 0, 3)) == (0.0, 1.0)


def test_mcnemar_with_equal_disagreement_is_certain_of_nothing():
    assert mcnemar(*table(0, 4, 4, 0)) == (0.0, 1.0)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
def test_mcnemar_is_symmetric_and_ignores_agreement(both, only_a, only_b, neither):
    a, b = table(both, only_a, only_b, neither)
    forth, back = mcnemar(a, b), mcnemar(b, a)
    assert (forth.difference, forth.p_value) == (-back.difference, back.p_value)
    assert mcnemar(*table(both + 7, only_a, only_b, neither)).p_value == forth.p_value
    assert forth.p_value == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1)


def test_mcnemar_wants_booleans_of_one_length():
    with pytest.raises(AssertionError):
        mcnemar([1, 0], [0, 1])
    with pytest.raises(AssertionError):
        mcnemar([True, False], [True])


@pytest.mark.parametrize(("n", "rate"), [(200, 0.3), (1000, 0.1), (5000, 0.5)])
@pytest.mark.parametrize("power", [0.3, 0.8, 0.95])
def test_detectable_difference_inverts_the_published_sample_size(n, rate, power):
    # Connor (1987): n = (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2.
    difference = smallest_detectable_difference(n, discordant_rate=rate, power=power)
    z_a, z_b = stats.norm.ppf(0.975), stats.norm.ppf(power)
    needed = ((z_a * math.sqrt(rate) + z_b * math.sqrt(rate - difference**2)) / difference) ** 2
    assert needed == pytest.approx(n)


def test_detectable_difference_has_its_power_by_enumeration():
    # Exact power of the exact test, over every number of discordant pairs and of wins among them.
    n, rate = 600, 0.25
    difference = smallest_detectable_difference(n, discordant_rate=rate)
    power = 0.0
    for discordant in range(n + 1):
        wins = np.arange(discordant + 1)
        rejected = 2 * stats.binom.cdf(np.minimum(wins, discordant - wins), discordant, 0.5) <= 0.05
        share_won = (1 + difference / rate) / 2
        power += stats.binom.pmf(discordant, n, rate) * stats.binom.pmf(wins, discordant, share_won)[rejected].sum()
    assert 0.75 <= power <= 0.82


def test_more_pairs_see_smaller_differences():
    seen = [smallest_detectable_difference(n, discordant_rate=0.3) for n in (50, 200, 800, 3200)]
    assert seen == sorted(seen, reverse=True)
    assert seen[-2] / seen[-1] == pytest.approx(2, rel=0.01)


def test_too_few_pairs_see_nothing():
    # Five discordant pairs of five are p = 1/16: no outcome can reach 0.05.
    assert smallest_detectable_difference(5, discordant_rate=1.0) <= 1
    assert smallest_detectable_difference(5, discordant_rate=0.2) == math.inf
    assert smallest_detectable_difference(1, discordant_rate=1.0) == math.inf
    assert smallest_detectable_difference(3, discordant_rate=1.0, power=0.5) == math.inf


@pytest.mark.parametrize("arguments", [(0, 0.5), (10, 0.0), (10, 1.5)])
def test_impossible_designs_are_refused(arguments):
    n, rate = arguments
    with pytest.raises(AssertionError):
        smallest_detectable_difference(n, discordant_rate=rate)
