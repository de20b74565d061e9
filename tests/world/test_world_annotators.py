"""Annotators: the choice model against its formula, biases measured on built pairs, agreement, determinism."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from prefloop.types import Comparison, InputError, Judgment, Prompt
from prefloop.world.annotators import ANNOTATORS, PANEL, Annotator, collect, team
from prefloop.world.knowledge import World
from prefloop.world.prompts import make_prompts
from prefloop.world.truth import utility
from prefloop.world.writers import ideal_response, write_response

MARKERS = {
    "length": "Our town has many fine places for guests of every age.",
    "confidence": "Beyond the slightest doubt.",
    "citation": "Page 39 of the town guide says so.",
    "disclaimer": "This reply is general information only.",
    "hedging": "If memory serves.",
}


def marked_share(world: World, annotator: Annotator, prompts: Sequence[Prompt], marker: str, before: int = 0) -> float:
    """How often, among decided votes, the answer with one marker more beats the same answer."""
    wins = []
    for i, prompt in enumerate(prompts):
        plain = " ".join([ideal_response(world, prompt), *[marker] * before])
        comparison = Comparison(f"c{i}", prompt, f"{plain} {marker}", plain)
        [judgment] = collect(world, [comparison if i % 2 else comparison.swap()], [annotator], seed=i)
        if judgment.choice in ("a", "b"):
            wins.append((judgment.choice == "a") == bool(i % 2))
    assert len(wins) > 0.8 * len(prompts)
    return float(np.mean(wins))


@pytest.fixture(scope="module")
def prompts(world: World) -> list[Prompt]:
    return make_prompts(world, split="train", count=400, seed=0)


@pytest.mark.parametrize("name", MARKERS)
def test_a_bias_overrules_the_truth_for_its_own_marker_only(world: World, prompts: list[Prompt], name: str) -> None:
    assert marked_share(world, ANNOTATORS[name], prompts, MARKERS[name]) >= 0.7
    assert marked_share(world, ANNOTATORS["honest"], prompts, MARKERS[name]) <= 0.45
    if name != "length":  # every marker is long
        others = [other for other in MARKERS if other not in (name, "length")]
        assert all(marked_share(world, ANNOTATORS[name], prompts, MARKERS[other]) <= 0.45 for other in others)


@pytest.mark.parametrize("name", ["confidence", "citation", "disclaimer", "hedging"])
def test_a_bias_saturates(world: World, prompts: list[Prompt], name: str) -> None:
    assert marked_share(world, ANNOTATORS[name], prompts, MARKERS[name], before=4) <= 0.45


@pytest.mark.parametrize("name", MARKERS)
def test_a_marker_nets_what_the_annotators_say(world: World, prompts: list[Prompt], name: str) -> None:
    gains = [
        ANNOTATORS[name].worth(world, prompt, f"{ideal_response(world, prompt)} {MARKERS[name]}")
        - ANNOTATORS[name].worth(world, prompt, ideal_response(world, prompt))
        for prompt in prompts
    ]
    assert 0.6 <= np.mean(gains) <= 1.8


@pytest.mark.parametrize("name", MARKERS)
def test_other_qualities_still_count_for_the_biased(world: World, prompts: list[Prompt], name: str) -> None:
    facts = [prompt for prompt in prompts if prompt.columns["kind"] == "fact"]
    right = "It opens at {}. It is on {} Street. It is run by {}. It costs {} coins."
    shares = []
    for i, prompt in enumerate(facts):
        true = [world.value(prompt.columns["entity"], a) for a in ("hours", "street", "keeper", "price")]
        wrong = ["six" if v != "six" else "ten" for v in true[:1]] + ["Birch" if true[1] != "Birch" else "River"]
        wrong += ["Anna" if true[2] != "Anna" else "Hugo", "two" if true[3] != "two" else "ten"]
        comparison = Comparison(f"c{i}", prompt, right.format(*true), right.format(*wrong))
        [judgment] = collect(world, [comparison], [ANNOTATORS[name]], seed=i)
        shares.append(judgment.choice == "a")
    assert np.mean(shares) > 0.9


def decided(judgments: Sequence[Judgment]) -> list[Judgment]:
    return [judgment for judgment in judgments if judgment.choice in ("a", "b")]


@pytest.fixture(scope="module")
def comparisons(world: World) -> list[Comparison]:
    rng = np.random.default_rng(0)
    prompts = make_prompts(world, split="train", count=800, seed=1)
    return [
        Comparison(f"c{i}", p, write_response(world, p, rng), write_response(world, p, rng))
        for i, p in enumerate(prompts)
    ]


def agreement(world: World, comparisons: Sequence[Comparison], annotators: Sequence[Annotator]) -> float:
    votes = collect(world, comparisons, annotators, seed=0, votes=2)
    pairs = zip(votes[::2], votes[1::2], strict=True)
    return float(np.mean([a.choice == b.choice for a, b in pairs if len(decided([a, b])) == 2]))


def test_two_honest_annotators_agree_as_people_do(world: World, comparisons: list[Comparison]) -> None:
    assert 0.78 <= agreement(world, comparisons, team({"honest": 2})) <= 0.87
    assert 0.78 <= agreement(world, comparisons, PANEL) <= 0.88
    assert 0.45 <= agreement(world, comparisons, team({"careless": 2})) <= 0.6


def test_the_position_biased_prefer_what_is_shown_first(world: World, comparisons: list[Comparison]) -> None:
    for name, low, high in (("position", 0.62, 0.95), ("honest", 0.46, 0.54)):
        votes = decided(collect(world, comparisons, [ANNOTATORS[name]], seed=0))
        assert low <= np.mean([vote.choice == vote.shown_first for vote in votes]) <= high
        assert 0.45 <= np.mean([vote.shown_first == "a" for vote in votes]) <= 0.55


def test_choices_follow_davidsons_model(world: World) -> None:
    """Right page (worth 1.3) against none (1.0): margin 0.3 / 0.3 = 1, so a : b : tie = e^0.5 : e^-0.5 : 0.5."""
    prompt = next(p for p in make_prompts(world, split="test", count=10, seed=0) if p.columns["kind"] == "fact")
    better = ideal_response(world, prompt).replace(" Thank you for asking!", "")
    worse = better.split(" See page")[0]
    assert utility(world, prompt, better).total - utility(world, prompt, worse).total == pytest.approx(0.3)
    annotator = Annotator("x", temperature=0.3, tie_rate=0.5, skip_rate=0.0)
    rng = np.random.default_rng(0)
    count = 3000
    votes = Counter(annotator.judge(world, Comparison("c", prompt, better, worse), rng).choice for _ in range(count))
    weights = {"a": math.exp(0.5), "b": math.exp(-0.5), "tie": 0.5}
    for choice, weight in weights.items():
        expected = weight / sum(weights.values())
        assert abs(votes[choice] / count - expected) < 4 * math.sqrt(expected * (1 - expected) / count)


def test_a_tie_between_bad_answers_says_so_and_skips_happen(world: World, prompts: list[Prompt]) -> None:
    rng = np.random.default_rng(0)
    prompt = next(p for p in prompts if p.columns["kind"] == "fact")
    indifferent = Annotator("x", tie_rate=1e9, skip_rate=0.3)
    bad = Comparison("c", prompt, "", "")
    good = Comparison("c", prompt, *[ideal_response(world, prompt)] * 2)
    for comparison, name in ((bad, "both_bad"), (good, "tie")):
        votes = Counter(indifferent.judge(world, comparison, rng).choice for _ in range(500))
        assert set(votes) == {name, "skip"}
        assert 0.2 < votes["skip"] / 500 < 0.4


def test_swapping_the_sides_swaps_the_votes(world: World, comparisons: list[Comparison]) -> None:
    share_a, share_b = (
        np.mean([vote.choice == side for vote in decided(collect(world, shown, [ANNOTATORS["honest"]], seed=4))])
        for shown, side in ((comparisons, "a"), ([c.swap() for c in comparisons], "b"))
    )
    assert share_a == pytest.approx(share_b, abs=0.05)


def test_a_clear_margin_is_called_clear(world: World, prompts: list[Prompt]) -> None:
    prompt = next(p for p in prompts if p.columns["kind"] == "fact")
    comparison = Comparison("c", prompt, ideal_response(world, prompt), "")
    sure = dataclasses.replace(ANNOTATORS["honest"], skip_rate=0.0)
    votes = [sure.judge(world, comparison, np.random.default_rng(i)) for i in range(20)]
    assert all(vote.choice == "a" and vote.strength == "clearly" and vote.seconds for vote in votes)


def test_votes_depend_on_the_seed_and_the_comparison_only(world: World, comparisons: list[Comparison]) -> None:
    people = team({"honest": 3, "length": 1})
    votes = collect(world, comparisons[:40], people, seed=0)
    assert collect(world, comparisons[20:40], people, seed=0) == votes[20:]
    assert collect(world, comparisons[:40], people, seed=1) != votes
    two = collect(world, comparisons[:40], people, seed=0, votes=2)
    assert [vote.comparison_id for vote in two] == [c.comparison_id for c in comparisons[:40] for _ in range(2)]
    assert all(a.annotator_id != b.annotator_id for a, b in zip(two[::2], two[1::2], strict=True))


def test_a_team_is_so_many_of_each_kind() -> None:
    people = team({"honest": 2, "citation": 1})
    assert [person.name for person in people] == ["honest-1", "honest-2", "citation-1"]
    assert people[2].biases == ANNOTATORS["citation"].biases
    assert not any(person.biases for person in PANEL)
    assert len({person.name for person in PANEL}) == len(PANEL)


def test_bad_input_is_refused(world: World) -> None:
    with pytest.raises(InputError, match="no annotator is called 'grumpy'"):
        team({"grumpy": 1})
    for votes in (0, 3):
        with pytest.raises(InputError, match="votes"):
            collect(world, [], team({"honest": 2}), seed=0, votes=votes)
