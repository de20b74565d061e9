"""Preference pairs as token rows: what reward training and DPO share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.data.read import read_pairs
from prefloop.data.split import conversation_key
from prefloop.models.batching import TokenBatch, collate, micro_batches, runs_of
from prefloop.models.chat import Chat, Encoded
from prefloop.models.forward import head_scores, shares_prompts
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
) -> Iterator[tuple[TokenBatch, list[int]]]:
    """Micro-batches of the pairs `index`: rows chosen, rejected, chosen, rejected, ..., and which pairs they are."""
    sides = [side for row in index for side in rows[row]]
    shared = [
        chosen.prompt_length if shares_prompts(model) and len(runs_of([chosen, rejected])) == 1 else 0
        for chosen, rejected in (rows[row] for row in index)
    ]
    for members in micro_batches(
        [len(side.ids) for side in sides],
        token_budget=token_budget,
        runs=[[row, row + 1] for row in range(0, len(sides), 2)],
        prompt_lengths=[length for length in shared for _ in range(2)],
        keep_runs=True,
    ):
        batch = collate([sides[member] for member in members], pad_id=chat.pad_id, device=model.device)
        yield batch, [index[member // 2] for member in members[::2]]


def both_scores(model: PreTrainedModel, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """[n, K] raw scores by each head of the chosen and of the rejected rows of a batch of `paired_batches`."""
    chosen, rejected = head_scores(model, batch).unflatten(0, (-1, 2)).unbind(1)
    return chosen, rejected


@torch.no_grad()
def pair_scores(model: PreTrainedModel, chat: Chat, rows: Sequence[EncodedPair], *, token_budget: int) -> Tensor:
    """[2, N, K] raw scores of the chosen and of the rejected responses by each of the model's K heads."""
    scores = torch.zeros(2, len(rows), score_head(model).out_features, device=model.device)
    for batch, members in paired_batches(rows, range(len(rows)), chat, model, token_budget):
        scores[0, members], scores[1, members] = both_scores(model, batch)
    return scores
