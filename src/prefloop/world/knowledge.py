"""What is true in the simulated town: places, their attributes, and the page of the town guide that tells of each.

A world is drawn from a seed: which names exist, and every value and page. The word lists are fixed, so that one
vocabulary (and one reader, `language.py`) serves every seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

Attribute = Literal["street", "hours", "keeper", "price"]
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)
"""In the order in which a complete answer tells them."""

ADJECTIVES = (
    "Amber", "Blue", "Bronze", "Cobalt", "Copper", "Crystal", "Golden", "Green",
    "Grey", "Hidden", "Iron", "Ivory", "Jade", "Lunar", "Marble", "Onyx",
    "Pearl", "Purple", "Red", "Ruby", "Scarlet", "Silver", "Velvet", "White",
)  # fmt: skip
NOUNS = (
    "Bakery", "Cinema", "Farm", "Gallery", "Garden", "Inn", "Library",
    "Mill", "Museum", "Pool", "Stadium", "Theatre", "Tower", "Zoo",
)  # fmt: skip
VALUES: Mapping[Attribute, tuple[str, ...]] = {
    "street": ("Birch", "Canal", "Castle", "Cedar", "Church", "Market", "River", "School", "Station", "Temple"),
    "hours": ("six", "seven", "eight", "nine", "ten", "eleven", "noon", "one"),
    "keeper": ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irma", "Jonas"),
    "price": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve"),
}
NUM_PAGES = 40
"""Pages of the town guide. Every known place has a page of its own; the rest tell of other things."""


@dataclass(frozen=True)
class Fact:
    """One attribute of one known place, and the page of the town guide on which it stands."""

    entity: str
    attribute: Attribute
    value: str
    page: int


@dataclass(frozen=True)
class World:
    """A town. Every known place has one fact per attribute; each adjective names exactly one known place."""

    seed: int
    facts: tuple[Fact, ...]

    @classmethod
    def build(cls, seed: int) -> World:
        """The town of this seed: 24 known places (one per adjective), 96 facts, 24 different pages."""
        rng = np.random.default_rng([seed, 0])
        nouns = _balanced(NOUNS, len(ADJECTIVES), rng)
        entities = [f"{adjective} {noun}" for adjective, noun in zip(ADJECTIVES, nouns, strict=True)]
        pages = rng.permutation(NUM_PAGES)[: len(entities)] + 1
        columns = {attribute: _balanced(VALUES[attribute], len(entities), rng) for attribute in ATTRIBUTES}
        facts = tuple(
            Fact(entity, attribute, columns[attribute][i], int(pages[i]))
            for i, entity in enumerate(entities)
            for attribute in ATTRIBUTES
        )
        return cls(seed, facts)

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """Names of the known places, such as "Amber Mill"."""
        return tuple(dict.fromkeys(fact.entity for fact in self.facts))

    @cached_property
    def unknown_entities(self) -> tuple[str, ...]:
        """Names that look like those of places but belong to none: every other adjective and noun (312)."""
        known = set(self.entities)
        names = (f"{adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS)
        return tuple(name for name in names if name not in known)

    @cached_property
    def _values(self) -> dict[tuple[str, str], str]:
        return {(fact.entity, fact.attribute): fact.value for fact in self.facts}

    @cached_property
    def _pages(self) -> dict[str, int]:
        return {fact.entity: fact.page for fact in self.facts}

    def value(self, entity: str, attribute: str) -> str | None:
        """The true value, or None where the town has no such fact."""
        return self._values.get((entity, attribute))

    def page(self, entity: str) -> int | None:
        """The page of the town guide on this place, or None for an unknown one."""
        return self._pages.get(entity)


def _balanced(values: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """`count` values in random order, each as often as any other up to one."""
    whole, rest = divmod(count, len(values))
    drawn = [*values] * whole + [values[i] for i in rng.permutation(len(values))[:rest]]
    return [drawn[i] for i in rng.permutation(count)]
