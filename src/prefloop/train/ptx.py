"""PPO-ptx: the likelihood of demonstrations or of plain text, held up beside the reward (Ouyang et al. 2022, eq. 2).

Plain text is cut at the ends of its paragraphs where they fit, and carries no chat template: it stands for the
pretraining data of the paper.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from prefloop.data.read import read_demonstrations
from prefloop.functional.losses import nll_loss
from prefloop.models.batching import collate, micro_batches
from prefloop.models.chat import Chat, Encoded
from prefloop.models.forward import response_logprobs
from prefloop.train.loop import rows_of_step
from prefloop.types import InputError

TEXT_SUFFIXES = (".txt", ".txt.gz")


class Mixture:
    """Rows whose likelihood is trained beside the reward."""

    def __init__(self, rows: Sequence[Encoded], chat: Chat, *, batch_size: int, coef: float, token_budget: int) -> None:
        self.rows, self.chat, self.batch_size, self.coef, self.token_budget = rows, chat, batch_size, coef, token_budget

    def backward(self, model: PreTrainedModel, *, update: int, seed: int) -> float:
        """Add the gradient of coef x mean negative log-likelihood of the batch of optimiser step `update` (0, 1, ...).

        Answers that mean, in nats per token.
        """
        size = min(self.batch_size, len(self.rows))
        index = rows_of_step(update, num_rows=len(self.rows), batch_size=size, seed=seed)
        rows = [self.rows[row] for row in index]
        denominator = sum(sum(row.mask) for row in rows)
        total = 0.0
        for members in micro_batches([len(row.ids) for row in rows], token_budget=self.token_budget):
            batch = collate([rows[row] for row in members], pad_id=self.chat.pad_id, device=model.device)
            loss = nll_loss(response_logprobs(model, batch), batch.response_mask, denominator=denominator).loss
            torch.autograd.backward(self.coef * loss)
            total += float(loss.detach())
        return total


def read_mixture(sources: Sequence[str], chat: Chat, *, max_length: int, skip_bad: bool) -> list[Encoded]:
    """The rows of demonstration files and of text files, at most `max_length` tokens each.

    Raises InputError for a row that cannot be used or is too long, and where nothing is left.
    """
    rows: list[Encoded] = []
    for source in sources:
        if source.endswith(TEXT_SUFFIXES):
            rows += text_rows(Path(source), chat, max_length=max_length)
            continue
        for record in read_demonstrations([source], skip_bad=skip_bad).records:
            row = chat.encode((*record.prompt, *record.completion), num_context=len(record.prompt))
            if len(row.ids) > max_length and not skip_bad:
                problem = f"{record.place or record.demonstration_id} has {len(row.ids)} tokens, more than {max_length}"
                remedy = "raise max_prompt_length, or leave such rows out with --skip-bad"
                raise InputError(problem, field="ptx_data", remedy=remedy)
            if len(row.ids) <= max_length:
                rows.append(row)
    if not rows:
        raise InputError("no row of these files can be used", field="ptx_data")
    return rows


def text_rows(path: Path, chat: Chat, *, max_length: int) -> list[Encoded]:
    """Plain text as rows of at most `max_length` tokens, every token but the first of a row counting."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as UTF-8 text ({error})", path=path, field="ptx_data") from error
    rows = []
    for piece in _pieces(text):
        ids = chat.plain_ids(piece)
        # The shortest pieces of equal length, so that no row is a stump.
        size = math.ceil(len(ids) / max(1, math.ceil(len(ids) / max_length)))
        rows += [Encoded(part, [False] + [True] * (len(part) - 1)) for part in _cut(ids, size) if len(part) > 1]
    return rows


def _pieces(text: str, *, num_characters: int = 2000) -> Iterator[str]:
    """Paragraphs, joined to pieces of at least `num_characters` each (but the last)."""
    piece = ""
    for paragraph in text.split("\n\n"):
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
        if len(piece) >= num_characters:
            yield piece
            piece = ""
    if piece.strip():
        yield piece


def _cut(ids: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(ids), max(1, size)):
        yield list(ids[start : start + size])
