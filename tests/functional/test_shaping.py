import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prefloop.functional.shaping import (
    clip_scores,
    length_penalty,
    missing_eos_penalty,
    sigmoid_against_reference,
    soft_overlong_penalty,
    whiten_scores,
)

SCORES = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=8)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_clipping_by_hand() -> None:
    assert clip_scores(doubles(-7, -5, 0.25, 5, 90), limit=5.0).tolist() == [-5, -5, 0.25, 5, 5]
    assert clip_scores(doubles(-7, 0.25), limit=0.5).tolist() == [-0.5, 0.25]
    with pytest.raises(AssertionError):
        clip_scores(doubles(1), limit=0.0)


def test_whitening_by_hand() -> None:
    # 1, 3, 8: mean 4, squared deviations 9, 1, 16, biased variance 26/3.
    deviation = math.sqrt(26 / 3)
    counted = torch.tensor([True, True, True, False])
    kept = whiten_scores(doubles(1, 3, 8, 100), counted, eps=0.0)
    assert kept.tolist() == pytest.approx([4 - 3 / deviation, 4 - 1 / deviation, 4 + 4 / deviation, 100])
    removed = whiten_scores(doubles(1, 3, 8, 100), counted, keep_mean=False, eps=0.0)
    assert removed.tolist() == pytest.approx([-3 / deviation, -1 / deviation, 4 / deviation, 100])


def test_whitening_adds_a_hundred_millionth_to_the_variance_unless_told() -> None:
    # Variance 1e-8, doubled by eps; 1, quadrupled by an eps of 3.
    everyone = torch.ones(2, dtype=torch.bool)
    assert whiten_scores(doubles(-1e-4, 1e-4), everyone).tolist() == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)])
    assert whiten_scores(doubles(1, 3), everyone, eps=3.0).tolist() == [1.5, 2.5]


def test_whitening_of_equal_scores_leaves_them() -> None:
    everyone = torch.ones(3, dtype=torch.bool)
    assert whiten_scores(doubles(2, 2, 2), everyone).tolist() == [2, 2, 2]
    assert whiten_scores(doubles(2, 2, 2), everyone, keep_mean=False).tolist() == [0, 0, 0]


@given(SCORES, st.floats(-50, 50), st.floats(0.1, 10))
def test_whitened_scores_forget_the_scale_and_keep_the_mean(values: list[float], shift: float, scale: float) -> None:
    scores, everyone = doubles(*values), torch.ones(len(values), dtype=torch.bool)
    other = whiten_scores(scores * scale + shift, everyone, eps=0.0 if scores.std(correction=0) > 0.01 else 1.0)
    assert other.mean().item() == pytest.approx((scores * scale + shift).mean().item(), abs=1e-9)
    if scores.std(correction=0) > 0.01:
        assert other.std(correction=0).item() == pytest.approx(1)


def test_sigmoid_against_the_reference_by_hand() -> None:
    # sigmoid(log 3) = 3/4, sigmoid(-log 3) = 1/4, sigmoid(0) = 1/2.
    reference = doubles(0, 2 * math.log(3), 1.0, 1.0).view(2, 2)
    shaped = sigmoid_against_reference(doubles(math.log(3), 1.0), reference)
    assert shaped.tolist() == pytest.approx([(3 / 4 + 1 / 4) / 2, 1 / 2])
    for reference in (doubles(1.0), doubles().view(1, 0), doubles(1.0).view(1, 1, 1), doubles(1.0, 2.0).view(2, 1)):
        with pytest.raises(AssertionError):
            sigmoid_against_reference(doubles(1.0), reference)


@given(SCORES, st.floats(-3, 3))
def test_sigmoid_against_the_reference_is_bounded_ordered_and_centred(values: list[float], shift: float) -> None:
    scores = doubles(*sorted(values))
    reference = doubles(-1.0, 0.5).expand(len(values), 2)
    shaped = sigmoid_against_reference(scores, reference)
    # Equal scores may differ by rounding, since a vector's last elements are computed in another way.
    assert ((shaped > 0) & (shaped < 1)).all() and (shaped.diff() >= -1e-15).all()
    # Only the lead over the reference matters, and one's own score is even odds.
    torch.testing.assert_close(sigmoid_against_reference(scores + shift, reference + shift), shaped)
    torch.testing.assert_close(sigmoid_against_reference(scores, scores.unsqueeze(1)), torch.full_like(scores, 0.5))


def test_sigmoid_against_the_reference_is_flat_far_above_it() -> None:
    scores = doubles(0, 8).requires_grad_()
    sigmoid_against_reference(scores, torch.zeros(2, 1, dtype=torch.float64)).sum().backward()
    assert scores.grad is not None
    # Derivative s (1 - s): 1/4 at the reference's level.
    assert scores.grad.tolist() == [pytest.approx(0.25), pytest.approx(math.exp(-8), rel=1e-3)]


def test_length_penalty_by_hand() -> None:
    lengths = torch.tensor([0, 10, 11, 30])
    assert length_penalty(lengths, coef=0.5, free_length=10).tolist() == [0, 0, -0.5, -10]
    assert length_penalty(lengths, coef=0.1).tolist() == pytest.approx([0, -1, -1.1, -3])


def test_soft_overlong_penalty_by_hand() -> None:
    # L_max 20, L_cache 8: free up to 12, half the way at 16, the whole at 20 and beyond.
    lengths = torch.tensor([3, 12, 13, 16, 20, 25])
    assert soft_overlong_penalty(lengths, max_length=20, cache=8).tolist() == [0, 0, -1 / 8, -1 / 2, -1, -1]
    assert soft_overlong_penalty(torch.tensor([0, 1, 4]), max_length=4, cache=4).tolist() == [0, -0.25, -1]
    # A cache of one token: all or nothing.
    assert soft_overlong_penalty(torch.tensor([3, 4]), max_length=4, cache=1).tolist() == [0, -1]
    for cache in (0, 5):
        with pytest.raises(AssertionError):
            soft_overlong_penalty(lengths, max_length=4, cache=cache)


def test_missing_end_by_hand() -> None:
    finished = torch.tensor([True, False, False])
    assert missing_eos_penalty(doubles(3, 4, math.nan), finished).tolist() == [3, -1, -1]
    assert missing_eos_penalty(doubles(3, 4, -9), finished, penalty=-2.5).tolist() == [3, -2.5, -2.5]
