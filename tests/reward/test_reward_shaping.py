"""The order of shaping, and which settings go together."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from prefloop.config import Section, dump_yaml, load
from prefloop.reward.config import ScoringConfig, ShapingConfig
from prefloop.reward.shaping import rows_in_loss, shape_scores

FINISHED = torch.tensor([True, True, False])
LENGTHS = torch.tensor([4, 8, 10])


def shape(raw, *, reference=None, finished=FINISHED, lengths=LENGTHS, **settings):
    return shape_scores(
        torch.tensor(raw, dtype=torch.float64),
        config=ShapingConfig(**settings),
        finished=finished,
        lengths=lengths,
        max_new_tokens=10,
        reference_scores=None if reference is None else torch.tensor(reference, dtype=torch.float64),
    ).tolist()


def test_by_default_scores_are_only_clipped():
    assert shape([-9.0, 1.5, 7.0]) == [-5, 1.5, 5]
    assert shape([-9.0, 1.5, 7.0], score_clip=1.0) == [-1, 1, 1]


def test_every_step_by_hand():
    # Clipped to 2: 2, 1, 2 against the reference's 2, 1 - log 3, 2 (clipped): even odds, 3 to 1, even odds.
    shaped = shape(
        [9.0, 1.0, 3.0],
        reference=[[2.0], [1 - math.log(3)], [70.0]],
        relative_to_reference=True,
        score_clip=2.0,
        length_penalty_coef=0.01,
        free_length=5,
        soft_overlong_cache=4,
        truncated="score",
    )
    # 8 tokens: 3 above the free 5, and half the way into the last 4. The third was cut off.
    assert shaped == pytest.approx([1 / 2, 3 / 4 - 0.03 - 1 / 2, -1])


def test_penalties_come_after_whitening():
    # 5 (clipped) and 1 count, with mean 3 and deviation 2; the response that is replaced has no say in the scale.
    shaped = shape([50.0, 1.0, -3.0], whiten_scores=True, length_penalty_coef=0.5, truncated="score")
    assert shaped == pytest.approx([3 + 1 - 2, 3 - 1 - 4, -1])
    kept = shape([5.0, 5.0, -4.0], whiten_scores=True)
    # Mean 2, squared deviations 9, 9, 36, variance 18.
    assert kept == pytest.approx([2 + 3 / math.sqrt(18), 2 + 3 / math.sqrt(18), 2 - 6 / math.sqrt(18)])


def test_a_response_left_out_of_the_loss_keeps_its_score_and_has_no_say():
    masked = ShapingConfig(truncated="mask", whiten_scores=True)
    assert rows_in_loss(FINISHED, config=masked).tolist() == [True, True, False]
    assert rows_in_loss(FINISHED, config=ShapingConfig(truncated="score")).tolist() == [True, True, True]
    assert shape([5.0, 1.0, -3.0], truncated="mask", whiten_scores=True) == pytest.approx([4, 2, -3])


def test_several_reference_responses_are_averaged():
    shaped = shape(
        [0.0, 0.0, 0.0],
        reference=[[0.0, 0.0], [math.log(3), -math.log(3)], [-math.log(3), -math.log(3)]],
        relative_to_reference=True,
        num_reference_samples=2,
    )
    assert shaped == pytest.approx([1 / 2, 1 / 2, 3 / 4])
    with pytest.raises(AssertionError):
        shape([0.0, 0.0, 0.0], reference=[[0.0]] * 3, relative_to_reference=True, num_reference_samples=2)
    with pytest.raises(AssertionError):
        shape([0.0, 0.0, 0.0], relative_to_reference=True)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"num_reference_samples": 4}, "num_reference_samples has no effect without relative_to_reference"),
        ({"free_length": 4}, "free_length has no effect without a length_penalty_coef"),
        ({"truncated_score": -2.0}, "truncated_score has no effect without truncated score"),
        ({"truncated": "mask", "truncated_score": -2.0}, "truncated_score has no effect without truncated score"),
        ({"whiten_scores": True, "relative_to_reference": True}, "whiten_scores scales up again"),
    ],
)
def test_shaping_settings_without_effect_are_refused(settings, problem):
    with pytest.raises(ValidationError, match=problem):
        ShapingConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"ensemble_lambda": 2.0}, "ensemble_lambda has no effect without ensemble mean_minus_variance"),
        ({"ensemble": "worst", "ensemble_lambda": 2.0}, "ensemble_lambda has no effect"),
        ({"retries": 0, "retry_seconds": 3.0}, "retry_seconds has no effect without retries"),
        ({"server_prompt_template": "User:"}, "must hold {} once"),
    ],
)
def test_scoring_settings_without_effect_are_refused(settings, problem):
    with pytest.raises(ValidationError, match=problem):
        ScoringConfig(**settings)


def test_lengths_that_no_response_reaches_are_refused():
    ShapingConfig(length_penalty_coef=0.1, free_length=9, soft_overlong_cache=10).check_lengths(10)
    with pytest.raises(ValueError, match="free_length 10 is no less than max_new_tokens 10"):
        ShapingConfig(length_penalty_coef=0.1, free_length=10).check_lengths(10)
    with pytest.raises(ValueError, match="soft_overlong_cache 11 is above max_new_tokens 10"):
        ShapingConfig(soft_overlong_cache=11).check_lengths(10)


@pytest.mark.parametrize("section", [ScoringConfig, ShapingConfig])
def test_a_recorded_config_can_be_read_again(section: type[Section], tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(section()))
    assert load(section, yaml_path=path) == section()
