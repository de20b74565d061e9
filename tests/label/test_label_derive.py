"""From votes to pairs: worked out by hand, by identities, and against truth that is known."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from tests.label.test_label_quality import item, vote

from prefloop.label.derive import annotator_fit, derive, share_for_a
from prefloop.label.records import Item, Vote


def pairs(items: list[Item], votes: list[Vote], method: Any, **options: Any) -> dict[str, tuple[str, float | None]]:
    """Chosen side by prompt, and strength."""
    known = {each.item_id: each for each in items}
    derived = derive(known, votes, method, **options)
    return {pair.prompt.messages[-1].content: (pair.chosen, pair.strength) for pair in derived.pairs}


@pytest.mark.parametrize("method", ["majority", "bradley-terry", "dawid-skene"])
def test_what_every_method_must_do(method: Any) -> None:
    items = [item("1"), item("2"), item("3", gold="a"), item("4")]
    votes = [vote("1", who, "a") for who in "xyz"] + [vote("2", "x", "b"), vote("2", "y", "b"), vote("2", "z", "a")]
    votes += [vote("3", who, "a") for who in "xyz"] + [vote("4", "x", "skip"), vote("1", "x", "b", is_repeat=True)]
    votes.append(vote("1", "u", "b", undone=True))
    derived = derive({each.item_id: each for each in items}, votes, method)
    chosen = [(pair.chosen, pair.num_judgments) for pair in derived.pairs]
    assert chosen == [("yes, 1", 3), ("no, 2", 3)]
    assert derived.counts == {"skipped": 1, "repetitions": 1, "gold_votes": 3}


@pytest.mark.parametrize("method", ["majority", "bradley-terry", "dawid-skene"])
def test_exchanging_the_sides_changes_nothing(method: Any) -> None:
    rng = random.Random(4)
    items = [item(str(n)) for n in range(40)]
    votes = [vote(each.item_id, who, rng.choice(["a", "a", "b", "tie"])) for each in items for who in "xyz"]
    import dataclasses

    swapped = [dataclasses.replace(e, response_a=e.response_b, response_b=e.response_a) for e in items]  # type: ignore[arg-type]
    flip = {"a": "b", "b": "a"}
    turned = [dataclasses.replace(each, choice=flip.get(each.choice, each.choice)) for each in votes]
    here, there = pairs(items, votes, method), pairs(swapped, turned, method)
    assert here.keys() == there.keys() and len(here) > 20
    for name, (chosen, strength) in here.items():
        assert there[name][0] == chosen
        assert there[name][1] == pytest.approx(strength, abs=1e-4)


def test_ties_are_kept_when_asked_for() -> None:
    items, votes = [item("1")], [vote("1", "x", "tie"), vote("1", "y", "both_bad"), vote("1", "z", "tie")]
    known = {"1": items[0]}
    for method in ("majority", "bradley-terry", "dawid-skene"):
        assert not pairs(items, votes, method)
        (tie,) = derive(known, votes, method, keep_ties=True).pairs
        assert tie.tie and tie.strength is None


def test_bradley_terry_of_one_vote_by_hand() -> None:
    # One vote for a: minimise log(1 + exp(-m)) + (s_a^2 + s_b^2) / 2 with m = s_a - s_b, so m = 2 / (1 + exp(m)).
    ((_, margin),) = pairs([item("1")], [vote("1", "x", "a")], "bradley-terry").values()
    assert margin is not None
    assert margin == pytest.approx(2 / (1 + math.exp(margin)), abs=1e-5)
    # More votes for the same are a stronger preference; "slightly" is a weaker one.
    ((_, more),) = pairs([item("1")], [vote("1", who, "a") for who in "xyz"], "bradley-terry").values()
    ((_, less),) = pairs([item("1")], [vote("1", "x", "a", "slightly")], "bradley-terry").values()
    assert more is not None and less is not None and less < margin < more


def test_the_share_of_a_vote() -> None:
    shares = [share_for_a(vote("1", "x", c, s)) for c, s in [("a", "clearly"), ("a", "slightly"), ("b", "slightly")]]
    assert shares == pytest.approx([1, 2 / 3, 1 / 3])
    assert share_for_a(vote("1", "x", "both_bad")) == 0.5 and share_for_a(vote("1", "x", "b")) == 0.0


def test_bradley_terry_hears_of_a_pair_from_the_others_of_its_prompt() -> None:
    # yes > no and no > maybe, three votes each: of yes and maybe nobody said more than tie.
    def compare(name: str, a: str, b: str) -> Item:
        return Item(name, "pair", "Question?", a, b, None, None, None)

    items = [compare("1", "yes", "no"), compare("2", "no", "maybe"), compare("3", "yes", "maybe")]
    votes = [vote(name, who, "a") for name in "12" for who in "xyz"] + [vote("3", "x", "tie")]
    derived = derive({each.item_id: each for each in items}, votes, "bradley-terry")
    assert [(pair.chosen, pair.rejected) for pair in derived.pairs][2] == ("yes", "maybe")
    assert derived.pairs[2].strength and derived.pairs[2].strength > (derived.pairs[0].strength or 0)


def test_one_vote_an_item_is_believed() -> None:
    rng = random.Random(2)
    items = [item(str(n)) for n in range(60)]
    votes = [vote(each.item_id, rng.choice("xyz"), rng.choice("aab")) for each in items]
    by_annotators, by_majority = (pairs(items, votes, method) for method in ("dawid-skene", "majority"))
    assert {name: chosen for name, (chosen, _) in by_annotators.items()} == {
        name: chosen for name, (chosen, _) in by_majority.items()
    }


def test_dawid_skene_finds_who_clicks_at_random() -> None:
    rng = random.Random(6)
    items = [item(str(n)) for n in range(300)]
    true = {each.item_id: rng.choice("ab") for each in items}
    rates = {"good": 0.95, "fair": 0.8, "coin-1": 0.5, "coin-2": 0.5, "coin-3": 0.5}
    votes = []
    for each in items:
        right = true[each.item_id]
        wrong = "b" if right == "a" else "a"
        votes += [vote(each.item_id, who, right if rng.random() < rate else wrong) for who, rate in rates.items()]
    known = {each.item_id: each for each in items}
    fit, names, people = annotator_fit(votes, known)
    for who, rate in rates.items():
        found = fit.confusion[people.index(who)]
        # Three standard errors of a share of 300, and the prior's pull of 6 votes.
        assert abs(found[0, 0] / found[0, :2].sum() - rate) < 3 * math.sqrt(0.25 / 300) + 0.03
    sides = {"a": "yes, ", "b": "no, "}
    accuracy = {
        method: sum(
            chosen == sides[true[name.split()[1][:-1]]] + name.split()[1][:-1]
            for name, (chosen, _) in pairs(items, votes, method).items()
        )
        / len(items)
        for method in ("majority", "dawid-skene")
    }
    # The best annotator alone is right in 95 %; a majority with three coins is not.
    assert accuracy["dawid-skene"] > 0.92 > 0.85 > accuracy["majority"]
    assert len(names) == 300
