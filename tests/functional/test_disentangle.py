"""ODIN's penalties against numpy, by hand, and by their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prefloop.functional.disentangle import correlation, head_overlap, length_penalty

torch.manual_seed(0)
VALUES, LENGTHS = torch.randn(2, 12, dtype=torch.float64)
ONES = torch.ones(12, dtype=torch.float64)


def test_the_correlation_is_that_of_numpy():
    assert float(correlation(VALUES, LENGTHS, ONES)) == pytest.approx(np.corrcoef(VALUES, LENGTHS)[0, 1])
    assert float(correlation(3 * VALUES + 7, LENGTHS, 5 * ONES)) == pytest.approx(np.corrcoef(VALUES, LENGTHS)[0, 1])


def test_a_whole_weight_is_a_repetition():
    weights = torch.tensor([1.0, 2.0] * 6, dtype=torch.float64)
    repeated = [torch.cat([each, each[1::2]]) for each in (VALUES, LENGTHS)]
    found = float(correlation(VALUES, LENGTHS, weights))
    assert found == pytest.approx(np.corrcoef(*repeated)[0, 1])


def test_without_spread_there_is_no_correlation_and_no_gradient():
    flat = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    found = correlation(flat, LENGTHS, ONES) + correlation(LENGTHS, flat, ONES)
    found.backward()
    assert found.item() == 0.0 and not bool(flat.grad.any())


def test_the_penalty_has_its_extremes_where_it_should():
    noise = LENGTHS.new_tensor([1.0, -1.0, -1.0, 1.0])
    lengths = LENGTHS.new_tensor([1.0, 1.0, 2.0, 2.0])
    weights = torch.ones(4, dtype=torch.float64)
    assert float(correlation(noise, lengths, weights)) == pytest.approx(0, abs=1e-12)
    assert float(length_penalty(noise, lengths, lengths, weights)) == pytest.approx(-1)
    assert float(length_penalty(-lengths, -lengths, lengths, weights)) == pytest.approx(2)


def test_gradients_agree_with_finite_differences():
    scores = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda both: length_penalty(both[0], both[1], LENGTHS, ONES), (scores,))
    heads = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head_overlap, (heads,))


def test_following_the_penalty_takes_length_out_of_the_quality_head():
    scores = torch.stack([LENGTHS + 0.1 * VALUES, VALUES]).requires_grad_(True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(length_penalty(scores[0], scores[1], LENGTHS, ONES), scores)
        scores = (scores - 0.5 * gradient).detach().requires_grad_(True)
    scores = scores.detach()
    assert abs(float(correlation(scores[0], LENGTHS, ONES))) < 0.1
    assert float(correlation(scores[1], LENGTHS, ONES)) > 0.9


def test_the_overlap_is_a_cosine_without_sign():
    assert float(head_overlap(torch.tensor([[3.0, 0.0], [0.0, 2.0]]))) == 0.0
    assert float(head_overlap(torch.tensor([[3.0, 0.0], [-2.0, 0.0]]))) == pytest.approx(1.0)
    assert float(head_overlap(torch.tensor([[1.0, 0.0], [5.0, 5.0]]))) == pytest.approx(2**-0.5)
