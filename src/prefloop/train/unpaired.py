"""Labelled responses as token rows, for KTO: each beside a response to another prompt, for the reference point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from transformers import PreTrainedModel

from prefloop.data.read import read_pairs, read_unpaired
from prefloop.models.batching import TokenBatch, collate, micro_batches
from prefloop.models.chat import Chat, Encoded
from prefloop.train.config import OfflineConfig
from prefloop.train.offline import check_disjoint, hold_out, length_limit, pair_files, within_length
from prefloop.train.pairs import EncodedPair
from prefloop.types import InputError, LabelledResponse, PreferencePair


def load_responses(config: OfflineConfig) -> tuple[list[LabelledResponse], list[LabelledResponse]]:
    """Training and held-out responses: from --eval-data, or a share of the prompts of --data."""
    responses = read_responses(config.data, skip_bad=config.skip_bad)
    if not config.eval_data:
        return hold_out(
            responses, lambda row: row.prompt.prompt_id, eval_fraction=config.eval_fraction, seed=config.seed
        )
    held_out = read_responses(config.eval_data, skip_bad=config.skip_bad)
    check_disjoint(responses, held_out)
    return responses, held_out


def read_responses(sources: Sequence[str], *, skip_bad: bool) -> list[LabelledResponse]:
    """Labelled responses of each file. A file of pairs gives two a pair: chosen is desirable, rejected is not."""
    found: list[LabelledResponse] = []
    for source in sources:
        if pair_files([source]):
            for pair in read_pairs([source], skip_bad=skip_bad).records:
                found += [_side(pair, pair.chosen, label=True), _side(pair, pair.rejected, label=False)]
        else:
            found += read_unpaired([source], skip_bad=skip_bad).records
    return found


def _side(pair: PreferencePair, response: str, *, label: bool) -> LabelledResponse:
    return LabelledResponse(
        f"{pair.pair_id}-{'chosen' if label else 'rejected'}",
        pair.prompt,
        response,
        label,
        source=pair.source,
        weight=pair.weight,
        annotator_id=pair.annotator_id,
        place=pair.place,
    )


def encode_responses(
    config: OfflineConfig,
    model: PreTrainedModel,
    chat: Chat,
    responses: Sequence[LabelledResponse],
    *,
    may_be_none: bool = False,
) -> tuple[list[LabelledResponse], list[EncodedPair]]:
    """Token rows of the responses that fit `max_length`, each with its prompt before a response to another prompt."""
    limit = length_limit(config.max_length, "max_length", model)
    kept, rows = within_length(
        responses,
        lambda row: chat.encode_response(row.prompt.messages, row.response),
        lambda row: len(row.ids),
        lambda row: row.place or row.response_id,
        limit=limit,
        skip_bad=config.skip_bad,
        what="responses",
        may_be_none=may_be_none,
    )
    prompts = [row.prompt.prompt_id for row in kept]
    others = mismatched(rows, prompts, seed=config.seed, most_tokens=limit.num_tokens)
    return kept, list(zip(rows, others, strict=True))


def check_labels(config: OfflineConfig, responses: Sequence[LabelledResponse]) -> None:
    """Raise InputError unless there are both kinds of response, and two prompts."""
    path = config.data[0] if len(config.data) == 1 else None
    labels = {row.label for row in responses}
    if len(labels) == 1:
        kind = "true" if labels.pop() else "false"
        remedy = "KTO needs desirable and undesirable responses" + (
            "; to imitate desirable ones alone, use prefloop train sft" if kind == "true" else ""
        )
        problem = f"all {len(responses)} responses to train on are labelled {kind}"
        raise InputError(problem, path=path, field="label", remedy=remedy)
    if len({row.prompt.prompt_id for row in responses}) == 1:
        raise InputError(
            f"all {len(responses)} responses to train on answer one prompt",
            path=path,
            field="prompt",
            remedy="KTO's reference point needs responses to other prompts: give more prompts",
        )


def mismatched(rows: Sequence[Encoded], prompts: Sequence[str], *, seed: int, most_tokens: int) -> list[Encoded]:
    """The prompt of each row before the response of another row: the next one with another prompt, in an order drawn
    from `seed`. What goes beyond `most_tokens` is cut off. Rows of a single prompt keep a response to it.

    The partner of a row is the same in every step, so that the reference sees it once.
    """
    num_rows = len(rows)
    order = [int(row) for row in np.random.default_rng(seed).permutation(num_rows)] * 2
    partner: dict[int, int] = {}
    following = order[-1] if order else -1
    # Backwards through the order taken twice: the second pass knows what comes after the end.
    for place in range(len(order) - 2, -1, -1):
        row, after = order[place], order[place + 1]
        if prompts[after] != prompts[row]:
            following = after
        partner[row] = following
    return [_with_response(rows[row], rows[partner.get(row, row)], most_tokens) for row in range(num_rows)]


def _with_response(prompt: Encoded, response: Encoded, most_tokens: int) -> Encoded:
    begin, answer = prompt.mask.index(True), response.mask.index(True)
    ids = prompt.ids[:begin] + response.ids[answer:]
    mask = prompt.mask[:begin] + response.mask[answer:]
    return Encoded(ids[:most_tokens], mask[:most_tokens])


def batches_of(
    rows: Sequence[Encoded], chat: Chat, model: PreTrainedModel, token_budget: int
) -> Iterator[tuple[TokenBatch, list[int]]]:
    """Micro-batches of rows, and which rows they are."""
    for members in micro_batches([len(row.ids) for row in rows], token_budget=token_budget):
        yield collate([rows[row] for row in members], pad_id=chat.pad_id, device=model.device), members
