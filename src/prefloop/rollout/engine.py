"""Sample responses in-process with the transformers forward and its cache.

Prompts are padded on the left within a batch; rows that stopped are taken out of the batch and the cache. Each request
has its own row of uniforms, so what it says does not depend on the batch that it runs in. The logprob of every token
is the exact one of the distribution that it was drawn from. There is no top-p or top-k: a truncated sampler's
distribution is not the policy's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

COMPACT_BELOW = 0.75
"""Finished rows are taken out once fewer than this share of the batch is still running."""


@dataclass(frozen=True)
class Sampled:
    """One sampled response: token ids (stop token included) and the logprob of each."""

    ids: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]


def draw(logits: Tensor, uniforms: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Inverse-CDF sampling: [B, V] logits and [B] uniforms -> [B] ids and their [B] exact logprobs.

    Temperature 0 takes the most likely token.
    """
    if temperature == 0:
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        tokens = logprobs.argmax(dim=-1)
    else:
        logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
        cdf = logprobs.double().exp().cumsum(dim=-1)
        tokens = torch.searchsorted(cdf, uniforms[:, None].double() * cdf[:, -1:], right=True).squeeze(-1)
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    stop_ids: Iterable[int],
    pad_id: int,
    seed: int,
    batch_size: int = 256,
) -> list[Sampled]:
    """One response to each prompt (token ids, each at least one), in order. The same seed gives the same responses."""
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(len(prompts), max_new_tokens, generator=generator).to(model.device)
    stops = torch.tensor(sorted(stop_ids), device=model.device)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    results: list[Sampled | None] = [None] * len(prompts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        chosen = [prompts[row] for row in rows]
        for row, sampled in zip(rows, _decode(model, chosen, uniforms[rows], temperature, stops, pad_id), strict=True):
            results[row] = sampled
    return [result for result in results if result is not None]


def _decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor,
    temperature: float,
    stops: Tensor,
    pad_id: int,
) -> list[Sampled]:
    device, (size, max_new_tokens) = model.device, uniforms.shape
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    attended = torch.arange(width, device=device) >= (width - lengths)[:, None]
    tokens = torch.full((size, max_new_tokens), pad_id, device=device)
    logprobs = torch.zeros(size, max_new_tokens, device=device)
    counts = torch.full((size,), max_new_tokens, device=device)
    stopped = torch.zeros(size, dtype=torch.bool, device=device)
    rows = torch.arange(size, device=device)
    positions = (attended.long().cumsum(-1) - 1).clamp(min=0)
    cache: Any = DynamicCache(config=model.config)
    for step in range(max_new_tokens):
        output = model(
            input_ids=ids,
            attention_mask=attended.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        drawn, chosen_logprobs = draw(output.logits[:, -1], uniforms[rows, step], temperature=temperature)
        running = ~stopped[rows]
        alive = rows[running]
        tokens[alive, step], logprobs[alive, step] = drawn[running], chosen_logprobs[running]
        ended = alive[torch.isin(drawn[running], stops)]
        stopped[ended], counts[ended] = True, step + 1
        running = ~stopped[rows]
        left = int(running.sum())
        if left == 0:
            break
        ids, positions = drawn[:, None], positions[:, -1:] + 1
        attended = torch.cat([attended, attended.new_ones(len(rows), 1)], dim=1)
        if left < COMPACT_BELOW * len(rows):
            cache.batch_select_indices(running.nonzero().squeeze(-1))
            rows, ids, positions, attended = rows[running], ids[running], positions[running], attended[running]
    return [
        Sampled(tokens[row, :count].tolist(), logprobs[row, :count].tolist(), "stop" if stopped[row] else "length")
        for row, count in enumerate(counts.tolist())
    ]
