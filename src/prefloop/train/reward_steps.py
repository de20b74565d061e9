"""The gradient of one step of a reward model: of the loss of single pairs, or of ODIN's over the whole step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.functional.disentangle import correlation, head_overlap, length_penalty
from prefloop.functional.losses import bradley_terry_loss
from prefloop.models.chat import Chat
from prefloop.models.load import score_head
from prefloop.train.config import RewardConfig
from prefloop.train.loop import add_metrics
from prefloop.train.pairs import both_scores, paired_batches
from prefloop.train.reward_data import TrainingPairs
from prefloop.train.reward_settings import OdinConfig


def step_gradient(
    config: RewardConfig, model: PreTrainedModel, chat: Chat, pairs: TrainingPairs, index: Sequence[int]
) -> dict[str, Tensor]:
    """Add the gradient of the step on the pairs `index` to the weights; its metrics. Each pair trains its own head."""
    if config.odin is not None:
        return _odin_gradient(config, config.odin, model, chat, pairs, index)
    total: dict[str, Tensor] = {}
    denominator = pairs.weights[list(index)].sum()
    for batch, members in paired_batches(pairs.rows, index, chat, model, config.token_budget):
        heads = pairs.heads[members][:, None]
        output = bradley_terry_loss(
            *(scores.gather(1, heads).squeeze(1) for scores in both_scores(model, batch)),
            targets=pairs.targets[members],
            wanted_margins=pairs.wanted_margins[members],
            weights=pairs.weights[members],
            centering_coef=config.centering_coef,
            denominator=denominator,
        )
        output.loss.backward()
        add_metrics(total, output.metrics)
    return total


def _odin_gradient(
    config: RewardConfig,
    odin: OdinConfig,
    model: PreTrainedModel,
    chat: Chat,
    pairs: TrainingPairs,
    index: Sequence[int],
) -> dict[str, Tensor]:
    """As `step_gradient`. A correlation does not add up over micro-batches, so the scores of the whole step come first,
    without their graphs; the gradient at each score is then carried back in a second pass, micro-batch by micro-batch
    (Gao et al. 2021, section 3.2): exact, for the price of one more forward pass."""
    batches = list(paired_batches(pairs.rows, index, chat, model, config.token_budget))
    order = [member for _, members in batches for member in members]
    with torch.no_grad():
        sides = [both_scores(model, batch) for batch, _ in batches]
    scores = torch.stack([torch.cat(side) for side in zip(*sides, strict=True)]).requires_grad_(True)
    lengths = torch.cat([batch.response_mask.sum(1).view(-1, 2) for batch, _ in batches]).t().flatten()
    weights = pairs.weights[order]
    output = bradley_terry_loss(
        *scores.sum(-1),
        targets=pairs.targets[order],
        wanted_margins=pairs.wanted_margins[order],
        weights=weights,
        centering_coef=config.centering_coef,
        denominator=weights.sum(),
    )
    quality, length_scores = scores.flatten(0, 1).unbind(-1)
    both = weights.repeat(2)
    penalty = length_penalty(quality, length_scores, lengths, both)
    (gradient,) = torch.autograd.grad(output.loss + odin.length_coef * penalty, scores)
    start = 0
    for batch, members in batches:
        here = gradient[:, start : start + len(members)]
        start += len(members)
        (torch.stack(both_scores(model, batch)) * here).sum().backward()
    overlap = head_overlap(score_head(model).weight)
    (odin.orthogonality_coef * overlap).backward()
    with torch.no_grad():
        found = correlation(quality, lengths.to(quality.dtype), both)
    return {**output.metrics, "reward/length_correlation": found, "reward/head_overlap": overlap.detach()}
