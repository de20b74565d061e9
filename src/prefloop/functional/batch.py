"""Tensor records of one on-policy step.

All `[B, T]` tensors are aligned with `input_ids`: index t speaks of token t, so `logprobs[:, t]` is
log p(token t | tokens before t) and `values[:, t]` is the value of the state *before* token t is emitted.
Rows are prompt + response + padding (on the right). `response_mask` is True where a token was written by the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class RolloutBatch:
    """What one round of sampling and scoring produced. Rows of a group (same prompt) are adjacent."""

    input_ids: Tensor
    """[B, T] int64."""
    lengths: Tensor
    """[B] int64, tokens of prompt + response, padding excluded."""
    response_mask: Tensor
    """[B, T] bool."""
    sampler_logprobs: Tensor
    """[B, T] as the sampler drew them, 0 outside the response."""
    old_logprobs: Tensor
    """[B, T] of the policy that sampled, as the trainer computes them."""
    ref_logprobs: Tensor
    """[B, T] of the reference."""
    scores: Tensor
    """[B] normalised and clipped score of each response."""
    rewards: Tensor
    """[B, T] per-token reward: the score at the last response token; -kl_coef * k1 on all, where the KL is in it."""
    group: Tensor
    """[B] int64, index of the prompt."""
    values: Tensor | None = None
    """[B, T] of the value model that saw the rollout, or None."""


@dataclass(frozen=True, eq=False)
class Advantages:
    """What an algorithm makes of rewards; `returns` is the value model's target."""

    advantages: Tensor
    """[B, T]."""
    returns: Tensor | None = None
    """[B, T] or None."""


@dataclass(frozen=True, eq=False)
class LossOutput:
    """A differentiable scalar and what to log beside it."""

    loss: Tensor
    metrics: Mapping[str, Tensor]
    """Already divided by the global denominator of the optimiser step, so that micro-batches add up; those whose name
    ends in `_max` combine by maximum."""
    token_sums: Mapping[str, Tensor] = field(default_factory=dict)
    """Sums over response tokens, for the caller to divide by the number of tokens of the optimiser step: shares and
    means per token, whatever the loss is divided by."""
