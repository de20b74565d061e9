"""Sampling with the minimal decoder: a fixed set of slots, each with its part of the key-value cache.

A slot holds one response in the making. Prompts are run once, however many responses are to be sampled to them. A slot
whose response ends takes the next request from the queue; once the queue is empty the last slot moves into its place:
every step runs on full rows only. Each request has its own row of uniforms: what it says depends neither on how many
slots there are nor on the order in which they become free.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from prefloop.models.decoder import InferenceWeights

PREFILL_TOKENS = 4096
"""Padded prompt tokens that are run at once."""
REFILL_SHARE = 0.125
"""Free slots, as a share of all, that are filled together: few large prefills are faster than many small ones."""


class Slots:
    """The cache and what is going on in each slot. The first `num_active` slots are in use."""

    def __init__(self, weights: InferenceWeights, *, num_slots: int, capacity: int) -> None:
        shape = weights.shape
        size = (len(weights.layers), num_slots, shape.num_kv_heads, capacity, shape.head_width)
        self.weights = weights
        self.keys = torch.zeros(size, dtype=weights.dtype, device=weights.device)
        self.values = torch.zeros_like(self.keys)
        self.cos, self.sin = weights.rotations(capacity)
        self.num_active = 0
        self.requests = torch.zeros(num_slots, dtype=torch.int64, device=weights.device)
        """Which request each slot serves."""
        self.lengths = torch.zeros_like(self.requests)
        """Tokens in the cache of each slot."""
        self.next_ids = torch.zeros_like(self.requests)
        """The token that each slot reads next; it is not in the cache yet."""

    @property
    def num_free(self) -> int:
        """How many requests can be taken in."""
        return len(self.requests) - self.num_active

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Keys and values of prompts, [layers, kv_heads, length, width] each, and the logits after them, [N, V]."""
        weights = self.weights
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=weights.device)
        width = int(lengths.max())
        ids = torch.zeros(len(prompts), width, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        x = F.embedding(ids.to(weights.device), weights.embedding)
        cos, sin = self.cos[:width, None], self.sin[:width, None]
        keys, values = [], []
        grouped = weights.shape.num_kv_heads != weights.shape.num_heads
        for layer in weights.layers:
            q, k, v = (part.transpose(1, 2) for part in weights.qkv(layer, x, cos, sin))
            # Padding stands on the right: no real position sees it.
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
            x = weights.after_attention(layer, x, mixed.transpose(1, 2).flatten(2))
            keys.append(k)
            values.append(v)
        last = x[torch.arange(len(prompts), device=weights.device), lengths - 1]
        stacked = [torch.stack(part) for part in (keys, values)]
        cut = [[part[:, row, :, :length] for row, length in enumerate(lengths.tolist())] for part in stacked]
        return cut[0], cut[1], weights.logits(last)

    def take(self, requests: Sequence[int], keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Put requests with the caches of their prompts into free slots."""
        for request, key, value in zip(requests, keys, values, strict=True):
            slot, length = self.num_active, key.shape[2]
            self.keys[:, slot, :, :length], self.values[:, slot, :, :length] = key, value
            self.requests[slot], self.lengths[slot] = request, length
            self.num_active += 1

    def step(self) -> Tensor:
        """Read one token in every active slot; [num_active, V] logits of the next one."""
        weights, number = self.weights, self.num_active
        shape = weights.shape
        places = self.lengths[:number]
        longest = int(places.max()) + 1
        rows = torch.arange(number, device=weights.device)
        unseen = torch.arange(longest, device=weights.device) > places[:, None]
        bias = torch.zeros(number, 1, 1, longest, dtype=weights.dtype, device=weights.device)
        bias.masked_fill_(unseen[:, None, None], -torch.inf)
        x = F.embedding(self.next_ids[:number], weights.embedding)
        cos, sin = self.cos[places, None], self.sin[places, None]
        for layer, keys, values in zip(weights.layers, self.keys, self.values, strict=True):
            q, k, v = weights.qkv(layer, x, cos, sin)
            keys[rows, :, places], values[rows, :, places] = k, v
            # The queries of one group of heads share their keys: [rows, kv_heads, queries a head, width].
            q = q.view(number, shape.num_kv_heads, -1, shape.head_width) * shape.head_width**-0.5
            scores = q @ keys[:number, :, :longest].transpose(-1, -2) + bias
            mixed = scores.softmax(dim=-1) @ values[:number, :, :longest]
            x = weights.after_attention(layer, x, mixed.flatten(1))
        self.lengths[:number] += 1
        return weights.logits(x)

    def release(self, slots: Sequence[int]) -> None:
        """Free slots: the last active ones move into the places of those that end."""
        for slot in sorted(slots, reverse=True):
            last = self.num_active - 1
            if slot != last:
                length = int(self.lengths[last])
                for cache in (self.keys, self.values):
                    cache[:, slot, :, :length] = cache[:, last, :, :length]
                for column in (self.requests, self.lengths, self.next_ids):
                    column[slot] = column[last]
            self.num_active = last
