"""Demonstrations: mixed quality, every flaw often enough to be compared, plain regular language."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from prefloop.types import Demonstration, Prompt
from prefloop.world.knowledge import World
from prefloop.world.language import read
from prefloop.world.prompts import make_demonstration_prompts, make_prompts
from prefloop.world.truth import Utility, utility
from prefloop.world.writers import MAX_WORDS, ideal_response, make_demonstrations

COUNT = 3000


@pytest.fixture(scope="module")
def prompts(world: World) -> list[Prompt]:
    return make_demonstration_prompts(world, count=COUNT, seed=0)


@pytest.fixture(scope="module")
def demonstrations(world: World) -> list[Demonstration]:
    return make_demonstrations(world, count=COUNT, seed=0)


@pytest.fixture(scope="module")
def judged(world: World, prompts: list[Prompt], demonstrations: list[Demonstration]) -> list[tuple[str, Utility]]:
    return [
        (prompt.columns["kind"], utility(world, prompt, demonstration.completion[0].content))
        for prompt, demonstration in zip(prompts, demonstrations, strict=True)
    ]


def test_demonstrations_belong_to_their_prompts(prompts: list[Prompt], demonstrations: list[Demonstration]) -> None:
    assert [demonstration.prompt for demonstration in demonstrations] == [prompt.messages for prompt in prompts]
    assert all([m.role for m in demonstration.completion] == ["assistant"] for demonstration in demonstrations)
    assert len({demonstration.demonstration_id for demonstration in demonstrations}) == COUNT


def test_mean_utility_is_near_zero_with_room_above_and_below(judged: list[tuple[str, Utility]]) -> None:
    totals = np.array([result.total for _, result in judged])
    assert abs(totals.mean()) < 0.35
    assert (totals > 0.9).mean() > 0.15
    assert (totals < -0.9).mean() > 0.1


FLAWS: dict[str, tuple[set[str], Callable[[Utility], bool]]] = {
    "wrong value": ({"fact", "open"}, lambda u: u.features["wrong_facts"] > 0),
    "wrong tool": ({"lookalike"}, lambda u: u.features["wrong_facts"] > 0),
    "invented page": ({"fact", "open"}, lambda u: u.features["invented_citations"] > 0),
    "hedge on the known": ({"fact", "open"}, lambda u: u.features["hedges"] > 0),
    "over-confident": ({"fact", "open"}, lambda u: u.features["confident_phrases"] > 0),
    "disclaimer": ({"fact", "open", "unknown", "unsafe", "lookalike"}, lambda u: u.features["disclaimers"] > 0),
    "padding": ({"fact", "open", "unknown", "unsafe", "lookalike"}, lambda u: u.features["padding"] > 0),
    "repetition": ({"fact", "open", "unknown", "unsafe", "lookalike"}, lambda u: u.features["repeated_words"] > 0),
    "politeness": ({"fact", "open", "unknown", "unsafe", "lookalike"}, lambda u: u.features["polite_phrases"] > 0),
    "needless abstention": ({"fact", "open"}, lambda u: "needless_abstention" in u.parts),
    "needless refusal": ({"lookalike"}, lambda u: "needless_refusal" in u.parts),
    "unsafe help": ({"unsafe"}, lambda u: "unsafe_help" in u.parts),
    "confident nonsense": ({"unknown"}, lambda u: "wrong_fact" in u.parts),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_every_flaw_occurs_often_enough_to_be_compared(judged: list[tuple[str, Utility]], flaw: str) -> None:
    kinds, has = FLAWS[flaw]
    rate = np.mean([has(result) for kind, result in judged if kind in kinds])
    assert 0.05 <= rate <= 0.35


def test_flaws_are_independent(judged: list[tuple[str, Utility]]) -> None:
    flags = np.array(
        [[has(u) for has in (FLAWS[f][1] for f in ("disclaimer", "over-confident", "wrong value"))]
         for kind, u in judged if kind == "fact"],
        dtype=float,
    )  # fmt: skip
    correlations = np.corrcoef(flags.T)[np.triu_indices(3, 1)]
    assert np.all(np.abs(correlations) < 5 / np.sqrt(len(flags)))


def test_language_is_small_regular_and_short(world: World, demonstrations: list[Demonstration]) -> None:
    words: set[str] = set()
    lengths = []
    for demonstration in demonstrations:
        answer = demonstration.completion[0].content
        words.update(re.findall(r"\w+|[^\w\s]", f"{demonstration.prompt[0].content} {answer}"))
        lengths.append(len(answer.split()))
        assert read(answer).foreign == 0, answer
    for prompt in make_prompts(world, split="test", count=1800, seed=0):
        words.update(re.findall(r"\w+|[^\w\s]", f"{prompt.messages[0].content} {ideal_response(world, prompt)}"))
    assert len(words) < 400
    assert max(lengths) <= MAX_WORDS + 2
    assert np.mean(lengths) < 24


def test_the_seed_alone_decides(world: World, demonstrations: list[Demonstration]) -> None:
    assert make_demonstrations(world, count=COUNT, seed=0) == demonstrations
    other = make_demonstrations(world, count=COUNT, seed=1)
    assert sum(a.completion == b.completion for a, b in zip(other, demonstrations, strict=True)) < COUNT / 10
