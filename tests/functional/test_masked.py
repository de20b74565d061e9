import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prefloop.functional.masked import masked_mean, masked_sum, masked_variance, whiten, zero_outside

X = torch.tensor([[1.0, 2.0], [4.0, 8.0]], dtype=torch.float64)
MASK = torch.tensor([[True, False], [True, True]])

REDUCTIONS = {
    "sum": masked_sum,
    "mean": masked_mean,
    "variance": masked_variance,
    "row sums": lambda x, mask: masked_sum(x, mask, dim=1).square().sum(),
    "row means": lambda x, mask: masked_mean(x, mask, dim=1).square().sum(),
    "whitened": lambda x, mask: whiten(x, mask, eps=0.1).pow(3).sum(),
    "scaled": lambda x, mask: whiten(x, mask, eps=0.1, shift_mean=False).pow(3).sum(),
}


@st.composite
def masked_tensors(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Random values and a mask of any pattern, empty and full ones included."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    size = rows * columns
    values = draw(st.lists(st.floats(-100, 100, width=32), min_size=size, max_size=size))
    mask = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return torch.tensor(values, dtype=torch.float64).view(rows, columns), torch.tensor(mask).view(rows, columns)


def test_masked_sum_by_hand() -> None:
    assert masked_sum(X, MASK).item() == 13
    assert masked_sum(X, MASK, dim=0).tolist() == [5, 8]
    assert masked_sum(X, MASK, dim=1).tolist() == [1, 12]


def test_masked_mean_by_hand() -> None:
    assert masked_mean(X, MASK).item() == pytest.approx(13 / 3)
    assert masked_mean(X, MASK, dim=0).tolist() == [2.5, 8]
    assert masked_mean(X, MASK, dim=1).tolist() == [1, 6]


def test_mean_over_nothing_is_zero() -> None:
    mask = torch.tensor([[False, False], [True, False]])
    assert masked_mean(X, mask, dim=1).tolist() == [0, 4]
    assert masked_mean(X, torch.zeros_like(mask)).item() == 0
    assert masked_variance(X, torch.zeros_like(mask)).item() == 0


def test_masked_variance_is_biased() -> None:
    # 1, 4, 8: mean 13/3, squared deviations 100/9, 1/9, 121/9, divided by 3 (not by 2).
    assert masked_variance(X, MASK).item() == pytest.approx(222 / 27)


def test_zero_outside_keeps_the_dtype_and_broadcasts() -> None:
    assert zero_outside(X.to(torch.bfloat16), MASK).dtype == torch.bfloat16
    assert zero_outside(torch.tensor([[3], [5]]), MASK).tolist() == [[3, 0], [5, 5]]


def test_whiten_by_hand() -> None:
    # The masked elements 1 and 3 have mean 2 and biased variance 1; with eps 3 they are divided by 2.
    x = torch.tensor([[1.0, 50.0, 3.0]], dtype=torch.float64)
    mask = torch.tensor([[True, False, True]])
    assert whiten(x, mask, eps=3.0).tolist() == [[-0.5, 0, 0.5]]
    assert whiten(x, mask, shift_mean=False, eps=3.0).tolist() == [[1.5, 0, 2.5]]


def test_whiten_default_eps_is_1e_minus_8_under_the_root() -> None:
    x = torch.tensor([-1e-4, 1e-4], dtype=torch.float64)
    scaled = whiten(x, torch.tensor([True, True]))
    assert scaled.tolist() == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)], rel=1e-9)


def test_whiten_of_equal_values_is_zero_not_nan() -> None:
    assert whiten(torch.full((2, 2), 5.0), MASK).tolist() == [[0, 0], [0, 0]]


@given(masked_tensors())
def test_whitened_elements_have_mean_zero_and_variance_one(case: tuple[Tensor, Tensor]) -> None:
    x, mask = case
    selected = x[mask]
    if mask.sum() < 2 or selected.std() < 0.1:
        return
    whitened = whiten(x, mask)
    assert whitened[mask].mean().item() == pytest.approx(0, abs=1e-6)
    assert whitened[mask].var(correction=0).item() == pytest.approx(1, rel=1e-4)
    scaled = whiten(x, mask, shift_mean=False)
    assert scaled[mask].mean().item() == pytest.approx(selected.mean().item(), abs=1e-6)
    assert scaled[~mask].eq(0).all()


@given(masked_tensors())
def test_reductions_equal_those_of_the_selected_elements(case: tuple[Tensor, Tensor]) -> None:
    x, mask = case
    selected = x[mask]
    assert masked_sum(x, mask).item() == pytest.approx(selected.sum().item(), abs=1e-9)
    if len(selected):
        assert masked_mean(x, mask).item() == pytest.approx(selected.mean().item(), abs=1e-9)
        assert masked_variance(x, mask).item() == pytest.approx(selected.var(correction=0).item(), abs=1e-6)


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
def test_what_stands_outside_the_mask_reaches_neither_value_nor_gradient(name: str, garbage: float) -> None:
    def value_and_gradient(outside: float) -> tuple[Tensor, Tensor]:
        x = X.clone()
        x[~MASK] = outside
        x.requires_grad_()
        value = REDUCTIONS[name](x, MASK)
        (gradient,) = torch.autograd.grad(value, x)
        return value.detach(), gradient

    value, gradient = value_and_gradient(garbage)
    clean_value, clean_gradient = value_and_gradient(0.0)
    assert value.item() == clean_value.item()
    assert gradient.tolist() == clean_gradient.tolist()
    assert gradient[~MASK].tolist() == [0]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    x = X.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: REDUCTIONS[name](t, MASK), (x,))
