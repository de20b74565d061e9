"""A town drawn from a seed, and one small enough to compute by hand."""

from __future__ import annotations

import pytest

from prefloop.world.knowledge import Fact, World


@pytest.fixture(scope="session")
def world() -> World:
    return World.build(seed=7)


@pytest.fixture(scope="session")
def village() -> World:
    """Two places: the Amber Mill on page 17, the Copper Inn on page 3."""
    return World(
        seed=0,
        facts=(
            Fact("Amber Mill", "street", "Birch", 17),
            Fact("Amber Mill", "hours", "nine", 17),
            Fact("Amber Mill", "keeper", "Anna", 17),
            Fact("Amber Mill", "price", "four", 17),
            Fact("Copper Inn", "street", "River", 3),
            Fact("Copper Inn", "hours", "ten", 3),
            Fact("Copper Inn", "keeper", "Boris", 3),
            Fact("Copper Inn", "price", "five", 3),
        ),
    )
