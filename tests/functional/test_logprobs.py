import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefloop.functional.kl import kl_and_entropy
from prefloop.functional.logprobs import log_softmax, scatter_response, token_logprobs

# Probabilities 1/8, 2/8, 5/8; at temperature 1/2 the odds are squared: 1/30, 4/30, 25/30.
LOGITS = torch.tensor([[0.0, math.log(2), math.log(5)]], dtype=torch.float64).expand(3, 3)
IDS = torch.tensor([0, 1, 2])


def entropy(logits: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    logprobs = log_softmax(logits, temperature=temperature)
    return kl_and_entropy(logprobs, logprobs)[1]


def test_token_logprobs_by_hand() -> None:
    expected = [math.log(1 / 8), math.log(2 / 8), math.log(5 / 8)]
    assert token_logprobs(LOGITS, IDS).tolist() == pytest.approx(expected)
    assert token_logprobs(LOGITS + 7, IDS).tolist() == pytest.approx(expected)


def test_temperature_divides_the_logits() -> None:
    expected = [math.log(1 / 30), math.log(4 / 30), math.log(25 / 30)]
    assert token_logprobs(LOGITS, IDS, temperature=0.5).tolist() == pytest.approx(expected)


def test_softmax_is_taken_in_fp32_whatever_comes_in() -> None:
    logits = torch.tensor([[0.0, 1.0, 3.0]], dtype=torch.bfloat16)
    logprobs = token_logprobs(logits, torch.tensor([1]))
    assert logprobs.dtype == torch.float32
    assert logprobs.item() == pytest.approx(1 - math.log(1 + math.e + math.e**3), rel=1e-6)
    assert entropy(logits).dtype == torch.float32
    assert log_softmax(LOGITS).dtype == torch.float64


def test_temperature_is_one_unless_told() -> None:
    torch.testing.assert_close(log_softmax(LOGITS).exp()[0], torch.tensor([1, 2, 5], dtype=torch.float64) / 8)


def test_rows_of_positions_are_as_good_as_packed_ones() -> None:
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(10).view(2, 5) % 3
    packed, packed_ids = logits.flatten(0, 1), ids.flatten()
    torch.testing.assert_close(token_logprobs(logits, ids), token_logprobs(packed, packed_ids).view(2, 5))
    torch.testing.assert_close(entropy(logits), entropy(packed).view(2, 5))


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[1e4, 0.0], [1e4, 0.0]])
    assert token_logprobs(logits, torch.tensor([0, 1])).tolist() == [0, -1e4]
    assert entropy(logits).tolist() == [0, 0]


def test_entropy_by_hand() -> None:
    expected = -(math.log(1 / 8) / 8 + 2 * math.log(2 / 8) / 8 + 5 * math.log(5 / 8) / 8)
    assert entropy(LOGITS).tolist() == pytest.approx([expected] * 3)
    sharper = -(math.log(1 / 30) + 4 * math.log(4 / 30) + 25 * math.log(25 / 30)) / 30
    assert entropy(LOGITS, temperature=0.5).tolist() == pytest.approx([sharper] * 3)
    assert entropy(torch.zeros(1, 4)).item() == pytest.approx(math.log(4))


def test_a_token_that_cannot_occur_adds_no_entropy_and_no_nan_gradient() -> None:
    logits = torch.tensor([[0.0, 1.0, -math.inf]], dtype=torch.float64, requires_grad=True)
    without = torch.tensor([[0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    value, expected = entropy(logits), entropy(without)
    assert value.item() == pytest.approx(expected.item())
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), without)
    assert gradient.tolist()[0] == pytest.approx([*expected_gradient.tolist()[0], 0.0])


def test_gradients_agree_with_finite_differences() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: token_logprobs(x, IDS, temperature=0.7), (logits,))
    assert torch.autograd.gradcheck(lambda x: entropy(x, temperature=0.7), (logits,))


def test_scatter_response_by_hand() -> None:
    mask = torch.tensor([[False, True, True], [True, False, False]])
    scattered = scatter_response(torch.tensor([1.0, 2.0, 3.0]), mask)
    assert scattered.tolist() == [[0, 1, 2], [3, 0, 0]]


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5))
def test_scatter_undoes_packing(rows: list[list[bool]]) -> None:
    mask = torch.tensor(rows)
    values = torch.arange(1.0, mask.sum().item() + 1, dtype=torch.float64).requires_grad_()
    scattered = scatter_response(values, mask)
    assert scattered[mask].tolist() == values.tolist()
    assert scattered[~mask].tolist() == [0] * int((~mask).sum())
    weights = torch.arange(1.0, mask.numel() + 1, dtype=torch.float64).view(mask.shape)
    (gradient,) = torch.autograd.grad((scattered * weights).sum(), values)
    assert gradient.tolist() == weights[mask].tolist()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_scatter_refuses_another_number_of_values_than_positions(count: int) -> None:
    with pytest.raises(AssertionError, match=r"^one value per True position of the mask"):
        scatter_response(torch.ones(count), torch.tensor([[True, True, True, False]]))
