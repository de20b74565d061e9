"""How the peer is tuned: settings that make it faster without changing what it computes, and the search over them.

The search goes axis by axis. On each it walks from where it stands to one side, for as long as that is faster, and
where the first step is not, to the other. What it ends with is the fastest setting that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Axis:
    """One setting: its values in an order in which neighbours are alike, and the one that the search begins with."""

    name: str
    values: tuple[Any, ...]
    start: Any


MICRO_BATCH = Axis("micro_batch", (1, 2, 4, 8, 16, 32), 8)
"""Rows in one forward and backward pass; the optimiser's batch stays the same."""
ORDER = Axis("order", ("given", "sorted", "grouped"), "grouped")
"""Rows as they come, sorted by length inside a step, or grouped by length over steps."""
CHECKPOINTING = Axis("checkpointing", (False, True), False)
PRECOMPUTE = Axis("precompute", (False, True), False)
"""Log-probabilities of the reference before the first step."""

GRID: Mapping[str, tuple[Axis, ...]] = {
    "sft": (MICRO_BATCH, ORDER, CHECKPOINTING),
    "reward": (MICRO_BATCH, ORDER, CHECKPOINTING),
    "dpo": (MICRO_BATCH, ORDER, PRECOMPUTE, CHECKPOINTING),
    "grpo": (MICRO_BATCH, CHECKPOINTING),
    "rloo": (MICRO_BATCH, CHECKPOINTING),
    "ppo": (MICRO_BATCH, Axis("rollout_batch", (8, 16, 32), 32)),
    "generation": (
        Axis("rows", (16, 32, 64, 128), 32),
        Axis("order", ("given", "sorted"), "sorted"),
        Axis("cache", (None, "static"), None),
    ),
}
"""By job. The precision is that of the comparison."""


def search(
    axes: tuple[Axis, ...], cost: Callable[[Settings, float], float]
) -> tuple[Settings, list[tuple[Settings, float]]]:
    """The settings of the least cost that was measured, and all that was.

    `cost` is told the least so far, and may stop measuring where it is clearly above that.
    """
    measured: list[tuple[Settings, float]] = []

    def seconds(settings: Settings) -> float:
        known = next((found for tried, found in measured if tried == settings), None)
        if known is None:
            known = cost(settings, min((found for _, found in measured), default=math.inf))
            measured.append((settings, known))
        return known

    best: Settings = {axis.name: axis.start for axis in axes}
    least = seconds(best)
    for axis in axes:
        start = axis.values.index(best[axis.name])
        for direction in (-1, 1):
            if best[axis.name] != axis.values[start]:
                break
            place = start + direction
            while 0 <= place < len(axis.values):
                tried = {**best, axis.name: axis.values[place]}
                if (found := seconds(tried)) >= least:
                    break
                best, least = tried, found
                place += direction
    return best, measured
