"""Sampling with the minimal decoder: a fixed set of slots, each with its part of the key-value cache.

A slot holds one response in the making. Prompts are run once, however many responses are to be sampled to them. A slot
whose response ends takes the next request from the queue; once the queue is empty the last slot moves into its place:
every step runs on full rows only. Each request has its own row of uniforms: what it says depends neither on how many
slots there are nor on the order in which they become free.

A step changes tensors in place and asks the device for nothing, so that on a GPU several can be queued, or recorded
and played again (`steps.py`); a slot whose response has ended runs idle until the host looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from prefloop.models.decoder import InferenceWeights

PREFILL_TOKENS = {"cpu": 1024, "cuda": 4096}
"""Padded prompt tokens that are run at once. On a CPU more take more memory and no less time."""
REFILL_SHARE = 0.125
"""Free slots, as a share of all, that are filled together: few large prefills are faster than many small ones."""


class Slots:
    """The cache and what is going on in each slot. The first `num_active` slots are in use."""

    def __init__(self, weights: InferenceWeights, *, num_slots: int, capacity: int) -> None:
        shape = weights.shape
        size = (len(weights.layers), 2, num_slots, shape.num_kv_heads, capacity, shape.head_width)
        self.weights = weights
        self.cache = torch.zeros(size, dtype=weights.dtype, device=weights.device)
        """Keys and values of each layer."""
        self.cos, self.sin = weights.rotations(capacity)
        self.columns = torch.arange(capacity, device=weights.device)
        self.rows = torch.arange(num_slots, device=weights.device)
        self.num_active = 0
        self.requests = torch.zeros(num_slots, dtype=torch.int64, device=weights.device)
        """Which request each slot serves."""
        self.lengths = torch.zeros_like(self.requests)
        """Tokens in the cache of each slot."""
        self.next_ids = torch.zeros_like(self.requests)
        """The token that each slot reads next; it is not in the cache yet."""
        self.running = torch.zeros(num_slots, dtype=torch.bool, device=weights.device)
        """Which slots have a response in the making. The host frees those that have ended."""

    @property
    def num_free(self) -> int:
        """How many requests can be taken in."""
        return len(self.requests) - self.num_active

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[list[Tensor], Tensor]:
        """What the cache holds of N prompts in each layer, [N, 2, kv_heads, longest, width], and the last hidden
        states after them, [N, d]."""
        weights = self.weights
        shape = weights.shape
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=weights.device)
        width = int(lengths.max())
        ids = torch.zeros(len(prompts), width, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        x = F.embedding(ids.to(weights.device), weights.embedding)
        cos, sin = self.cos[:width, None], self.sin[:width, None]
        layers = []
        grouped = shape.num_kv_heads != shape.num_heads
        for layer in weights.layers:
            q, kept = weights.qkv(layer, x, cos, sin)
            q, kept = q.transpose(1, 2), kept.unflatten(2, (2, -1)).permute(0, 2, 3, 1, 4)
            k, v = kept.unbind(1)
            # Padding stands on the right: no real position sees it.
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
            x = weights.after_attention(layer, x, mixed.transpose(1, 2).flatten(2))
            layers.append(kept)
        last = x[torch.arange(len(prompts), device=weights.device), lengths - 1]
        return layers, weights.last_hidden(last)

    def take(self, requests: Sequence[int], lengths: Sequence[int], layers: Sequence[Tensor], rows: Tensor) -> None:
        """Put requests into free slots, with prompts of `lengths` tokens that are the `rows` of what `prefill` gave."""
        taken = slice(self.num_active, self.num_active + len(requests))
        for cache, kept in zip(self.cache, layers, strict=True):
            cache[:, taken, :, : kept.shape[3]] = kept[rows].transpose(0, 1)
        self.num_active += len(requests)
        self.requests[taken] = torch.tensor(requests, device=self.requests.device)
        self.lengths[taken] = torch.tensor(lengths, device=self.requests.device)
        self.running[taken] = True

    def step(self, number: int, longest: int) -> Tensor:
        """Read one token in each of the first `number` slots, none of which then holds more than `longest`.

        Answers [number, d] last hidden states after it.
        """
        weights = self.weights
        shape = weights.shape
        places = self.lengths[:number]
        unseen = (self.columns[:longest] > places[:, None]).view(number, 1, 1, longest)
        bias = torch.zeros(unseen.shape, dtype=weights.dtype, device=weights.device).masked_fill_(unseen, -torch.inf)
        x = F.embedding(self.next_ids[:number], weights.embedding)
        cos, sin = self.cos[places, None], self.sin[places, None]
        rows = self.rows[:number]
        for layer, cache in zip(weights.layers, self.cache, strict=True):
            q, kept = weights.qkv(layer, x, cos, sin)
            cache[:, rows, :, places] = kept.unflatten(1, (2, -1))
            keys, values = cache[:, :number, :, :longest]
            # The queries of one group of heads share their keys: [rows, kv_heads, queries a head, width].
            q = q.reshape(number, shape.num_kv_heads, -1, shape.head_width) * shape.head_width**-0.5
            scores = (q @ keys.transpose(-1, -2)).add_(bias)
            mixed = scores.softmax(dim=-1) @ values
            x = weights.after_attention(layer, x, mixed.flatten(1))
        # An idle slot writes in the same place again and again, which nothing reads.
        self.lengths[:number] += self.running[:number]
        return weights.last_hidden(x)

    def release(self, slots: Sequence[int]) -> None:
        """Free slots: the last active ones move into the places of those that end."""
        for slot in sorted(slots, reverse=True):
            last = self.num_active - 1
            if slot != last:
                length = int(self.lengths[last])
                self.cache[:, :, slot, :, :length] = self.cache[:, :, last, :, :length]
                for column in (self.requests, self.lengths, self.next_ids, self.running):
                    column[slot] = column[last]
            self.running[last] = False
            self.lengths[last] = 0
            self.num_active = last
