"""A score that costs nothing to compute, for both sides: how near a text is to `TARGET` characters."""

from __future__ import annotations

from collections.abc import Sequence

TARGET = 128


def length_score(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """As prefloop calls a function."""
    return [-abs(len(response) - TARGET) / TARGET for response in responses]
