"""Steps of the slots: read a token, draw the next, see what has ended; and how many of them run between two looks.

On a CPU the host looks after each step, and every step runs on the running slots only. A GPU would wait for the host:
there STEPS_A_LOOK steps are queued, on sizes rounded up, and a size that comes again is recorded as a CUDA graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from prefloop.rollout.draw import draw
from prefloop.rollout.slots import Slots

STEPS_A_LOOK = 8
"""Steps on a GPU before the host frees slots and fills them again."""
LENGTH_BUCKET = 128
"""On a GPU the part of the cache that a step reads is a multiple of this; the number of slots is a power of two."""


@dataclass(frozen=True)
class Sampled:
    """One sampled response: token ids (stop token included) and the logprob of each."""

    ids: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]
    hidden: Tensor | None = None
    """[len(ids), d] what the head saw before each token, where it was kept."""


class Written:
    """What has been sampled of each request. One row more takes what slots without a request draw."""

    def __init__(
        self,
        uniforms: Tensor,
        temperature: float,
        stop_ids: Iterable[int],
        vocab_size: int,
        hidden_size: int | None = None,
    ) -> None:
        uniforms = F.pad(uniforms, (0, 0, 0, 1))
        self.uniforms, self.temperature = uniforms, temperature
        self.is_stop = torch.zeros(vocab_size, dtype=torch.bool)
        self.is_stop[[token for token in stop_ids if token < vocab_size]] = True
        self.is_stop = self.is_stop.to(uniforms.device)
        self.tokens = torch.zeros(uniforms.shape, dtype=torch.int64, device=uniforms.device)
        self.logprobs = torch.zeros_like(uniforms)
        self.counts = torch.zeros(len(uniforms), dtype=torch.int64, device=uniforms.device)
        self.stopped = torch.zeros(len(uniforms), dtype=torch.bool, device=uniforms.device)
        self.hidden = None if hidden_size is None else torch.empty(*uniforms.shape, hidden_size, device=uniforms.device)

    def add(
        self, requests: Tensor, logits: Tensor, hidden: Tensor | None = None, *, running: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw the next token of `requests` [N], of those that are `running` [N]; the tokens, and whether each response
        ends with it."""
        width = self.uniforms.shape[1]
        if running is not None:
            requests = requests.where(running, len(self.counts) - 1)
        places = self.counts[requests].clamp(max=width - 1)
        if self.hidden is not None and hidden is not None:
            self.hidden[requests, places] = hidden.float()
        drawn, logprobs = draw(logits, self.uniforms[requests, places], temperature=self.temperature)
        self.tokens[requests, places], self.logprobs[requests, places] = drawn, logprobs
        self.counts[requests] += 1
        stops = self.is_stop[drawn]
        self.stopped[requests] = stops
        return drawn, stops | (places + 1 == width)

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
        num_requests = len(self.counts) - 1
        return [
            Sampled(
                ids[:count],
                logprobs[:count],
                "stop" if stopped else "length",
                None if hidden is None else hidden[:count],
            )
            for ids, logprobs, count, stopped, hidden in itertools.islice(columns, num_requests)
        ]


def draw_next(slots: Slots, written: Written, hidden: Tensor, part: slice) -> None:
    """Draw the next token of the running slots of `part`, whose last hidden states are `hidden`, and mark those whose
    response ends with it."""
    running = slots.running[part]
    logits = slots.weights.logits(hidden)
    drawn, ended = written.add(slots.requests[part], logits, hidden, running=running)
    slots.next_ids[part] = drawn
    slots.running[part] = running & ~ended


class Stepper:
    """Runs the steps of some slots between two looks of the host."""

    def __init__(self, slots: Slots, written: Written, *, on_gpu: bool) -> None:
        self.slots, self.written, self.on_gpu = slots, written, on_gpu
        self.graphs: dict[tuple[int, int], torch.cuda.CUDAGraph | None] = {}
        """By number of slots and of cached tokens; None: run once, which a recording needs to have happened."""

    def run(self) -> None:
        """One step, or on a GPU STEPS_A_LOOK, of all active slots."""
        slots = self.slots
        longest = int(slots.lengths[: slots.num_active].max()) + 1
        if not self.on_gpu:
            self._step(slots.num_active, longest)
            return
        number, longest = bucket(slots.num_active, longest + STEPS_A_LOOK, len(slots.requests), len(slots.columns))
        for _ in range(STEPS_A_LOOK):
            self._replay(number, longest)

    def _step(self, number: int, longest: int) -> None:
        draw_next(self.slots, self.written, self.slots.step(number, longest), slice(0, number))

    def _replay(self, number: int, longest: int) -> None:
        """A step of this size: the first as it is, then recorded, then played."""
        size = number, longest
        if size not in self.graphs or self.slots.weights.device.type != "cuda":
            self._step(number, longest)
            self.graphs[size] = None
            return
        graph = self.graphs[size]
        if graph is None:
            graph = self.graphs[size] = torch.cuda.CUDAGraph()
            # Recording runs nothing.
            with torch.cuda.graph(graph):
                self._step(number, longest)
        graph.replay()


def bucket(number: int, longest: int, num_slots: int, capacity: int) -> tuple[int, int]:
    """Slots and cached tokens rounded up, so that few sizes occur: a power of two, a multiple of LENGTH_BUCKET."""
    rounded = -(-longest // LENGTH_BUCKET) * LENGTH_BUCKET
    return min(1 << (number - 1).bit_length(), num_slots), min(rounded, capacity)
