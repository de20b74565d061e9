"""Coefficients of agreement against published worked examples."""

from __future__ import annotations

import math

import pytest

from prefloop.statistics.agreement import cohen_kappa, krippendorff_alpha

# Krippendorff (2011), section E: four observers, twelve units, 0 = missing.
OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3),
    (0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0),
)
UNITS = [
    {observer: row[unit] for observer, row in enumerate(OBSERVERS) if row[unit]} for unit in range(len(OBSERVERS[0]))
]


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(level: str, published: float) -> None:
    found = krippendorff_alpha(UNITS, level=level)  # type: ignore[arg-type]
    assert found.value == pytest.approx(published, abs=5e-4)
    # The twelfth unit has one rating only.
    assert found.num_units == 11
    assert found.interval[0] < found.value < found.interval[1] <= 1


def test_alpha_of_two_observers_as_published() -> None:
    # Krippendorff (2011), section A: two observers, ten binary units, alpha = 0.095.
    first, second = (0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0)
    units = [{"Meg": a, "Owen": b} for a, b in zip(first, second, strict=True)]
    assert krippendorff_alpha(units).value == pytest.approx(0.095, abs=5e-4)


def test_alpha_is_unknown_without_two_ratings_or_two_categories() -> None:
    for units in ([], [{"a": 1}, {"b": 2}], [{"a": 1, "b": 1}] * 5):
        found = krippendorff_alpha(units)
        assert math.isnan(found.value) and math.isnan(found.interval[0])


@pytest.mark.parametrize(
    ("table", "kappa"),
    [((20, 5, 10, 15), 0.4), ((45, 15, 25, 15), 0.1304), ((25, 35, 5, 35), 0.2593)],
)
def test_kappa_of_textbook_tables(table: tuple[int, ...], kappa: float) -> None:
    cells = [("yes", "yes"), ("yes", "no"), ("no", "yes"), ("no", "no")]
    rows = [cell for cell, count in zip(cells, table, strict=True) for _ in range(count)]
    found = cohen_kappa([a for a, _ in rows], [b for _, b in rows])
    assert found.value == pytest.approx(kappa, abs=5e-5)
    assert found.interval[0] < kappa < found.interval[1]


def test_the_interval_of_kappa_is_as_wide_as_its_standard_error_says() -> None:
    # Of 20, 5, 10, 15 of 50 (Cohen 1960, equation 7): sqrt(p_o (1 - p_o) / n) / (1 - p_e)
    # = sqrt(0.7 x 0.3 / 50) / 0.5 = 0.1296.
    rows = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    low, high = cohen_kappa([a for a, _ in rows], [b for _, b in rows], num_resamples=4000).interval
    assert (high - low) / (2 * 1.96) == pytest.approx(0.1296, rel=0.08)


def test_kappa_of_annotators_who_never_say_anything_else_is_unknown() -> None:
    assert math.isnan(cohen_kappa(["a"] * 5, ["a"] * 5).value)
    assert math.isnan(cohen_kappa([], []).value)
