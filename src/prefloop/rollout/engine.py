"""Sample responses in-process. Each request has its own row of uniforms, so what it says does not depend on the batch
that it runs in, and the logprob of every token is the exact one of the distribution that it was drawn from.

Models that the minimal decoder serves are sampled in slots (`slots.py`); all others with the transformers forward and
its cache: prompts padded on the left, finished rows taken out of the batch. There is no top-p or top-k: a truncated
sampler's distribution is not the policy's.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from prefloop.console import say
from prefloop.models.decoder import InferenceWeights, unsupported
from prefloop.models.precision import compute_dtype, full_precision
from prefloop.rollout.slots import PREFILL_TOKENS, REFILL_SHARE, Slots
from prefloop.rollout.steps import Sampled, Stepper, Written, draw_next

COMPACT_BELOW = 0.75
"""Finished rows are taken out once fewer than this share of the batch is still running."""

HIDDEN_BYTES = 256 * 2**20
"""Largest record of hidden states that is kept for the trainer."""

_said: set[str] = set()


def keeps_hidden(model: PreTrainedModel, num_tokens: int) -> bool:
    """Whether `sample` can keep the last hidden states of so many tokens; then the trainer need not run them again.

    In bf16 a step of the sampler and a whole row differ too much for that.
    """
    in_full = compute_dtype(model.device) == torch.float32
    return in_full and unsupported(model) is None and 4 * num_tokens * model.config.hidden_size <= HIDDEN_BYTES


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
    keep_hidden: bool = False,
) -> list[Sampled]:
    """One response to each prompt (token ids, each at least one), in order. The same seed gives the same responses.

    It computes in the precision of the context (`models/precision.py`). `keep_hidden`: with the last hidden states, of
    a model that `keeps_hidden`.
    """
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(len(prompts), max_new_tokens, generator=generator).to(model.device)
    stops, vocab_size = tuple(stop_ids), model.config.vocab_size
    reason = unsupported(model)
    if reason is None:
        dtype = compute_dtype(model.device)
        with full_precision(model.device):
            weights = InferenceWeights(model, dtype)
            width = model.config.hidden_size if keep_hidden else None
            written = Written(uniforms, temperature, stops, vocab_size, width)
            return _in_slots(weights, prompts, written, num_slots=batch_size)
    if reason not in _said:
        _said.add(reason)
        say(f"sampling with the transformers forward, which is slower: {reason}")
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    results: list[Sampled | None] = [None] * len(prompts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        chosen = [prompts[row] for row in rows]
        for row, sampled in zip(rows, _decode(model, chosen, uniforms[rows], temperature, stops, pad_id), strict=True):
            results[row] = sampled
    return [result for result in results if result is not None]


def _in_slots(
    weights: InferenceWeights, prompts: Sequence[Sequence[int]], written: Written, *, num_slots: int
) -> list[Sampled]:
    """Sample with at most `num_slots` responses in the making at once."""
    # Equal prompts lie together, so that one prefill serves them.
    queue = deque(sorted(range(len(prompts)), key=lambda request: (len(prompts[request]), tuple(prompts[request]))))
    capacity = max(len(prompt) for prompt in prompts) + written.uniforms.shape[1]
    slots = Slots(weights, num_slots=min(num_slots, len(prompts)), capacity=capacity)
    stepper = Stepper(slots, written, on_gpu=weights.device.type == "cuda")
    while queue or slots.num_active:
        if queue and slots.num_free >= min(len(queue), max(1, int(REFILL_SHARE * len(slots.requests)))):
            _refill(slots, queue, prompts, written)
        if slots.num_active:
            stepper.run()
            _release_ended(slots)
    return written.results()


def _refill(slots: Slots, queue: deque[int], prompts: Sequence[Sequence[int]], written: Written) -> None:
    """Take requests from the queue into the free slots; draw the first token of each."""
    while queue and slots.num_free:
        requests = [queue.popleft()]
        distinct = [prompts[requests[0]]]
        while queue and len(requests) < slots.num_free:
            prompt = prompts[queue[0]]
            if prompt != distinct[-1]:
                # Sorted by length: the newcomer is the longest.
                if (len(distinct) + 1) * len(prompt) > PREFILL_TOKENS[slots.weights.device.type]:
                    break
                distinct.append(prompt)
            requests.append(queue.popleft())
        layers, hidden = slots.prefill(distinct)
        places = torch.tensor(_places(requests, prompts), device=hidden.device)
        first = slots.num_active
        slots.take(requests, [len(prompts[request]) for request in requests], layers, places)
        draw_next(slots, written, hidden[places], slice(first, slots.num_active))
        _release_ended(slots)


def _places(requests: Sequence[int], prompts: Sequence[Sequence[int]]) -> list[int]:
    """For each request the place of its prompt among the distinct ones, equal prompts lying together."""
    places = [0]
    for before, request in itertools.pairwise(requests):
        places.append(places[-1] + (prompts[request] != prompts[before]))
    return places


def _release_ended(slots: Slots) -> None:
    """Free the slots whose response has ended."""
    ended = ~slots.running[: slots.num_active]
    if bool(ended.any()):
        slots.release(ended.nonzero().squeeze(-1).tolist())


def _decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor,
    temperature: float,
    stops: Iterable[int],
    pad_id: int,
) -> list[Sampled]:
    """One batch with the transformers forward."""
    device, (size, max_new_tokens) = model.device, uniforms.shape
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    attended = torch.arange(width, device=device) >= (width - lengths)[:, None]
    positions = (attended.long().cumsum(-1) - 1).clamp(min=0)
    rows = torch.arange(size, device=device)
    written = Written(uniforms, temperature, stops, model.config.vocab_size)
    cache: Any = DynamicCache(config=model.config)
    running = torch.ones(size, dtype=torch.bool, device=device)
    for _ in range(max_new_tokens):
        output = model(
            input_ids=ids,
            attention_mask=attended.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        drawn = torch.full((len(rows),), pad_id, device=device)
        drawn[running], ended = written.add(rows[running], output.logits[running, -1])
        running = running.masked_scatter(running, ~ended)
        left = int(running.sum())
        if left == 0:
            break
        ids, positions = drawn[:, None], positions[:, -1:] + 1
        attended = torch.cat([attended, attended.new_ones(len(rows), 1)], dim=1)
        if left < COMPACT_BELOW * len(rows):
            cache.batch_select_indices(running.nonzero().squeeze(-1))
            rows, ids, positions, attended = rows[running], ids[running], positions[running], attended[running]
            running = running[running]
    return written.results()
