import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prefloop.functional.advantages import (
    best_of_group,
    broadcast_to_tokens,
    explained_variance,
    flat_groups,
    gae,
    group_normalise,
    importance_weights,
    leave_one_out,
    reward_to_go,
    shape_rewards,
)

NAN = math.nan
# Two rows of prompt, response and padding, and one without a response.
MASK = torch.tensor(
    [
        [False, True, True, True, False],
        [False, False, True, False, False],
        [False, False, False, False, False],
    ]
)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def episodes(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and a mask whose rows are one run each, possibly empty."""
    num_rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    mask = torch.zeros(num_rows, length, dtype=torch.bool)
    for row in mask:
        start = draw(st.integers(0, length))
        row[start : draw(st.integers(start, length))] = True
    rewards, values = torch.randn(2, num_rows, length, dtype=torch.float64, generator=generator)
    return rewards, values, mask


def test_shape_rewards_by_hand() -> None:
    k1 = rows([9, 0.5, -1.0, 2.0, NAN], [9, 9, 3.0, 9, NAN], [NAN] * 5)
    rewards = shape_rewards(rows([2.0, -1.0, NAN])[0], k1, MASK, kl_coef=0.1)
    expected = rows([0, -0.05, 0.1, 2.0 - 0.2, 0], [0, 0, -1.0 - 0.3, 0, 0], [0] * 5)
    torch.testing.assert_close(rewards, expected)


def test_score_is_added_at_the_last_of_the_whole_row_too() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    rewards = shape_rewards(torch.tensor([5.0, 7.0]), torch.zeros(2, 2), mask, kl_coef=1.0)
    assert rewards.tolist() == [[0, 5], [7, 0]]


@given(episodes(), st.floats(0, 2))
def test_rewards_of_a_row_sum_to_the_penalised_score(case: tuple[Tensor, Tensor, Tensor], kl_coef: float) -> None:
    k1, _, mask = case
    scores = torch.arange(1.0, len(mask) + 1, dtype=torch.float64)
    totals = shape_rewards(scores, k1, mask, kl_coef=kl_coef).sum(dim=1)
    for row, total in enumerate(totals.tolist()):
        expected = scores[row].item() - kl_coef * k1[row][mask[row]].sum().item() if mask[row].any() else 0.0
        assert total == pytest.approx(expected)


def test_gae_by_hand() -> None:
    rewards = rows([NAN, 1.0, 0.0, 2.0, NAN], [7.0, 7.0, 3.0, 7.0, 7.0], [NAN] * 5)
    values = rows([NAN, 0.5, 1.0, 4.0, NAN], [7.0, 7.0, 1.0, 7.0, 7.0], [NAN] * 5)
    advantages, returns = gae(rewards, values, MASK, gamma=0.5, gae_lambda=0.5)
    # Row 0, from the end: delta = 2 - 4 = -2; 0 + 0.5*4 - 1 = 1; 1 + 0.5*1 - 0.5 = 1.
    # Advantages: -2; 1 + 0.25*(-2) = 0.5; 1 + 0.25*0.5 = 1.125.
    assert advantages.tolist() == [[0, 1.125, 0.5, -2, 0], [0, 0, 2, 0, 0], [0] * 5]
    assert returns.tolist() == [[0, 1.625, 1.5, 2, 0], [0, 0, 3, 0, 0], [0] * 5]


def test_gae_defaults_are_gamma_1_and_lambda_095() -> None:
    rewards, mask = rows([0.0, 0.0, 1.0]), torch.ones(1, 3, dtype=torch.bool)
    advantages, _ = gae(rewards, torch.zeros_like(rewards), mask)
    assert advantages.tolist()[0] == pytest.approx([0.9025, 0.95, 1.0])


@given(episodes(), st.floats(0, 1), st.floats(0, 1))
def test_gae_is_the_discounted_sum_of_deltas(
    case: tuple[Tensor, Tensor, Tensor], gamma: float, gae_lambda: float
) -> None:
    rewards, values, mask = case
    advantages, returns = gae(rewards, values, mask, gamma=gamma, gae_lambda=gae_lambda)
    for row in range(len(mask)):
        r, v = rewards[row][mask[row]].tolist(), [*values[row][mask[row]].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(r))]
        expected = [
            sum((gamma * gae_lambda) ** (later - t) * deltas[later] for later in range(t, len(r)))
            for t in range(len(r))
        ]
        assert advantages[row][mask[row]].tolist() == pytest.approx(expected)
        assert returns[row][mask[row]].tolist() == pytest.approx([a + b for a, b in zip(expected, v, strict=False)])
    assert advantages[~mask].eq(0).all() and returns[~mask].eq(0).all()


@given(episodes())
def test_gae_at_lambda_one_is_reward_to_go_minus_value(case: tuple[Tensor, Tensor, Tensor]) -> None:
    rewards, values, mask = case
    advantages, returns = gae(rewards, values, mask, gamma=1.0, gae_lambda=1.0)
    to_go = (rewards * mask).flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(advantages[mask], (to_go - values)[mask])
    torch.testing.assert_close(returns[mask], to_go[mask])


@given(episodes())
def test_gae_of_an_exact_value_model_is_zero(case: tuple[Tensor, Tensor, Tensor]) -> None:
    rewards, _, mask = case
    to_go = (rewards * mask).flip(1).cumsum(1).flip(1)
    advantages, returns = gae(rewards, to_go, mask, gae_lambda=0.7)
    torch.testing.assert_close(advantages, torch.zeros_like(rewards))
    torch.testing.assert_close(returns[mask], to_go[mask])


def test_leave_one_out_by_hand() -> None:
    advantages = leave_one_out(torch.tensor([1.0, 2.0, 6.0, 10.0, 10.0, 10.0]), group_size=3)
    assert advantages.tolist() == [-3, -1.5, 4.5, 0, 0, 0]
    assert leave_one_out(torch.tensor([1.0, 4.0]), group_size=2).tolist() == [-3, 3]


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 2**31))
def test_leave_one_out_is_the_scaled_deviation_and_sums_to_zero(group_size: int, num_groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    returns = torch.randn(num_groups * group_size, dtype=torch.float64, generator=generator)
    groups = leave_one_out(returns, group_size=group_size).view(num_groups, group_size)
    means = returns.view(num_groups, group_size).mean(dim=1, keepdim=True)
    expected = group_size / (group_size - 1) * (returns.view(num_groups, group_size) - means)
    torch.testing.assert_close(groups, expected)
    torch.testing.assert_close(groups.sum(dim=1), torch.zeros(num_groups, dtype=torch.float64))


def test_leave_one_out_refuses_groups_that_do_not_exist() -> None:
    with pytest.raises(AssertionError):
        leave_one_out(torch.ones(4), group_size=1)
    with pytest.raises(AssertionError):
        leave_one_out(torch.ones(6), group_size=4)


def test_broadcast_to_tokens_by_hand() -> None:
    tokens = broadcast_to_tokens(torch.tensor([2.0, -1.0, NAN]), MASK)
    assert tokens.tolist() == [[0, 2, 2, 2, 0], [0, 0, -1, 0, 0], [0] * 5]


def test_explained_variance_by_hand() -> None:
    mask = torch.tensor([[True, True, True, False]])
    returns = rows([1.0, 2.0, 3.0, NAN])
    # Residuals 0, 0, -2: variance 8/9, against 2/3.
    assert explained_variance(rows([1.0, 2.0, 5.0, NAN]), returns, mask).item() == pytest.approx(-1 / 3)
    assert explained_variance(rows([8.0, 9.0, 10.0, 0.0]), returns, mask).item() == pytest.approx(1)
    assert explained_variance(rows([5.0, 5.0, 5.0, 0.0]), returns, mask).item() == pytest.approx(0)
    # Half the spread explained: residuals -1/2, 0, 1/2 have a quarter of the variance.
    assert explained_variance(rows([0.5, 1.0, 1.5, 0.0]), returns, mask).item() == pytest.approx(0.75)


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.0])
def test_explained_variance_is_zero_where_there_is_nothing_to_explain(constant: float) -> None:
    values, returns = torch.randn(2, 7, generator=torch.Generator().manual_seed(0)), torch.full((2, 7), constant)
    mask = torch.ones(2, 7, dtype=torch.bool)
    assert explained_variance(values, returns, mask).item() == 0
    assert explained_variance(values, values, torch.zeros_like(mask)).item() == 0
    mask[1, 3:] = False
    assert explained_variance(values, torch.where(mask, returns, math.nan), mask).item() == 0


def test_explained_variance_takes_returns_below_zero() -> None:
    mask = torch.tensor([[True, True, False]])
    assert explained_variance(rows([-1.0, -3.0, 0]), rows([-1.0, -3.0, 9.0]), mask).item() == pytest.approx(1)


def test_all_stays_on_the_device_and_in_the_dtype_of_its_inputs() -> None:
    """A tensor on `meta` has no numbers either: whoever waits for the device to tell one fails."""
    per_row = torch.ones(4, dtype=torch.float64, device="meta")
    per_token, mask = per_row.unsqueeze(1).expand(4, 5), torch.ones(4, 5, dtype=torch.bool, device="meta")
    found = [
        shape_rewards(per_row, per_token, mask, kl_coef=0.1),
        *gae(per_token, per_token, mask),
        leave_one_out(per_row, group_size=2),
        group_normalise(per_row, group_size=2),
        per_row * best_of_group(per_row, group_size=2),
        reward_to_go(per_token, mask),
        importance_weights(per_token, per_token, mask),
        broadcast_to_tokens(per_row, mask),
        explained_variance(per_token, per_token, mask),
    ]
    assert {(x.dtype, x.device.type) for x in found} == {(torch.float64, "meta")}


def test_gradients_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(3, 5, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    scores = torch.randn(3, dtype=torch.float64, generator=generator).requires_grad_()
    group = torch.randn(6, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, k: shape_rewards(s, k, MASK, kl_coef=0.3), (scores, rewards))
    assert torch.autograd.gradcheck(lambda r, v: gae(r, v, MASK, gamma=0.9), (rewards, values))
    assert torch.autograd.gradcheck(lambda x: broadcast_to_tokens(x, MASK), (scores,))
    assert torch.autograd.gradcheck(lambda x: leave_one_out(x, group_size=3), (group,))
    assert torch.autograd.gradcheck(lambda v, r: explained_variance(v, r, MASK), (values, rewards))


def test_group_normalisation_by_hand() -> None:
    # Deviations with ddof 1: of (1, 3) sqrt(2), of (0, 10) sqrt(50); a group without spread gives nothing.
    returns = torch.tensor([1.0, 3, 0, 10, 5, 5], dtype=torch.float64)
    expected = [-1 / (math.sqrt(2) + 1e-4), 1 / (math.sqrt(2) + 1e-4), -5 / (math.sqrt(50) + 1e-4)]
    found = group_normalise(returns, group_size=2)
    assert found.tolist() == pytest.approx([*expected, -expected[2], 0, 0])
    assert group_normalise(returns, group_size=2, scale=False).tolist() == [-1, 1, -5, 5, 0, 0]
    assert flat_groups(returns, group_size=2).tolist() == [False, False, True]


def test_a_group_without_spread_is_exactly_0_whatever_its_mean_rounds_to() -> None:
    returns = torch.full((7,), 0.7)
    assert (returns - returns.mean()).abs().max() > 0, "the mean of equal values is not always their value"
    assert group_normalise(returns, group_size=7).tolist() == [0] * 7


@given(seed=st.integers(0, 2**31), group_size=st.integers(2, 5), scale=st.booleans())
def test_group_advantages_sum_to_0_and_see_no_shift(seed: int, group_size: int, scale: bool) -> None:
    returns = torch.randn(3 * group_size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = group_normalise(returns, group_size=group_size, scale=scale)
    assert found.view(3, -1).sum(1).abs().max() < 1e-10
    torch.testing.assert_close(group_normalise(returns + 7, group_size=group_size, scale=scale), found)


def test_dr_grpo_is_rloo_up_to_a_factor() -> None:
    returns = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        group_normalise(returns, group_size=4, scale=False) * 4 / 3, leave_one_out(returns, group_size=4)
    )


def test_group_normalisation_refuses_groups_that_do_not_exist() -> None:
    for group_size in (1, 3):
        with pytest.raises(AssertionError):
            group_normalise(torch.ones(4), group_size=group_size)


def test_the_best_of_a_group_by_hand() -> None:
    returns = torch.tensor([1.0, 3, 2, 7, 7, 0])
    best = best_of_group(returns, group_size=3)
    assert best.tolist() == [False, True, False, True, False, False]
    assert returns[best].tolist() == [3, 7]


def test_reward_to_go_by_hand() -> None:
    rewards = torch.tensor([[math.nan, 1.0, 2.0, 4.0, math.nan]])
    mask = torch.tensor([[False, True, True, True, False]])
    assert reward_to_go(rewards, mask).tolist() == [[0, 7, 6, 4, 0]]


def test_reward_to_go_is_gae_without_values() -> None:
    rewards = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    advantages, _ = gae(rewards, torch.zeros_like(rewards), mask, gamma=1.0, gae_lambda=1.0)
    torch.testing.assert_close(reward_to_go(rewards, mask), advantages)


def test_importance_weights_by_hand() -> None:
    ratio = torch.tensor([[0.5, 1.0, 1.5, 6.0, math.nan]])
    mask = torch.tensor([[True, True, True, True, False]])
    found = importance_weights(ratio.log(), torch.zeros(1, 5), mask)
    assert found[0].tolist() == pytest.approx([0.5, 1, 1.5, 2, 1])
    assert importance_weights(ratio.log(), torch.zeros(1, 5), mask, ceiling=1.2)[0, 2].item() == pytest.approx(1.2)
    # 0.3 to the trainer and 0.2 to the sampler; 0.1 and 0.2.
    trainer, sampler = rows([0.3, 0.1]).log(), rows([0.2, 0.2]).log()
    assert importance_weights(trainer, sampler, mask[:, :2]).tolist()[0] == pytest.approx([1.5, 0.5])
