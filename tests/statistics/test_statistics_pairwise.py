"""Paired accuracy tests against published tables and exact enumeration."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prefloop.statistics.pairwise import (
    accuracy_with_ties,
    clustered_mcnemar,
    independent_pairs,
    mcnemar,
    paired_change,
    smallest_detectable_difference,
)


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


# Pairs that share a prompt


def signs(a, b):
    """Margins whose signs say who is right."""
    return np.where(a, 1.0, -1.0), np.where(b, 1.0, -1.0)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
def test_with_one_pair_a_prompt_the_clustered_test_is_mcnemar(both, only_a, only_b, neither):
    a, b = table(both, only_a, only_b, neither)
    found, expected = clustered_mcnemar(*signs(a, b), range(len(a))), mcnemar(a, b)
    assert found.difference == pytest.approx(expected.difference)
    assert found.p_value == pytest.approx(expected.p_value)


def test_the_clustered_test_by_enumeration_of_all_signs():
    rng = np.random.default_rng(4)
    margins_a, margins_b = rng.integers(-1, 2, size=(2, 40))
    clusters = rng.integers(0, 11, size=40)
    gains = (np.sign(margins_a) - np.sign(margins_b)) / 2
    sums = np.array([gains[clusters == cluster].sum() for cluster in range(11)])
    flips = np.array(list(itertools.product([-1, 1], repeat=11))) @ sums
    found = clustered_mcnemar(margins_a, margins_b, clusters.tolist())
    assert found.difference == pytest.approx(accuracy_with_ties(margins_a) - accuracy_with_ties(margins_b))
    assert found.p_value == pytest.approx((np.abs(flips) >= abs(gains.sum()) - 1e-9).mean())


def test_copied_rows_change_neither_the_test_nor_what_can_be_seen():
    a, b = signs(*table(30, 25, 12, 20))
    clusters = list(range(len(a)))
    one = clustered_mcnemar(a, b, clusters)
    ten = clustered_mcnemar(np.tile(a, 10), np.tile(b, 10), clusters * 10)
    assert ten == pytest.approx(one)
    assert mcnemar(np.tile(a, 10) > 0, np.tile(b, 10) > 0).p_value < one.p_value / 100, "what copies do to pairs alone"
    assert independent_pairs(a, b, clusters) == pytest.approx(len(a))
    assert independent_pairs(np.tile(a, 10), np.tile(b, 10), clusters * 10) == pytest.approx(len(a))


def test_the_clustered_test_errs_as_often_as_it_says():
    # 60 prompts of four equal pairs, no difference: at 0.05 it may be wrong one time in twenty, pairs alone far more.
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 4)
    wrong, wrong_alone = 0, 0
    for _ in range(400):
        a, b = (np.repeat(rng.choice([-1.0, 1.0], size=60), 4) for _ in range(2))
        wrong += clustered_mcnemar(a, b, clusters.tolist()).p_value <= 0.05
        wrong_alone += mcnemar(a > 0, b > 0).p_value <= 0.05
    assert wrong / 400 <= 0.07
    assert wrong_alone / 400 >= 0.2


def test_the_clustered_test_without_disagreement():
    assert clustered_mcnemar([1.0, -2.0], [3.0, -1.0], ["p", "q"]) == (0.0, 1.0)
    # One prompt, in which the models are right once each.
    assert clustered_mcnemar([1.0, -1.0], [-1.0, 1.0], ["p", "p"]) == (0.0, 1.0)
    assert independent_pairs([1.0, -2.0], [3.0, -1.0], ["p", "q"]) == 2
    assert independent_pairs([1.0] * 8, [-1.0] * 8, ["p", "q"] * 4) == 2


def test_the_interval_of_a_paired_change_by_hand() -> None:
    # 20 items: 15 both, 3 only a, 1 only b, 1 neither. Adjusted: (3.5 - 1.5) / 22 = 0.0909,
    # 1.96 sqrt(5 - 4 / 22) / 22 = 0.1956.
    a = np.array([True] * 15 + [True] * 3 + [False] + [False])
    b = np.array([True] * 15 + [False] * 3 + [True] + [False])
    assert np.allclose(paired_change(a, b), (0.0909 - 0.1956, 0.0909 + 0.1956), atol=1e-4)
    low, high = paired_change(b, a)
    assert np.allclose((-high, -low), paired_change(a, b))


def test_a_paired_change_without_discordant_items_has_a_width() -> None:
    both = np.ones(30, dtype=bool)
    low, high = paired_change(both, both)
    assert low < -0.05 and high > 0.05 and math.isclose(low, -high)
    assert paired_change(np.ones(2, dtype=bool), np.zeros(2, dtype=bool))[1] == 1.0
