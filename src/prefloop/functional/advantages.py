"""From scores to per-token rewards, from rewards to advantages.

All `[B, T]` tensors are aligned as in `batch.py`: index t speaks of token t, `values[:, t]` is the value of the state
before token t. Nothing here detaches: a caller passes values and log-probabilities that carry no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prefloop.functional.masked import masked_variance, zero_outside


def shape_rewards(scores: Tensor, k1: Tensor, response_mask: Tensor, *, kl_coef: float) -> Tensor:
    """Per-token reward: the KL penalty on every response token, the score once, on the last of them.

        r_t = -kl_coef k1_t + [t is the last response token] score

    Summed over the row this is R(x, y) = r(x, y) - beta log(pi(y|x) / ref(y|x)), Ziegler et al. (2019), equation 2.
    `scores` [B], `k1` [B, T], `response_mask` [B, T]; answers [B, T]. A row without a response token gets no reward.
    """
    positions = torch.arange(response_mask.shape[1], device=response_mask.device)
    last = torch.where(response_mask, positions, -1).amax(dim=1, keepdim=True)
    return zero_outside(-kl_coef * k1, response_mask) + zero_outside(scores.unsqueeze(1), positions == last)


def gae(
    rewards: Tensor, values: Tensor, response_mask: Tensor, *, gamma: float = 1.0, gae_lambda: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation, and the value model's target.

        delta_t = r_t + gamma V_{t+1} - V_t
        A_t     = delta_t + gamma lambda A_{t+1},    V and A past the last response token = 0
        return_t = A_t + V_t

    Schulman et al. (2016), equation 16. `rewards`, `values`, `response_mask` [B, T], the True positions of a row one
    contiguous run; answers (advantages, returns), each [B, T] and 0 outside the mask. Not whitened.
    """
    rewards, values = zero_outside(rewards, response_mask), zero_outside(values, response_mask)
    next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = rewards + gamma * next_values - values
    advantage = torch.zeros_like(values[:, 0])
    backwards: list[Tensor] = []
    for delta in reversed(deltas.unbind(dim=1)):
        advantage = delta + gamma * gae_lambda * advantage
        backwards.append(advantage)
    # The recursion also runs through the prompt, to the left of the response.
    advantages = zero_outside(torch.stack(backwards[::-1], dim=1), response_mask)
    return advantages, advantages + values


def leave_one_out(returns: Tensor, *, group_size: int) -> Tensor:
    """Each return minus the mean of the others of its group, the RLOO advantage.

        A_i = R_i - 1/(n-1) sum_{j != i} R_j = n/(n-1) (R_i - mean R)

    Kool et al. (2019), "Buy 4 REINFORCE samples, get a baseline for free!"; Ahmadian et al. (2024), the RLOO estimator.
    `returns` [B], the `group_size` >= 2 rows of a prompt adjacent; answers [B].
    """
    assert group_size >= 2 and returns.shape[0] % group_size == 0
    groups = returns.reshape(-1, group_size)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).reshape(-1)


def group_normalise(returns: Tensor, *, group_size: int, scale: bool = True, eps: float = 1e-4) -> Tensor:
    """Each return against its group: the GRPO advantage, Shao et al. (2024), section 4.1.2.

        A_i = (R_i - mean R) / (std R + eps)

    The deviation has ddof 1. `scale` False leaves the division out (Dr. GRPO, Liu et al. 2025). `returns` [B], the
    `group_size` >= 2 rows of a prompt adjacent; answers [B], exactly 0 in a group without spread.
    """
    assert group_size >= 2 and returns.shape[0] % group_size == 0
    groups = returns.reshape(-1, group_size)
    centred = groups - groups.mean(dim=1, keepdim=True)
    if scale:
        centred = centred / (groups.std(dim=1, keepdim=True) + eps)
    # The mean of equal values may differ from them by a rounding error, which the division would blow up.
    return centred.masked_fill(flat_groups(returns, group_size=group_size).unsqueeze(1), 0.0).reshape(-1)


def flat_groups(returns: Tensor, *, group_size: int) -> Tensor:
    """Groups without spread: `returns` [B], rows of a prompt adjacent; answers [B / group_size] bool.

    Nothing can be learned from comparing equal responses.
    """
    groups = returns.reshape(-1, group_size)
    return groups.amax(dim=1) == groups.amin(dim=1)


def best_of_group(returns: Tensor, *, group_size: int) -> Tensor:
    """The best response of each group, the first of equals: `returns` [B], rows of a prompt adjacent; [B] bool.

    Dong et al. (2023), RAFT, equation 3.
    """
    groups = returns.reshape(-1, group_size)
    best = groups.argmax(dim=1, keepdim=True)
    return torch.zeros_like(groups, dtype=torch.bool).scatter(1, best, True).reshape(-1)


def reward_to_go(rewards: Tensor, response_mask: Tensor) -> Tensor:
    """Sum of the rewards from each token on, undiscounted: G_t = sum_{s >= t} r_s.

    `rewards`, `response_mask` [B, T]; answers [B, T], 0 outside the mask.
    """
    rewards = zero_outside(rewards, response_mask)
    return zero_outside(rewards.flip(1).cumsum(1).flip(1), response_mask)


def importance_weights(
    old_logprobs: Tensor, sampler_logprobs: Tensor, response_mask: Tensor, *, ceiling: float = 2.0
) -> Tensor:
    """Truncated importance weights where the sampler's probabilities are not the trainer's.

        w_t = min(pi_old(y_t) / pi_sampler(y_t), ceiling)

    Ionides (2008), "Truncated importance sampling". All [B, T]; 1 outside the mask. A loss that is proportional to its
    advantage is weighted by weighting the advantage.
    """
    return zero_outside(old_logprobs - sampler_logprobs, response_mask).exp().clamp(max=ceiling)


def broadcast_to_tokens(x: Tensor, response_mask: Tensor) -> Tensor:
    """Give every response token the value of its row: `x` [B], `response_mask` [B, T]; answers [B, T], 0 outside."""
    return zero_outside(x.unsqueeze(1), response_mask)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Share of the variance of `returns` that `values` explain: 1 - Var(returns - values) / Var(returns).

    1 is a perfect value model, 0 one no better than a constant, below 0 a worse one. 0 where the returns are all equal:
    there is nothing to explain. All [B, T]; answers a scalar.
    """
    varies = returns.masked_fill(~mask, -torch.inf).amax() > returns.masked_fill(~mask, torch.inf).amin()
    # The divisor is replaced, not only the quotient: with equal returns it is 0.
    variance = torch.where(varies, masked_variance(returns, mask), 1.0)
    return torch.where(varies, 1.0 - masked_variance(returns - values, mask) / variance, 0.0)
