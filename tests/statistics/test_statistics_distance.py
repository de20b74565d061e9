"""Mahalanobis distance against numbers known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from prefloop.statistics.distance import Cloud, distances, far_limit, fit_cloud


def test_distance_counts_in_standard_deviations_of_the_direction() -> None:
    cloud = Cloud(np.array([1.0, 0.0]), np.diag([1 / 4, 1.0]))
    # 4 along an axis of deviation 2, 3 along one of deviation 1: sqrt(2^2 + 3^2).
    assert distances(np.array([[5.0, 3.0], [1.0, 0.0]]), cloud) == pytest.approx([13**0.5, 0])


def test_many_vectors_give_their_covariance_few_are_shrunk() -> None:
    generator = np.random.default_rng(0)
    many = generator.normal(size=(20_000, 2)) * [3.0, 0.5]
    assert np.linalg.inv(fit_cloud(many).precision) == pytest.approx(np.diag([9.0, 0.25]), abs=0.2)
    few = fit_cloud(generator.normal(size=(5, 40)))
    # Five vectors span four directions of forty, but no direction is without spread.
    assert np.linalg.eigvalsh(few.precision).max() < 1e3


def test_the_limit_holds_for_vectors_that_had_no_part_in_it() -> None:
    generator = np.random.default_rng(1)
    limit, cloud = far_limit(generator.normal(size=(4000, 8)), list(range(4000)), share=0.05)
    fresh = generator.normal(size=(4000, 8))
    assert (distances(fresh, cloud) > limit).mean() == pytest.approx(0.05, abs=0.015)
    assert (distances(fresh + 3, cloud) > limit).mean() > 0.95
