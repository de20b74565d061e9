"""Calibration against closed forms and hand-filled bins."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import expit

from prefloop.statistics.calibration import (
    ReliabilityBin,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    pairwise_confidence,
    reliability_bins,
)


def test_log_loss_at_margin_zero_is_log_two():
    assert log_loss([0.0, 0.0]) == pytest.approx(math.log(2))


def test_log_loss_by_hand():
    # sigmoid(log 3) = 3/4 and sigmoid(-log 3) = 1/4.
    assert log_loss([math.log(3), -math.log(3)]) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_log_loss_of_huge_margins_does_not_overflow():
    assert log_loss([1e6]) == 0
    assert log_loss([-1e6]) == pytest.approx(1e6)


@pytest.mark.parametrize("wins", [3, 4])
def test_temperature_of_a_constant_margin_is_closed_form(wins):
    # A margin m that wins with frequency p is calibrated where sigmoid(m / T) = p: T = m / logit(p).
    share = wins / 5
    temperature = fit_temperature([2.0] * 5, [1] * wins + [0] * (5 - wins))
    assert temperature == pytest.approx(2 / math.log(share / (1 - share)), rel=1e-6)


def test_temperature_of_signed_margins_equals_that_of_outcomes():
    # Writing the loser first (margin -m, outcome 1) says the same as (m, outcome 0).
    margins, won = np.array([1.0, 2.0, 0.5, 1.5, 3.0]), np.array([1, 1, 0, 0, 1])
    assert fit_temperature(margins * (2 * won - 1)) == pytest.approx(fit_temperature(margins, won), rel=1e-6)


def test_temperature_is_found_on_samples_of_a_known_one():
    generator = np.random.default_rng(0)
    margins = generator.normal(scale=4, size=40_000)
    won = generator.random(40_000) < expit(margins / 2.5)
    assert fit_temperature(margins, won) == pytest.approx(2.5, rel=0.03)


@given(st.lists(st.floats(-5, 5).filter(lambda x: abs(x) > 1e-3), min_size=3, max_size=30), st.floats(0.01, 100))
def test_temperature_scales_with_the_margins_and_minimises(margins, factor):
    array = np.array(margins)
    temperature = fit_temperature(array)
    loss = log_loss(array / temperature)
    assert log_loss(factor * array / fit_temperature(factor * array)) == pytest.approx(loss, abs=1e-7)
    for other in (0.9 * temperature, 1.1 * temperature):
        assume(1 / 100 <= other / np.abs(array).mean() <= 100)
        assert log_loss(array / other) >= loss - 1e-9


def test_temperature_of_faultless_or_useless_margins_stays_bounded():
    assert fit_temperature([2.0, 2.0]) == pytest.approx(2 / 100, rel=1e-3)
    assert fit_temperature([2.0, -2.0, -2.0]) == pytest.approx(200, rel=1e-3)


def test_temperature_of_no_margin_is_one():
    assert fit_temperature([0.0, 0.0]) == 1


def test_soft_outcomes_and_ties():
    assert fit_temperature([1.0], [0.75]) == pytest.approx(1 / math.log(3), rel=1e-6)


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=20))
def test_pairwise_confidence_does_not_depend_on_the_order_of_a_pair(margins):
    confidence, correct = pairwise_confidence(margins)
    swapped_confidence, swapped_correct = pairwise_confidence([-margin for margin in margins])
    assert (confidence >= 0.5).all() and (confidence == swapped_confidence).all()
    assert (correct + swapped_correct == 1).all()


def test_pairwise_confidence_by_hand():
    confidence, correct = pairwise_confidence([math.log(3), -math.log(4), 0.0])
    assert confidence == pytest.approx([0.75, 0.8, 0.5])
    assert correct.tolist() == [1, 0, 0.5]


def test_reliability_bins_by_hand():
    bins = reliability_bins([0.1, 0.15, 0.9, 1.0, 0.5], [0, 1, 1, 1, 0], num_bins=2)
    assert bins == (
        ReliabilityBin(0.0, 0.5, 2, pytest.approx(0.125), 0.5),
        ReliabilityBin(0.5, 1.0, 3, pytest.approx(0.8), pytest.approx(2 / 3)),
    )


def test_empty_bins_are_left_out_and_the_range_can_start_higher():
    bins = reliability_bins([0.55, 0.95], [1, 1], num_bins=5, lowest=0.5)
    assert [(each.low, each.high) for each in bins] == [(0.5, 0.6), (pytest.approx(0.9), 1.0)]


def test_calibration_error_by_hand():
    # Bins of width 1/2: |1/2 - 0.125| with weight 2/5, |2/3 - 0.8| with weight 3/5.
    error = expected_calibration_error([0.1, 0.15, 0.9, 1.0, 0.5], [0, 1, 1, 1, 0], num_bins=2)
    assert error == pytest.approx(0.4 * 0.375 + 0.6 * (0.8 - 2 / 3))


def test_calibration_error_of_a_calibrated_and_of_a_boasting_model():
    generator = np.random.default_rng(0)
    margins = generator.normal(scale=1.5, size=20_000)
    signed = np.where(generator.random(20_000) < expit(margins), margins, -margins)
    honest = expected_calibration_error(*pairwise_confidence(signed), lowest=0.5)
    boasting = expected_calibration_error(*pairwise_confidence(5 * signed), lowest=0.5)
    assert honest < 0.015
    assert boasting > 0.15
    assert (
        expected_calibration_error(*pairwise_confidence(5 * signed / fit_temperature(5 * signed)), lowest=0.5) < 0.015
    )


@pytest.mark.parametrize(
    ("probabilities", "outcomes"), [([1.2], [1]), ([-0.1], [1]), ([0.5], [2]), ([0.5, 0.6], [1]), ([], [])]
)
def test_numbers_that_are_no_probabilities_are_refused(probabilities, outcomes):
    with pytest.raises(AssertionError):
        expected_calibration_error(probabilities, outcomes)


def test_a_probability_below_the_range_is_refused():
    with pytest.raises(AssertionError):
        reliability_bins([0.4], [1], lowest=0.5)


def test_mismatched_outcomes_are_refused():
    with pytest.raises(AssertionError):
        fit_temperature([1.0, 2.0], [1])
