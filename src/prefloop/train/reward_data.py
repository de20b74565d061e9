"""The pairs that a reward model is trained on: remedies applied, and what the loss needs to know of each pair."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.console import say
from prefloop.functional.losses import label_targets
from prefloop.models.chat import Chat
from prefloop.train.config import RewardConfig, RewardMemberConfig
from prefloop.train.pairs import EncodedPair, encode_pairs
from prefloop.train.remedies import (
    bootstrap_counts,
    effective_share,
    habit_pairs,
    length_balance_weights,
    mismatched_pairs,
    neutral_pairs,
)
from prefloop.train.reward_settings import HeadsConfig
from prefloop.types import InputError, PreferencePair

_MISMATCHED, _NEUTRAL, _BOOTSTRAP, _HABITS = 1, 2, 3, 4
"""Streams of random numbers, apart from each other at one seed."""


@dataclass(frozen=True, eq=False)
class TrainingPairs:
    """Token rows of N pairs, and for each of them (all tensors [N], on the model's device):"""

    rows: list[EncodedPair]
    weights: Tensor
    targets: Tensor
    """`label_targets` of the labels."""
    wanted_margins: Tensor
    heads: Tensor
    """int64: the number of the head that it trains."""


def training_seed(config: RewardConfig) -> int:
    """Seed of head, data order and augmentation. Member 0 of an ensemble is what the same command makes without one;
    which pairs are held out depends on `config.seed` alone."""
    return config.seed + 1_000_003 * (config.member if isinstance(config, RewardMemberConfig) else 0)


def training_pairs(
    config: RewardConfig, model: PreTrainedModel, chat: Chat, pairs: Sequence[PreferencePair]
) -> TrainingPairs:
    """The pairs as training sees them. Raises InputError for a remedy that has nothing to work on."""
    _require_effect(config, pairs)
    given, rows = encode_pairs(config, model, chat, pairs)
    weights = [pair.weight for pair in given]
    if isinstance(config, RewardMemberConfig) and config.members is not None and config.members.by == "bootstrap":
        counts = bootstrap_counts(given, seed=[_BOOTSTRAP, training_seed(config)])
        weights = [weight * count for weight, count in zip(weights, counts, strict=True)]
    if config.length_balance:
        longer = [0 if pair.tie else len(pair.chosen) - len(pair.rejected) for pair in given]
        weights = length_balance_weights(longer, weights)
        if not any(weights):
            problem = "leaves no pair: the longer response wins everywhere, or nowhere"
            raise InputError(problem, field="length_balance", remedy="leave it out")
        say(f"length balance: worth {effective_share(weights):.0%} of {len(weights)} pairs of one weight")
    counted = [place for place, weight in enumerate(weights) if weight]
    weighted = [dataclasses.replace(given[place], weight=weights[place]) for place in counted]
    rows = [rows[place] for place in counted]
    added = _counterfactuals(config, weighted)
    if added:
        kept, added_rows = encode_pairs(
            config.model_copy(update={"skip_bad": True}), model, chat, added, may_be_none=True
        )
        weighted, rows = weighted + kept, rows + added_rows
        say(f"added {len(kept)} counterfactual pairs")
    return _as_tensors(config, model, weighted, rows)


def _require_effect(config: RewardConfig, pairs: Sequence[PreferencePair]) -> None:
    """Raise InputError for a setting without effect on these pairs."""
    if config.margin_coef and all(pair.strength is None for pair in pairs):
        raise InputError(
            "has no effect: no pair has a strength",
            field="margin_coef",
            remedy="leave it out, or give the rows a strength",
        )
    if config.soft_ties and not any(pair.tie for pair in pairs):
        raise InputError("has no effect: there is no tie", field="soft_ties", remedy="leave it out")


def _counterfactuals(config: RewardConfig, pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    seed, augment = training_seed(config), config.augment
    return [
        *mismatched_pairs(pairs, augment.mismatched_fraction, seed=[_MISMATCHED, seed]),
        *neutral_pairs(pairs, augment.neutral_fraction, seed=[_NEUTRAL, seed]),
        *habit_pairs(pairs, augment.habits, augment.habit_fraction, seed=[_HABITS, seed]),
    ]


def _as_tensors(
    config: RewardConfig, model: PreTrainedModel, pairs: Sequence[PreferencePair], rows: list[EncodedPair]
) -> TrainingPairs:
    labels = torch.tensor([0.5 if pair.tie else 1.0 for pair in pairs], device=model.device)
    margins = [config.margin_coef * (pair.strength or 0.0) for pair in pairs]
    if any(margin < 0 for margin in margins):
        pair = pairs[next(place for place, margin in enumerate(margins) if margin < 0)]
        raise InputError("is below 0", path=pair.place or None, field="strength", remedy="swap the responses")
    return TrainingPairs(
        rows,
        torch.tensor([pair.weight for pair in pairs], device=model.device),
        label_targets(labels, label_smoothing=config.label_smoothing, noise_rate=config.noise_rate),
        torch.tensor(margins, device=model.device),
        torch.tensor(head_numbers(config.heads, pairs), device=model.device),
    )


def head_numbers(heads: HeadsConfig | None, pairs: Sequence[PreferencePair]) -> list[int]:
    """The number of the head that each pair trains: of its dimension, or 0. Raises InputError for another dimension."""
    if heads is None:
        return [0] * len(pairs)
    numbers = []
    for pair in pairs:
        name = pair.source if heads.column == "source" else pair.prompt.columns.get(heads.column)
        if name not in heads.names:
            problem = "missing" if name in (None, "") else f"is {name!r}, which heads.names has not"
            remedy = f"give one of {', '.join(heads.names)}"
            raise InputError(problem, path=pair.place or None, field=heads.column, remedy=remedy)
        numbers.append(heads.names.index(str(name)))
    return numbers
