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
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from prefloop.console import say
from prefloop.models.decoder import InferenceWeights, unsupported
from prefloop.models.precision import compute_dtype, full_precision
from prefloop.rollout.draw import draw
from prefloop.rollout.slots import PREFILL_TOKENS, REFILL_SHARE, Slots

COMPACT_BELOW = 0.75
"""Finished rows are taken out once fewer than this share of the batch is still running."""

HIDDEN_BYTES = 256 * 2**20
"""Largest record of hidden states that is kept for the trainer."""

_said: set[str] = set()


@dataclass(frozen=True)
class Sampled:
    """One sampled response: token ids (stop token included) and the logprob of each."""

    ids: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]
    hidden: Tensor | None = None
    """[len(ids), d] what the head saw before each token, where it was kept."""


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
    stops = torch.tensor(sorted(stop_ids), device=model.device)
    reason = unsupported(model)
    if reason is None:
        dtype = compute_dtype(model.device)
        with full_precision(model.device):
            weights = InferenceWeights(model, dtype)
            width = model.config.hidden_size if keep_hidden else None
            return _in_slots(weights, prompts, _Written(uniforms, temperature, stops, width), num_slots=batch_size)
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


class _Written:
    """What has been sampled of each request."""

    def __init__(self, uniforms: Tensor, temperature: float, stops: Tensor, hidden_size: int | None = None) -> None:
        self.uniforms, self.temperature, self.stops = uniforms, temperature, stops
        self.tokens = torch.zeros(uniforms.shape, dtype=torch.int64, device=uniforms.device)
        self.logprobs = torch.zeros_like(uniforms)
        self.counts = torch.zeros(len(uniforms), dtype=torch.int64, device=uniforms.device)
        self.stopped = torch.zeros(len(uniforms), dtype=torch.bool, device=uniforms.device)
        self.hidden = None if hidden_size is None else torch.empty(*uniforms.shape, hidden_size, device=uniforms.device)

    def add(self, requests: Tensor, logits: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draw the next token of `requests` [N]; the tokens, and whether each response ends with it."""
        places = self.counts[requests]
        if self.hidden is not None and hidden is not None:
            self.hidden[requests, places] = hidden.float()
        drawn, logprobs = draw(logits, self.uniforms[requests, places], temperature=self.temperature)
        self.tokens[requests, places], self.logprobs[requests, places] = drawn, logprobs
        self.counts[requests] += 1
        stops = torch.isin(drawn, self.stops)
        self.stopped[requests] = stops
        return drawn, stops | (places + 1 == self.uniforms.shape[1])

    def results(self) -> list[Sampled]:
        """All responses, in the order of the requests."""
        columns = zip(
            self.tokens.tolist(),
            self.logprobs.tolist(),
            self.counts.tolist(),
            self.stopped.tolist(),
            [None] * len(self.counts) if self.hidden is None else self.hidden,
            strict=True,
        )
        return [
            Sampled(
                ids[:count],
                logprobs[:count],
                "stop" if stopped else "length",
                None if hidden is None else hidden[:count],
            )
            for ids, logprobs, count, stopped, hidden in columns
        ]


def _in_slots(
    weights: InferenceWeights, prompts: Sequence[Sequence[int]], written: _Written, *, num_slots: int
) -> list[Sampled]:
    """Sample with at most `num_slots` responses in the making at once."""
    # Equal prompts lie together, so that one prefill serves them.
    queue = deque(sorted(range(len(prompts)), key=lambda request: (len(prompts[request]), tuple(prompts[request]))))
    capacity = max(len(prompt) for prompt in prompts) + written.uniforms.shape[1]
    slots = Slots(weights, num_slots=min(num_slots, len(prompts)), capacity=capacity)
    while queue or slots.num_active:
        if queue and slots.num_free >= min(len(queue), max(1, int(REFILL_SHARE * len(slots.requests)))):
            _refill(slots, queue, prompts, written)
        if slots.num_active:
            _advance(slots, written, slots.step())
    return written.results()


def _refill(slots: Slots, queue: deque[int], prompts: Sequence[Sequence[int]], written: _Written) -> None:
    """Take requests from the queue into the free slots; draw the first token of each."""
    while queue and slots.num_free:
        requests = [queue.popleft()]
        distinct = [prompts[requests[0]]]
        while queue and len(requests) < slots.num_free:
            prompt = prompts[queue[0]]
            if prompt != distinct[-1]:
                # Sorted by length: the newcomer is the longest.
                if (len(distinct) + 1) * len(prompt) > PREFILL_TOKENS:
                    break
                distinct.append(prompt)
            requests.append(queue.popleft())
        prefilled, hidden = slots.prefill(distinct)
        places = _places(requests, prompts)
        first = slots.num_active
        slots.take(requests, [prefilled[place] for place in places])
        _advance(slots, written, hidden[places], first=first)


def _places(requests: Sequence[int], prompts: Sequence[Sequence[int]]) -> list[int]:
    """For each request the place of its prompt among the distinct ones, equal prompts lying together."""
    places = [0]
    for before, request in itertools.pairwise(requests):
        places.append(places[-1] + (prompts[request] != prompts[before]))
    return places


def _advance(slots: Slots, written: _Written, hidden: Tensor, *, first: int = 0) -> None:
    """Draw the next token of the active slots from `first` on, whose last hidden states are `hidden`, and free those
    whose response ends."""
    active = slice(first, slots.num_active)
    drawn, ended = written.add(slots.requests[active], slots.weights.logits(hidden), hidden)
    slots.next_ids[active] = drawn
    if bool(ended.any()):
        slots.release((ended.nonzero().squeeze(-1) + first).tolist())


def _decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor,
    temperature: float,
    stops: Tensor,
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
    written = _Written(uniforms, temperature, stops)
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
