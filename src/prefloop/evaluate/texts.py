"""Held-out text, and how surprising a model finds it: what a tuned model may lose while it learns to please."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from prefloop.data.rows import Row, describe
from prefloop.evaluate.rows import read_rows
from prefloop.models.batching import collate, micro_batches
from prefloop.models.chat import Chat, Encoded
from prefloop.models.forward import response_logprobs
from prefloop.models.load import max_positions
from prefloop.types import InputError

LONGEST_WINDOW = 1024
"""Tokens that are read at once where the model's config names no limit, or a larger one."""


@dataclass(frozen=True)
class Surprise:
    """What a model makes of one text."""

    nats: float
    """-log probability of all its tokens but the first."""
    tokens: int
    """How many those are."""


def read_texts(path: str, *, skip_bad: bool) -> list[str]:
    """The texts of a file: rows with `text`, or the paragraphs of a .txt file. Raises InputError without any."""
    if Path(path).suffix == ".txt":
        try:
            whole = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputError("no such file", path=path, field="texts") from None
        except UnicodeDecodeError as error:
            raise InputError("not UTF-8", path=path, field="texts", remedy="save the file as UTF-8") from error
        paragraphs = [part.strip() for part in re.split(r"\n\s*\n", whole) if part.strip()]
        if not paragraphs:
            raise InputError("the file holds no text", path=path, field="texts")
        return paragraphs

    def parse(row: Row) -> str:
        text = row.values.get("text")
        if not isinstance(text, str) or not text.strip():
            problem = "is missing" if "text" not in row.values else f"is {describe(text)}" if text else "is empty"
            raise InputError(problem, field="text", remedy="give one text a row")
        return text

    return read_rows(path, parse, skip_bad=skip_bad)[0]


@torch.no_grad()
def surprises(model: PreTrainedModel, chat: Chat, texts: Sequence[str], *, token_budget: int) -> list[Surprise]:
    """How surprising each text is, in order; no chat template around it.

    A text longer than the model's positions is read in pieces, each of which begins with the last token of the one
    before it.
    """
    window = min(max_positions(model) or LONGEST_WINDOW, LONGEST_WINDOW)
    pieces: list[Encoded] = []
    owner: list[int] = []
    for place, text in enumerate(texts):
        ids = chat.plain_ids(text)
        for start in range(0, len(ids) - 1, window - 1):
            part = ids[start : start + window]
            pieces.append(Encoded(part, [False] + [True] * (len(part) - 1)))
            owner.append(place)
    nats, tokens = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
    for index in micro_batches([len(piece.ids) for piece in pieces], token_budget=token_budget):
        batch = collate([pieces[row] for row in index], pad_id=chat.pad_id, device=model.device)
        sums = response_logprobs(model, batch).double().sum(dim=1).tolist()
        for row, logprob in zip(index, sums, strict=True):
            nats[owner[row]] -= logprob
            tokens[owner[row]] += len(pieces[row].ids) - 1
    return [Surprise(float(each), int(count)) for each, count in zip(nats, tokens, strict=True)]
