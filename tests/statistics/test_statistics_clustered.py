"""Clustered rates, exact tests and Holm's correction against numbers worked by hand or published."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from prefloop.statistics.clustered import (
    clustered_sign_test,
    clustered_wilson,
    effective_size,
    holm,
    permutation_test,
    sign_test,
    smallest_visible_rate,
)


def test_the_sign_test_by_hand() -> None:
    # 9 of 10: 2 (1 + 10) / 1024; 5 of 10 is the least surprising outcome.
    assert math.isclose(sign_test(9, 10), 22 / 1024)
    assert sign_test(1, 10) == sign_test(9, 10)
    assert sign_test(5, 10) == sign_test(0, 0) == 1.0
    assert math.isclose(sign_test(70, 100), stats.binomtest(70, 100).pvalue, rel_tol=1e-12)


def test_clusters_of_one_row_give_the_sign_test() -> None:
    assert math.isclose(clustered_sign_test([1] * 9 + [0], [0] * 9 + [1]), sign_test(9, 10))


def test_the_clustered_test_counts_all_flips() -> None:
    wins, losses = [3, 2, 0, 1, 4], [0, 1, 1, 1, 0]
    balance = np.array(wins) - np.array(losses)
    sums = [abs(np.dot(signs, balance)) for signs in product((-1, 1), repeat=5)]
    assert math.isclose(clustered_sign_test(wins, losses), np.mean(np.array(sums) >= abs(balance.sum())))


def test_copies_inside_a_cluster_change_nothing() -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 5, size=60)
    wins = generator.binomial(sizes, 0.7)
    for copies in (2, 5):
        assert math.isclose(
            clustered_sign_test(wins, sizes - wins), clustered_sign_test(copies * wins, copies * (sizes - wins))
        )
    # Clusters that differ: a design effect above 1 grows as the copies do.
    wins, sizes = np.array([3, 0, 3, 3, 0, 3, 3, 3]), np.full(8, 3)
    assert math.isclose(effective_size(wins, sizes), effective_size(4 * wins, 4 * sizes))
    assert clustered_wilson(wins, sizes) == pytest.approx(clustered_wilson(4 * wins, 4 * sizes))


def test_whole_clusters_that_win_or_lose_count_once_each() -> None:
    wins, sizes = np.array([3, 0, 3, 3, 0, 3, 3, 3]), np.full(8, 3)
    assert math.isclose(effective_size(wins, sizes), 8)


def test_the_interval_at_the_ends_has_a_width() -> None:
    # Wilson at 10 of 10: low = n / (n + z^2) = 0.7225.
    low, high = clustered_wilson([1] * 10, [1] * 10)
    assert (low, high) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert clustered_wilson([10], [10]) == pytest.approx((1 / (1 + 1.959964**2), 1.0), abs=1e-6)
    assert clustered_wilson([], []) == (0.0, 1.0)


def test_the_interval_covers_the_truth_of_clustered_rows() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        rates = generator.beta(3, 2, size=80)  # mean 0.6
        sizes = generator.integers(1, 8, size=80)
        low, high = clustered_wilson(generator.binomial(sizes, rates), sizes)
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_holm_as_published() -> None:
    # Worked example: 0.01, 0.04, 0.03, 0.005 -> 4 x 0.005, 3 x 0.01, 2 x 0.03, then monotone.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_permutation_test_tries_all_signs_of_few_and_samples_those_of_many() -> None:
    # 1 + 2 + 3: only the two patterns without a mixed sign reach 6.
    assert permutation_test([1.0, 2.0, 3.0]) == 0.25
    assert permutation_test([0.1, 0.2, 0.3]) == 0.25
    assert permutation_test([0.0, 0.0]) == 1.0
    same = permutation_test(np.ones(40))
    assert same == 1 / 10_001
    mixed = permutation_test([1.0] * 24 + [-1.0] * 16)
    assert mixed == pytest.approx(sign_test(24, 40), abs=0.02)


def test_the_smallest_visible_rate_is_seen_as_often_as_said() -> None:
    rate = smallest_visible_rate(200)
    assert 0.59 < rate < 0.61
    n = np.arange(201)
    rejected = np.array([sign_test(int(wins), 200) < 0.05 for wins in n])
    assert stats.binom.pmf(n, 200, rate)[rejected].sum() == pytest.approx(0.8, abs=0.04)
    assert smallest_visible_rate(3) == 1.0
