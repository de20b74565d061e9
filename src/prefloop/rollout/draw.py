"""One token a row from logits, by inverse CDF, with its exact log-probability."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128
"""Words whose probabilities are summed before the search: it looks through the sums first, then through one block."""


def draw(logits: Tensor, uniforms: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """[N, V] logits and [N] uniforms in [0, 1) -> [N] ids and their [N] exact logprobs, in fp32.

    The token is the first whose cumulative probability exceeds the uniform. Temperature 0 takes the most likely token,
    with its probability at temperature 1.
    """
    scaled = logits.float() if temperature in (0, 1) else logits.float() / temperature
    largest = scaled.amax(dim=-1, keepdim=True)
    masses = (scaled - largest).exp_()
    # Sums of blocks in fp32, sums of these in fp64: to convert every mass would take longer than the exponentials.
    padded = F.pad(masses, (0, -masses.shape[1] % BLOCK)).view(len(masses), -1, BLOCK)
    sums = padded.sum(dim=-1).double().cumsum(dim=-1)
    total = sums[:, -1]
    tokens = _search(padded, sums, uniforms.double() * total) if temperature else scaled.argmax(dim=-1)
    chosen = (scaled.gather(-1, tokens[:, None]) - largest).squeeze(-1)
    return tokens, (chosen.double() - total.log()).float()


def _search(masses: Tensor, sums: Tensor, target: Tensor) -> Tensor:
    """[N] places of the first cumulative mass above the target [N]; of [N, blocks, BLOCK] masses and cumulative sums
    [N, blocks] of their blocks."""
    block = (sums <= target[:, None]).sum(dim=-1).clamp(max=sums.shape[1] - 1)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)[:, None]).squeeze(1), 0.0)
    inside = masses[torch.arange(len(masses), device=masses.device), block]
    place = (inside.double().cumsum(dim=-1) <= (target - before)[:, None]).sum(dim=-1)
    # Sums of one block in another order may fall short by a rounding error: then its likeliest word is taken.
    place = torch.where(place < BLOCK, place, inside.argmax(dim=-1))
    tokens: Tensor = block * BLOCK + place
    return tokens
