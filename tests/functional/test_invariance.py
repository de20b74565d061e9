"""Padding changes nothing, and a step split into micro-batches is the same step, for every loss."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prefloop.functional.advantages import broadcast_to_tokens, explained_variance, gae, shape_rewards
from prefloop.functional.batch import LossOutput
from prefloop.functional.losses import (
    bradley_terry_loss,
    clipped_policy_loss,
    clipped_value_loss,
    kl_loss,
    loss_denominator,
    nll_loss,
    policy_gradient_loss,
    sequence_ratio_loss,
)
from prefloop.functional.preference import dpo_loss, ipo_loss, kto_loss, kto_reference_point, robust_dpo_loss
from prefloop.functional.reduction import Reduction

NUM_ROWS, LENGTH, MAX_LENGTH = 8, 6, 10
# A loss of what is trained [B, T], two other tensors [B, T], the mask and the denominator of the whole step.
TokenLoss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], LossOutput]


def token_losses() -> dict[str, tuple[TokenLoss, Reduction]]:
    losses: dict[str, tuple[TokenLoss, Reduction]] = {
        "sft": (lambda x, old, other, mask, n: nll_loss(x, mask, denominator=n), "token"),
        "value": (
            lambda x, old, other, mask, n: clipped_value_loss(x, old, other, mask, clip_range=0.3, denominator=n),
            "token",
        ),
    }
    reductions: tuple[Reduction, ...] = ("token", "sequence", "response", "constant")
    for reduction in reductions:
        losses[f"ppo {reduction}"] = (
            lambda x, old, other, mask, n, r=reduction: clipped_policy_loss(
                x, old, other, mask, clip_range=0.2, denominator=n, reduction=r
            ),
            reduction,
        )
        losses[f"reinforce {reduction}"] = (
            lambda x, old, other, mask, n, r=reduction: policy_gradient_loss(
                x, other, mask, denominator=n, reduction=r
            ),
            reduction,
        )
        losses[f"kl {reduction}"] = (
            lambda x, old, other, mask, n, r=reduction: kl_loss(
                x, old, other, mask, estimator="k3", denominator=n, reduction=r
            ),
            reduction,
        )
    losses["gspo"] = (
        lambda x, old, other, mask, n: sequence_ratio_loss(
            x, old, other, mask, clip_range=0.2, clip_range_high=0.3, denominator=n
        ),
        "sequence",
    )
    return losses


TOKEN_LOSSES = token_losses()


def batch(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three tensors [B, T] and a mask of runs of unequal length, one of them empty."""
    generator = torch.Generator().manual_seed(seed)
    trained, old, other = torch.randn(3, NUM_ROWS, LENGTH, dtype=torch.float64, generator=generator)
    starts = torch.randint(0, 3, (NUM_ROWS, 1), generator=generator)
    ends = starts + torch.randint(1, LENGTH - 2, (NUM_ROWS, 1), generator=generator)
    ends[3] = starts[3]
    positions = torch.arange(LENGTH)
    return trained, old, other, (positions >= starts) & (positions < ends)


def run(loss: TokenLoss, *arguments: Tensor) -> tuple[LossOutput, Tensor]:
    trained = arguments[0].detach().clone().requires_grad_()
    output = loss(trained, *arguments[1:])
    return output, torch.autograd.grad(output.loss, trained)[0]


@pytest.mark.parametrize("name", TOKEN_LOSSES)
@given(seed=st.integers(0, 2**31), columns=st.integers(0, 3), garbage=st.sampled_from([math.nan, math.inf, -1e9, 3.0]))
def test_padding_changes_no_loss_gradient_or_metric(name: str, seed: int, columns: int, garbage: float) -> None:
    loss, reduction = TOKEN_LOSSES[name]
    *tensors, mask = batch(seed)
    denominator = loss_denominator(mask, reduction=reduction, max_length=MAX_LENGTH)
    plain, plain_gradient = run(loss, *tensors, mask, denominator)
    wider = torch.cat([mask, torch.zeros(NUM_ROWS, columns, dtype=torch.bool)], dim=1)
    dirty = [torch.cat([x, torch.zeros(NUM_ROWS, columns)], dim=1).masked_fill(~wider, garbage) for x in tensors]
    assert loss_denominator(wider, reduction=reduction, max_length=MAX_LENGTH).item() == denominator.item()
    padded, padded_gradient = run(loss, *dirty, wider, denominator)
    assert padded.loss.item() == pytest.approx(plain.loss.item(), rel=1e-12)
    torch.testing.assert_close(padded_gradient[:, :LENGTH], plain_gradient, rtol=1e-12, atol=1e-14)
    assert padded_gradient[~wider].eq(0).all()
    for metric, value in {**plain.metrics, **plain.token_sums}.items():
        found = {**padded.metrics, **padded.token_sums}[metric].item()
        assert found == pytest.approx(value.item(), rel=1e-12, abs=1e-14), metric


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_a_token_loss_keeps_the_dtype_and_logs_numbers_without_a_gradient(name: str, dtype: torch.dtype) -> None:
    loss, reduction = TOKEN_LOSSES[name]
    *tensors, mask = batch(7)
    denominator = loss_denominator(mask, reduction=reduction, max_length=MAX_LENGTH)
    output, gradient = run(loss, *(x.to(dtype) for x in tensors), mask, denominator)
    logged = [*output.metrics.values(), *output.token_sums.values()]
    assert {x.dtype for x in (output.loss, gradient, *logged)} == {dtype}
    # What is logged must not keep the graph alive.
    assert output.loss.requires_grad and not any(x.requires_grad for x in logged)


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_a_token_loss_makes_no_device_wait(name: str) -> None:
    """A tensor on `meta` has no numbers: whoever asks for one, be it `.item()`, `bool` or `max`, fails."""
    loss, reduction = TOKEN_LOSSES[name]
    *tensors, mask = (x.to("meta") for x in batch(7))
    output, gradient = run(loss, *tensors, mask, loss_denominator(mask, reduction=reduction, max_length=MAX_LENGTH))
    found = [output.loss, gradient, *output.metrics.values(), *output.token_sums.values()]
    assert {x.device.type for x in found} == {"meta"}


@given(seed=st.integers(0, 2**31), columns=st.integers(0, 3), garbage=st.sampled_from([math.nan, math.inf, 3.0]))
def test_padding_changes_no_reward_advantage_or_explained_variance(seed: int, columns: int, garbage: float) -> None:
    k1, values, _, mask = batch(seed)
    scores = values[:, 0].clone()
    wider = torch.cat([mask, torch.zeros(NUM_ROWS, columns, dtype=torch.bool)], dim=1)

    def step(k1: Tensor, values: Tensor, mask: Tensor) -> list[Tensor]:
        rewards = shape_rewards(scores, k1, mask, kl_coef=0.2)
        advantages, returns = gae(rewards, values, mask)
        explained = explained_variance(values, returns, mask).reshape(1, 1)
        return [rewards, advantages, returns, explained, broadcast_to_tokens(scores, mask)]

    dirty = [torch.cat([x, torch.zeros(NUM_ROWS, columns)], dim=1).masked_fill(~wider, garbage) for x in (k1, values)]
    for plain, padded in zip(step(k1, values, mask), step(*dirty, wider), strict=True):
        torch.testing.assert_close(padded[:, : plain.shape[1]], plain, rtol=1e-12, atol=1e-14)
        assert padded[:, plain.shape[1] :].eq(0).all()


def assert_same_step(outputs: list[LossOutput], whole: LossOutput) -> None:
    """The parts' losses and metrics add up to the whole's; maxima combine by maximum."""
    assert sum(part.loss.item() for part in outputs) == pytest.approx(whole.loss.item(), abs=1e-12)
    for metric, value in {**whole.metrics, **whole.token_sums}.items():
        parts = [{**part.metrics, **part.token_sums}[metric].item() for part in outputs]
        combined = max(parts) if metric.endswith("_max") else sum(parts)
        assert combined == pytest.approx(value.item(), abs=1e-12), metric


@pytest.mark.parametrize("num_parts", [1, 2, 4, 8])
@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_micro_batches_change_no_gradient_of_a_token_loss(name: str, num_parts: int) -> None:
    loss, reduction = TOKEN_LOSSES[name]
    *tensors, mask = batch(7)
    denominator = loss_denominator(mask, reduction=reduction, max_length=MAX_LENGTH)
    whole, expected = run(loss, *tensors, mask, denominator)
    parts = [
        run(loss, *rows, denominator) for rows in zip(*(x.chunk(num_parts) for x in (*tensors, mask)), strict=True)
    ]
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), expected, rtol=0, atol=1e-10)
    assert_same_step([output for output, _ in parts], whole)


PairLoss = Callable[[Tensor, Tensor, Tensor | None, Tensor], LossOutput]
PAIR_LOSSES: dict[str, PairLoss] = {
    "bradley_terry": lambda a, b, w, n: bradley_terry_loss(a, b, weights=w, centering_coef=0.01, denominator=n),
    "dpo": lambda a, b, w, n: dpo_loss(a, b, beta=0.4, label_smoothing=0.1, weights=w, denominator=n),
    "ipo": lambda a, b, w, n: ipo_loss(a, b, beta=0.4, weights=w, denominator=n),
    "robust": lambda a, b, w, n: robust_dpo_loss(a, b, beta=0.4, label_smoothing=0.1, weights=w, denominator=n),
}


@pytest.mark.parametrize("num_parts", [1, 2, 4, 8])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_micro_batches_change_no_gradient_of_a_pair_loss(name: str, weighted: bool, num_parts: int) -> None:
    generator = torch.Generator().manual_seed(3)
    pairs = torch.randn(NUM_ROWS, 2, dtype=torch.float64, generator=generator)
    weights = torch.rand(NUM_ROWS, dtype=torch.float64, generator=generator) if weighted else torch.ones(NUM_ROWS)
    denominator = weights.sum()

    def one(rows: Tensor, row_weights: Tensor) -> tuple[LossOutput, Tensor]:
        rows = rows.clone().requires_grad_()
        output = PAIR_LOSSES[name](rows[:, 0], rows[:, 1], row_weights if weighted else None, denominator)
        return output, torch.autograd.grad(output.loss, rows)[0]

    whole, expected = one(pairs, weights)
    parts = [one(*rows) for rows in zip(pairs.chunk(num_parts), weights.chunk(num_parts), strict=True)]
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), expected, rtol=0, atol=1e-10)
    assert_same_step([output for output, _ in parts], whole)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_a_pair_loss_makes_no_device_wait_and_keeps_the_dtype(name: str) -> None:
    for dtype, device in itertools.product((torch.float32, torch.float64), ("cpu", "meta")):
        a, b, weights = torch.ones(3, NUM_ROWS, dtype=dtype, device=device).unbind()
        output = PAIR_LOSSES[name](a, b, weights, weights.sum())
        assert {(x.dtype, x.device.type) for x in (output.loss, *output.metrics.values())} == {(dtype, device)}


@pytest.mark.parametrize("num_parts", [1, 2, 4, 8])
def test_micro_batches_change_no_gradient_of_kto(num_parts: int) -> None:
    """The reference point and both denominators are those of the step, so a part may lack a kind of response."""
    generator = torch.Generator().manual_seed(3)
    ratios, mismatched = torch.randn(2, NUM_ROWS, dtype=torch.float64, generator=generator)
    weights = torch.rand(NUM_ROWS, dtype=torch.float64, generator=generator)
    desirable = torch.arange(NUM_ROWS) < 3
    reference_point = kto_reference_point(mismatched + 1, weights)
    denominators = (weights[desirable].sum().item(), weights[~desirable].sum().item())

    def one(ratios: Tensor, desirable: Tensor, weights: Tensor) -> tuple[LossOutput, Tensor]:
        ratios = ratios.clone().requires_grad_()
        output = kto_loss(
            ratios,
            desirable,
            reference_point=reference_point,
            beta=0.4,
            desirable_weight=1.3,
            undesirable_weight=0.7,
            weights=weights,
            denominators=denominators,
        )
        return output, torch.autograd.grad(output.loss, ratios)[0]

    whole, expected = one(ratios, desirable, weights)
    parts = [one(*rows) for rows in zip(*(x.chunk(num_parts) for x in (ratios, desirable, weights)), strict=True)]
    assert expected.abs().max() > 1e-3 and reference_point.item() > 0.5
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), expected, rtol=0, atol=1e-10)
    assert_same_step([output for output, _ in parts], whole)
