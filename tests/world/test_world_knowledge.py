"""The town: its size, its seed, and that nothing unknown is known."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from prefloop.world.knowledge import ADJECTIVES, ATTRIBUTES, NUM_PAGES, VALUES, World


def test_every_place_has_every_attribute_and_one_page_of_its_own(world: World) -> None:
    assert len(world.entities) == 24
    assert len(world.facts) == 24 * 4
    assert {(fact.entity, fact.attribute) for fact in world.facts} == {
        (e, a) for e in world.entities for a in ATTRIBUTES
    }
    pages = {fact.entity: fact.page for fact in world.facts}
    assert len(set(pages.values())) == 24
    assert all(1 <= page <= NUM_PAGES for page in pages.values())
    assert all(world.page(fact.entity) == fact.page for fact in world.facts)
    assert all(world.value(fact.entity, fact.attribute) == fact.value for fact in world.facts)


def test_each_adjective_names_one_place_and_values_are_balanced(world: World) -> None:
    assert sorted(entity.split()[0] for entity in world.entities) == sorted(ADJECTIVES)
    for attribute in ATTRIBUTES:
        counts = Counter(fact.value for fact in world.facts if fact.attribute == attribute)
        assert set(counts) == set(VALUES[attribute])
        assert max(counts.values()) - min(counts.values()) <= 1


def test_unknown_names_look_like_known_ones_but_are_not(world: World) -> None:
    known, unknown = set(world.entities), set(world.unknown_entities)
    assert len(unknown) >= 300
    assert not known & unknown
    assert {name.split()[0] for name in unknown} == {name.split()[0] for name in known}
    assert all(world.value(name, "hours") is None and world.page(name) is None for name in unknown)


def test_the_seed_alone_decides() -> None:
    assert World.build(3) == World.build(3)
    assert World.build(3).facts != World.build(4).facts


def test_the_world_needs_neither_torch_nor_the_detectors() -> None:
    code = (
        "import sys\n"
        "import prefloop.world.scenarios, prefloop.world.writers\n"
        "print([m for m in ('torch', 'transformers', 'scipy', 'prefloop.signals') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
