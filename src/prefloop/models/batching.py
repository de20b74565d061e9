"""Rows of different length -> right-padded tensors, in micro-batches under a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefloop.models.chat import Encoded


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Right-padded token rows. `response_mask` is True on answer tokens; padding is known from `lengths` alone."""

    input_ids: Tensor
    """[B, T] int64."""
    lengths: Tensor
    """[B] int64."""
    response_mask: Tensor
    """[B, T] bool."""

    @property
    def prompt_lengths(self) -> Tensor:
        """[B] tokens before the first answer token; 0 where there is no answer."""
        return self.response_mask.int().argmax(1)

    def rows(self, index: Tensor) -> TokenBatch:
        """The chosen rows, cut to the longest of them."""
        longest = int(self.lengths[index].max())
        return TokenBatch(self.input_ids[index, :longest], self.lengths[index], self.response_mask[index, :longest])


def collate(rows: Sequence[Encoded], *, pad_id: int, device: torch.device | str = "cpu") -> TokenBatch:
    """Pad `rows` on the right to the longest."""
    longest = max(len(row.ids) for row in rows)
    ids = [row.ids + [pad_id] * (longest - len(row.ids)) for row in rows]
    mask = [row.mask + [False] * (longest - len(row.mask)) for row in rows]
    return TokenBatch(
        torch.tensor(ids, device=device),
        torch.tensor([len(row.ids) for row in rows], device=device),
        torch.tensor(mask, dtype=torch.bool, device=device),
    )


def runs_of(rows: Sequence[Encoded]) -> list[list[int]]:
    """The rows by number, neighbours with the same prompt in one run."""
    runs: list[list[int]] = []
    before: list[int] = []
    for number, row in enumerate(rows):
        prompt = row.ids[: row.prompt_length]
        if prompt and prompt == before:
            runs[-1].append(number)
        else:
            runs.append([number])
        before = prompt
    return runs


def micro_batches(
    lengths: Sequence[int],
    *,
    token_budget: int,
    runs: Sequence[Sequence[int]] | None = None,
    prompt_lengths: Sequence[int] | None = None,
    keep_runs: bool = False,
) -> list[list[int]]:
    """Partition rows into micro-batches of similar length whose padded size stays within `token_budget` tokens.

    The rows of one of the `runs` stay together while they fit (with `keep_runs` always), in their order; without `runs`
    each row is one. With `prompt_lengths` the rows of a run share a prompt of that length, which counts once. A run
    longer than the budget gets a micro-batch of its own.
    """
    shaped: list[tuple[int, int, Sequence[int]]] = []
    for run in runs if runs is not None else [[row] for row in range(len(lengths))]:
        prompt = prompt_lengths[run[0]] if prompt_lengths is not None and len(run) > 1 else 0
        rest = max(lengths[row] for row in run) - prompt
        if keep_runs or len(run) == 1 or prompt + len(run) * rest <= token_budget:
            shaped.append((prompt, rest, run))
        else:
            shaped += [(0, lengths[row], [row]) for row in run]
    batches: list[list[int]] = []
    num_prompts = longest_prompt = longest_rest = 0
    for prompt, rest, run in sorted(shaped, key=lambda shape: (shape[0] + shape[1], shape[2][0])):
        num_prompts += prompt > 0
        longest_prompt, longest_rest = max(longest_prompt, prompt), max(longest_rest, rest)
        size = num_prompts * longest_prompt + (len(batches[-1]) + len(run)) * longest_rest if batches else 0
        if batches and size <= token_budget:
            batches[-1] += run
        else:
            batches.append(list(run))
            num_prompts, longest_prompt, longest_rest = int(prompt > 0), prompt, rest
    return batches
