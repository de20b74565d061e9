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


def micro_batches(lengths: Sequence[int], *, token_budget: int, multiple: int = 1) -> list[list[int]]:
    """Partition rows into micro-batches of similar length whose padded size stays within `token_budget` tokens.

    Runs of `multiple` adjacent rows stay together. A single run longer than the budget gets a micro-batch of its own.
    """
    assert len(lengths) % multiple == 0
    longest = [max(lengths[start : start + multiple]) for start in range(0, len(lengths), multiple)]
    batches: list[list[int]] = []
    width = 0
    for run in sorted(range(len(longest)), key=lambda run: (longest[run], run)):
        members = list(range(run * multiple, (run + 1) * multiple))
        width = longest[run]
        if batches and (len(batches[-1]) + multiple) * width <= token_budget:
            batches[-1] += members
        else:
            batches.append(members)
    return batches
