"""Preference pairs as token rows: what reward training and DPO share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.data.read import read_pairs
from prefloop.data.split import conversation_key
from prefloop.models.batching import TokenBatch, collate, micro_batches
from prefloop.models.chat import Chat, Encoded
from prefloop.models.forward import head_scores
from prefloop.models.load import score_head
from prefloop.train.config import OfflineConfig
from prefloop.train.offline import check_disjoint, hold_out, length_limit, within_length
from prefloop.types import PreferencePair

EncodedPair = tuple[Encoded, Encoded]
"""Chosen and rejected, each prompt + response."""


def load_pairs(config: OfflineConfig, *, keep_ties: bool = False) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Training and held-out pairs: from --eval-data, or a share of the conversations of --data.

    Ties are kept, if at all, among the training pairs only: on a tie nobody is right.
    """
    pairs = read_pairs(config.data, skip_bad=config.skip_bad, keep_ties=keep_ties).records
    if not config.eval_data:
        train, held_out = hold_out(pairs, conversation_key, eval_fraction=config.eval_fraction, seed=config.seed)
        return train, [pair for pair in held_out if not pair.tie]
    held_out = read_pairs(config.eval_data, skip_bad=config.skip_bad).records
    check_disjoint(pairs, held_out)
    return pairs, held_out


def encode_pairs(
    config: OfflineConfig,
    model: PreTrainedModel,
    chat: Chat,
    pairs: Sequence[PreferencePair],
    *,
    may_be_none: bool = False,
) -> tuple[list[PreferencePair], list[EncodedPair]]:
    """Token rows of the pairs whose longer side fits `max_length`."""
    return within_length(
        pairs,
        lambda pair: (
            chat.encode_response(pair.prompt.messages, pair.chosen),
            chat.encode_response(pair.prompt.messages, pair.rejected),
        ),
        lambda row: max(len(side.ids) for side in row),
        lambda pair: pair.place or pair.pair_id,
        limit=length_limit(config.max_length, "max_length", model),
        skip_bad=config.skip_bad,
        what="pairs",
        may_be_none=may_be_none,
    )


def paired_batches(
    rows: Sequence[EncodedPair], index: Sequence[int], chat: Chat, model: PreTrainedModel, token_budget: int
) -> Iterator[tuple[TokenBatch, TokenBatch, list[int]]]:
    """Micro-batches of the pairs `index`: chosen rows, rejected rows, and which pairs they are."""
    lengths = [len(side.ids) for row in index for side in rows[row]]
    for members in micro_batches(lengths, token_budget=token_budget, multiple=2):
        chosen = [index[member // 2] for member in members[::2]]
        yield (
            collate([rows[row][0] for row in chosen], pad_id=chat.pad_id, device=model.device),
            collate([rows[row][1] for row in chosen], pad_id=chat.pad_id, device=model.device),
            chosen,
        )


@torch.no_grad()
def pair_scores(model: PreTrainedModel, chat: Chat, rows: Sequence[EncodedPair], *, token_budget: int) -> Tensor:
    """[2, N, K] raw scores of the chosen and of the rejected responses by each of the model's K heads."""
    scores = torch.zeros(2, len(rows), score_head(model).out_features, device=model.device)
    for chosen, rejected, members in paired_batches(rows, range(len(rows)), chat, model, token_budget):
        scores[0, members], scores[1, members] = head_scores(model, chosen), head_scores(model, rejected)
    return scores
