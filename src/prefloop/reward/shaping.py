"""Scores as they are optimised: the one place where the order of shaping is decided.

1. Scores, and those of the reference's responses, are clipped.
2. With `relative_to_reference` they become the mean sigmoid of their lead over the reference's responses.
3. With `whiten_scores` they are scaled to variance 1 over the batch, the mean kept.
4. The length penalty and the soft overlong penalty are added: after the scaling, so that a penalty means the same in
   every batch.
5. With `truncated` "score" a response that was cut off gets `truncated_score` instead of all this.

Left out: `truncated` "mask" changes no score, it takes responses out of the loss (`rows_in_loss`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from prefloop.functional.shaping import (
    clip_scores,
    length_penalty,
    missing_eos_penalty,
    sigmoid_against_reference,
    soft_overlong_penalty,
    whiten_scores,
)
from prefloop.reward.config import ShapingConfig


def shape_scores(
    raw: Tensor,
    *,
    config: ShapingConfig,
    finished: Tensor,
    lengths: Tensor,
    max_new_tokens: int,
    reference_scores: Tensor | None,
) -> Tensor:
    """The scores that are optimised, [B], from what the scorer said.

    `raw` [B]; `finished` [B] bool, False where the length limit cut the response off; `lengths` [B] int64 response
    tokens; `reference_scores` [B, num_reference_samples] raw scores of the reference's responses to the same prompts,
    given exactly with `relative_to_reference`.
    """
    assert (reference_scores is not None) == config.relative_to_reference
    scores = clip_scores(raw, limit=config.score_clip)
    if reference_scores is not None:
        assert reference_scores.shape == (*raw.shape, config.num_reference_samples)
        scores = sigmoid_against_reference(scores, clip_scores(reference_scores, limit=config.score_clip))
    if config.whiten_scores:
        # Scores that are replaced or left out below have no say in the scale of the others.
        counted = torch.ones_like(finished) if config.truncated == "keep" else finished
        scores = whiten_scores(scores, counted)
    if config.length_penalty_coef:
        scores = scores + length_penalty(lengths, coef=config.length_penalty_coef, free_length=config.free_length)
    if config.soft_overlong_cache is not None:
        scores = scores + soft_overlong_penalty(lengths, max_length=max_new_tokens, cache=config.soft_overlong_cache)
    if config.truncated == "score":
        scores = missing_eos_penalty(scores, finished, penalty=config.truncated_score)
    return scores


def rows_in_loss(finished: Tensor, *, config: ShapingConfig) -> Tensor:
    """[B] bool: the responses that a loss and its denominator count; baselines still take the others in."""
    return finished if config.truncated == "mask" else torch.ones_like(finished)
