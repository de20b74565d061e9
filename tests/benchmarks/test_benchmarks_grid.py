"""How the peer is tuned: what the search finds, against costs whose least is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
from benchmarks.peers.grid import GRID, Axis, search

AXES = (Axis("rows", (1, 2, 4, 8), 4), Axis("sorted", (False, True), True), Axis("extra", (0, 1, 2), 0))


def bowl(settings: Mapping[str, Any], least: float = 0.0) -> float:
    """Least at rows 2, unsorted, extra 2."""
    return abs(settings["rows"] - 2) + 3.0 * settings["sorted"] + (2 - settings["extra"])


def test_finds_the_least_of_costs_that_the_axes_add_to() -> None:
    best, measured = search(AXES, bowl)
    everything = itertools.product(*(axis.values for axis in AXES))
    least = min(bowl(dict(zip(("rows", "sorted", "extra"), values, strict=True))) for values in everything)
    assert best == {"rows": 2, "sorted": False, "extra": 2}
    assert bowl(best) == least == min(cost for _, cost in measured)


def test_measures_no_setting_twice() -> None:
    _, measured = search(AXES, bowl)
    assert len({tuple(sorted(tried.items())) for tried, _ in measured}) == len(measured)


def test_stays_where_nothing_is_faster() -> None:
    best, measured = search(AXES, lambda settings, least: 1.0)
    assert best == {"rows": 4, "sorted": True, "extra": 0}
    # Itself, and its neighbours: two, one and one.
    assert len(measured) == 5


def test_only_walks_on_while_it_is_faster() -> None:
    told = []

    def rows(settings: Mapping[str, Any], least: float) -> float:
        told.append(least)
        return float(settings["rows"])

    assert [settings["rows"] for settings, _ in search(AXES[:1], rows)[1]] == [4, 2, 1]
    assert told == [math.inf, 4, 2]


@pytest.mark.parametrize("job", GRID)
def test_the_grid_holds_where_the_search_begins(job: str) -> None:
    for axis in GRID[job]:
        assert axis.start in axis.values
        assert len(set(axis.values)) == len(axis.values) >= 2


def test_the_grid_has_what_the_comparison_promises() -> None:
    for job in ("sft", "reward", "dpo", "grpo", "rloo", "ppo"):
        rows = next(axis for axis in GRID[job] if axis.name == "micro_batch")
        assert rows.values == (1, 2, 4, 8, 16, 32)
    assert {axis.name for axis in GRID["dpo"]} == {"micro_batch", "order", "precompute", "checkpointing"}
