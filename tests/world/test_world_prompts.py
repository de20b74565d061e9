"""Prompts: how many, how mixed, and that no split holds what another does."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from prefloop.types import InputError, Prompt
from prefloop.world.knowledge import World
from prefloop.world.prompts import KINDS, PROMPT_MIX, Split, make_demonstration_prompts, make_prompts

SIZES: dict[Split, int] = {"train": 3000, "validation": 900, "test": 1800}


@pytest.fixture(scope="module")
def splits(world: World) -> dict[Split, list[Prompt]]:
    return {split: make_prompts(world, split=split, count=count, seed=0) for split, count in SIZES.items()}


def _text(prompt: Prompt) -> str:
    return prompt.messages[-1].content


def test_there_are_enough_different_prompts(splits: dict[Split, list[Prompt]]) -> None:
    assert len(splits["train"]) >= 2000
    assert len(splits["test"]) >= 1500
    for split, prompts in splits.items():
        assert len(prompts) == SIZES[split]
        assert len({prompt.prompt_id for prompt in prompts}) == len(prompts)
        assert len({_text(prompt) for prompt in prompts}) == len(prompts)
        assert all(prompt.split == ("train" if split == "train" else "eval") for prompt in prompts)


@pytest.mark.parametrize("count", [1, 7, 100, 333])
def test_the_mix_is_as_documented(world: World, count: int) -> None:
    prompts = make_prompts(world, split="test", count=count, seed=5)
    counts = Counter(prompt.columns["kind"] for prompt in prompts)
    assert len(prompts) == count
    assert all(abs(counts[kind] - PROMPT_MIX[kind] * count) < 1.0 for kind in KINDS)


def _kept_apart(prompt: Prompt) -> tuple[str, ...]:
    """What no two splits may share."""
    kind, entity, topic = (prompt.columns[name] for name in ("kind", "entity", "topic"))
    return (kind, entity) if kind == "unknown" else (kind, entity, topic)


def test_splits_share_nothing_that_matters(splits: dict[Split, list[Prompt]]) -> None:
    for one, other in combinations(splits, 2):
        assert not {_kept_apart(p) for p in splits[one]} & {_kept_apart(p) for p in splits[other]}
        assert not {_text(p) for p in splits[one]} & {_text(p) for p in splits[other]}


def test_every_prompt_names_its_place(splits: dict[Split, list[Prompt]], world: World) -> None:
    known = set(world.entities)
    for prompt in splits["test"]:
        assert f"the {prompt.columns['entity']}" in _text(prompt)
        assert (prompt.columns["entity"] in known) == (prompt.columns["kind"] != "unknown")
        if prompt.columns["kind"] in ("unsafe", "lookalike"):
            assert prompt.columns["topic"] in _text(prompt)


def test_the_seed_decides_the_sample_and_not_the_split(world: World) -> None:
    first, again = (make_prompts(world, split="test", count=50, seed=1) for _ in range(2))
    other = make_prompts(world, split="test", count=50, seed=2)
    assert first == again
    assert first != other
    everything = {p.prompt_id: p for p in make_prompts(world, split="test", count=1800, seed=3)}
    assert all(everything[p.prompt_id] == p for p in other if p.prompt_id in everything)


def test_too_many_are_refused_with_the_number_there_is(world: World) -> None:
    with pytest.raises(InputError, match=r"count: 5000 prompts need 2000 of kind fact.*ask for at most 960") as caught:
        make_prompts(world, split="validation", count=5000, seed=0)
    limit = int(str(caught.value.remedy).split()[-1])
    assert len(make_prompts(world, split="validation", count=limit, seed=0)) == limit


def test_demonstrations_hold_every_fact_but_no_prompt_of_another_split(
    world: World, splits: dict[Split, list[Prompt]]
) -> None:
    prompts = make_demonstration_prompts(world, count=200, seed=0)
    facts = {(p.columns["entity"], p.columns["topic"]) for p in prompts if p.columns["kind"] == "fact"}
    assert facts == {(fact.entity, fact.attribute) for fact in world.facts}
    many = make_demonstration_prompts(world, count=6000, seed=1)
    shown = {_text(p) for p in many}
    held_out = splits["validation"] + splits["test"]
    assert not shown & {_text(p) for p in held_out}
    shown_items = {_kept_apart(p) for p in many if p.columns["kind"] != "fact"}
    assert not shown_items & {_kept_apart(p) for p in held_out}
