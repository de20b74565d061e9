"""Best-of-n from samples: against every subset, against policies written out, against the bound."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.statistics.best_of_n import best_of_n_curve, best_of_n_kl, kl_bound, rank_weights, sizes_up_to

FEW = st.lists(st.tuples(st.integers(0, 4), st.integers(-9, 9)), min_size=1, max_size=8)


def over_all_subsets(proxy: list[int], gold: list[int], n: int) -> float:
    """The mean gold of the best of each subset of n samples, equals sharing the place."""
    found = []
    for subset in combinations(range(len(proxy)), n):
        most = max(proxy[index] for index in subset)
        found.append(np.mean([gold[index] for index in subset if proxy[index] == most]))
    return float(np.mean(found))


@given(FEW)
def test_the_estimator_is_the_mean_over_all_subsets(samples: list[tuple[int, int]]) -> None:
    proxy, gold = [list(column) for column in zip(*samples, strict=True)]
    sizes = list(range(1, len(samples) + 1))
    found = best_of_n_curve(proxy, gold, sizes)
    assert np.allclose(found, [over_all_subsets(proxy, gold, n) for n in sizes])


@given(FEW)
def test_what_is_chosen_by_rises_and_one_sample_is_the_mean(samples: list[tuple[int, int]]) -> None:
    proxy, gold = [list(column) for column in zip(*samples, strict=True)]
    sizes = list(range(1, len(samples) + 1))
    assert (np.diff(best_of_n_curve(proxy, proxy, sizes)) >= -1e-12).all()
    assert math.isclose(best_of_n_curve(proxy, gold, [1])[0], np.mean(gold), abs_tol=1e-12)


def test_the_weights_by_hand() -> None:
    # N = 4, n = 2: C(i-1, 1) / C(4, 2) = 0, 1, 2, 3 of 6; n = 4: the largest for sure.
    expected = [[0, 1 / 6, 2 / 6, 3 / 6], [0, 0, 0, 1], [0.25] * 4]
    assert np.allclose(rank_weights(4, [2, 4, 1]), expected)


def test_the_weights_of_many_samples_still_sum_to_one() -> None:
    assert np.allclose(rank_weights(20_000, [1, 50, 2000]).sum(axis=1), 1, atol=1e-9)


@given(FEW, st.randoms())
def test_the_order_of_the_samples_does_not_matter(samples: list[tuple[int, int]], random: object) -> None:
    shuffled = samples[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    curves = [best_of_n_curve(*zip(*rows, strict=True), [1, len(samples)]) for rows in (samples, shuffled)]
    assert np.allclose(*curves)


def exact_uniform(answers: int, n: int) -> float:
    """KL of best-of-n over answers of equal probability and different scores: sum_i q_i log(k q_i)."""
    mass = [(i / answers) ** n - ((i - 1) / answers) ** n for i in range(1, answers + 1)]
    return sum(q * math.log(answers * q) for q in mass if q > 0)


@pytest.mark.parametrize("answers", [4, 10])
@pytest.mark.parametrize("n", [1, 2, 5, 20, 100])
def test_the_exact_kl_of_uniform_policies(answers: int, n: int) -> None:
    # Every answer as often as its probability says.
    proxy = np.repeat(np.arange(answers), 30)
    assert math.isclose(best_of_n_kl(proxy, [n])[0], exact_uniform(answers, n), abs_tol=1e-12)


@pytest.mark.parametrize("answers", [4, 10])
def test_the_exact_kl_is_found_from_samples(answers: int) -> None:
    generator = np.random.default_rng(0)
    sizes = [2, 8, 40]
    found = np.mean([best_of_n_kl(generator.integers(answers, size=400), sizes) for _ in range(100)], axis=0)
    assert np.allclose(found, [exact_uniform(answers, n) for n in sizes], atol=0.03)
    # Four answers: the best is taken nearly always, log 4 = 1.386, where the bound says 2.71.
    assert answers == 10 or (found[-1] < 1.40 and kl_bound([40])[0] > 2.7)


def test_answers_that_never_repeat_give_the_bound() -> None:
    sizes = [1, 2, 7, 40, 1000]
    assert np.allclose(best_of_n_kl(np.random.default_rng(0).permutation(20_000), sizes), kl_bound(sizes))
    # log 2 - 1/2
    assert math.isclose(kl_bound([2])[0], 0.1931471805599453)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=40), st.integers(1, 50))
def test_the_kl_lies_between_0_and_the_bound(proxy: list[int], n: int) -> None:
    (found,) = best_of_n_kl(proxy, [n])
    assert 0 <= found <= kl_bound([n])[0] + 1e-9


def test_ties_between_two_answers_are_chosen_alike() -> None:
    # Levels of probability 3/4 and 1/4; best of 2: 9/16 and 7/16.
    expected = 9 / 16 * math.log(9 / 16 / (3 / 4)) + 7 / 16 * math.log(7 / 16 / (1 / 4))
    assert math.isclose(best_of_n_kl([0, 0, 0, 0, 0, 0, 1, 1], [2])[0], expected)


@pytest.mark.parametrize("largest", [1, 2, 3, 10, 64, 777])
def test_sizes_begin_at_one_and_end_at_the_largest(largest: int) -> None:
    sizes = sizes_up_to(largest)
    assert sizes[0] == 1 and sizes[-1] == largest and (np.diff(sizes) > 0).all()
    assert largest < 7 or list(sizes[:6]) == [1, 2, 3, 4, 5, 6]
    assert (sizes[1:] <= sizes[:-1] * 1.26 + 1).all()
