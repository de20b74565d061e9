"""Quality of votes: numbers worked out by hand, and simulated annotators whose faults are known."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from prefloop.label.adjudicate import disagreements
from prefloop.label.attention import longest_run
from prefloop.label.opinions import is_mirrored, ordinal
from prefloop.label.quality import AnnotatorQuality, QualityReport, quality
from prefloop.label.records import Item, Vote

NUMBERS = itertools.count(1)


def item(name: str, kind: Any = "pair", gold: str | None = None, prompt: str = "") -> Item:
    b = None if kind == "review" else f"no, {name}"
    return Item(name, kind, prompt or f"Question {name}?", f"yes, {name}", b, None, None, gold)


def vote(name: str, who: str, choice: str, strength: Any = None, first: Any = "a", **others: Any) -> Vote:
    number = next(NUMBERS)
    values: dict[str, Any] = {"reason": None, "flag": False, "note": "", "seconds": 0.0, "is_repeat": False}
    values |= {"guideline_version": "1", "at": "", "undone": False} | others
    ids = {"number": number, "submission_id": f"s{number}", "assignment_id": number}
    said = {"item_id": name, "annotator_id": who, "choice": choice, "strength": strength, "shown_first": first}
    return Vote(**ids, **said, **values)


def measured(items: Sequence[Item], votes: Sequence[Vote], kind: Any = "pair") -> QualityReport:
    return quality({each.item_id: each for each in items}, votes, kind=kind, seed=0, num_resamples=100)


def one(report: QualityReport, who: str) -> AnnotatorQuality:
    return next(each for each in report.annotators if each.annotator_id == who)


def test_agreement_counts_pairs_of_people_who_chose_a_side() -> None:
    # Item 1: a a b, one of three pairs of people agrees. Item 2: a a. Item 3: a and a tie, no pair that tells.
    votes = [vote("1", "x", "a"), vote("1", "y", "a"), vote("1", "z", "b")]
    votes += [vote("2", "x", "a"), vote("2", "y", "a"), vote("3", "x", "a"), vote("3", "y", "tie")]
    report = measured([item(name) for name in "123"], votes)
    assert (report.agreement.count, report.agreement.n) == (2, 4)
    assert report.num_shared == 3
    assert (one(report, "z").agreement.count, one(report, "z").agreement.n) == (0, 2)
    assert (one(report, "x").agreement.count, one(report, "x").agreement.n) == (2, 3)


def test_repetitions_skips_and_votes_taken_back_are_no_agreement() -> None:
    votes = [vote("1", "x", "a"), vote("1", "x", "b", is_repeat=True), vote("1", "y", "skip")]
    votes.append(vote("1", "z", "b", undone=True))
    report = measured([item("1")], votes)
    assert report.num_shared == 0 and report.agreement.n == 0
    assert (report.consistency.count, report.consistency.n) == (0, 1)
    assert one(report, "y").num_silent == 1
    json.dumps(report.as_values())


def test_the_ordinal_scale_forgives_what_the_nominal_one_cannot() -> None:
    names = [str(number) for number in range(200)]
    rng = random.Random(1)
    near, far = [], []
    for name in names:
        side = rng.choice("ab")
        other = side if rng.random() < 0.8 else "tie"
        near += [vote(name, "x", side, "slightly"), vote(name, "y", other, "slightly" if other == side else None)]
        opposite = side if rng.random() < 0.8 else {"a": "b", "b": "a"}[side]
        far += [vote(name, "x", side, "clearly"), vote(name, "y", opposite, "clearly")]
    items = [item(name) for name in names]
    mild, harsh = measured(items, near), measured(items, far)
    assert mild.alpha_ordinal is not None and harsh.alpha_ordinal is not None
    assert mild.alpha_ordinal.value > mild.alpha_nominal.value + 0.05
    # Where only the two ends are used, both scales know two categories.
    assert harsh.alpha_ordinal.value == pytest.approx(harsh.alpha_nominal.value)


def test_the_sides_are_drawn_by_lot() -> None:
    drawn = [is_mirrored(str(number)) for number in range(1000)]
    assert 430 < sum(drawn) < 570
    plain, mirrored = drawn.index(False), drawn.index(True)
    assert ordinal(vote(str(plain), "x", "b", "clearly")) == 4
    assert ordinal(vote(str(mirrored), "x", "b", "clearly")) == 0
    assert ordinal(vote(str(plain), "x", "a")) == 1
    assert {ordinal(vote(str(name), "x", "both_bad")) for name in (plain, mirrored)} == {2}


def test_one_sided_choices_do_not_hide_agreement() -> None:
    # a is always the better model's response and 95 % of the votes say so: kappa on the sides as they stand is near 0.
    rng = random.Random(3)
    names = [str(number) for number in range(400)]
    votes = [vote(n, who, "a" if rng.random() < 0.95 else "b") for n in names for who in ("x", "y")]
    report = measured([item(name) for name in names], votes)
    assert report.kappas[0].agreement.value == pytest.approx(
        2 * report.agreement.count / report.agreement.n - 1, abs=0.03
    )


def test_gold_questions() -> None:
    items = [item(str(number), gold="a") for number in range(40)]
    votes = [vote(each.item_id, "good", "a") for each in items]
    votes += [vote(each.item_id, "poor", "b" if number % 2 else "a") for number, each in enumerate(items)]
    votes += [vote(each.item_id, "shy", "skip") for each in items]
    report = measured(items, votes)
    assert [one(report, name).gold.value for name in ("good", "poor", "shy")] == [1.0, 0.5, None]
    # 20 of 40: Wilson's interval ends at 0.648.
    assert one(report, "poor").gold.interval[1] == pytest.approx(0.648, abs=0.001)
    assert one(report, "poor").flags == ("gold",) and "gold" not in one(report, "shy").flags
    # Gold questions are no open ones.
    assert report.num_shared == 0


def test_position_bias_is_an_exact_binomial_test() -> None:
    # 9 of 10: p = 2 (1 + 10) / 1024, for two annotators doubled by Holm.
    votes = [vote(str(n), "x", "a", first="a" if n else "b") for n in range(10)]
    votes += [vote(str(n), "y", "a", first="ab"[n % 2]) for n in range(10)]
    report = measured([item(str(n)) for n in range(10)], votes)
    assert one(report, "x").first.count == 9
    assert one(report, "x").first_p == pytest.approx(2 * 2 * 11 / 1024)
    assert one(report, "y").first_p == 1.0
    assert report.first.count == 14 and report.first.n == 20


def test_speed_is_held_against_what_there_is_to_read() -> None:
    # 100 words of prompt and 2 + 2 of responses: nobody reads that in less than 10.4 s.
    items = [item(str(n), prompt="word " * 100) for n in range(20)]
    votes = [vote(str(n), "quick", "a", seconds=10.3 if n < 6 else 10.5) for n in range(20)]
    votes += [vote(str(n), "calm", "ab"[n % 2], seconds=10.3 if n < 5 else 10.5) for n in range(20)]
    votes += [vote(str(n), "untimed", "ab"[n // 2 % 2]) for n in range(20)]
    report = measured(items, votes)
    assert "fast" in one(report, "quick").flags
    assert "fast" not in one(report, "calm").flags and one(report, "untimed").fast.n == 0
    assert one(report, "calm").seconds_median == 10.5


def test_a_long_run_is_flagged_and_agreeing_with_everybody_is_not() -> None:
    pressed = [vote(str(n), "x", "a", first="a") for n in range(20)]
    others = [vote(str(n), "y", "ab"[n % 2], first="a") for n in range(20)]
    run = longest_run(pressed, others)
    assert run is not None
    assert (run.answer, run.length, run.chance) == ("first", 20, pytest.approx(0.5**20))
    same = longest_run(pressed, [vote(str(n), "y", "a", first="a") for n in range(20)])
    assert same is not None and same.chance == 1.0
    assert longest_run([], others) is None


def test_runs_of_honest_people_are_rarely_flagged() -> None:
    rng = random.Random(7)
    flagged = 0
    for _ in range(200):
        votes = [vote(str(n), "x", rng.choice("ab"), first="a") for n in range(100)]
        run = longest_run(votes, [])
        flagged += run is not None and run.chance < 1e-3
    assert flagged <= 1


def test_influence_is_what_the_majority_loses() -> None:
    # 1: a a b, without z unchanged, without x or y a tie of one to one. 2: only x. 3: x against y, z decides.
    votes = [vote("1", "x", "a"), vote("1", "y", "a"), vote("1", "z", "b"), vote("2", "x", "a")]
    votes += [vote("3", "x", "a"), vote("3", "y", "b"), vote("3", "z", "b")]
    report = measured([item(name) for name in "123"], votes)
    found = {name: one(report, name).influence for name in "xyz"}
    assert {name: (each.changed, each.lost, each.pairs) for name, each in found.items()} == {
        "x": (1, 1, 3),
        "y": (2, 0, 3),
        "z": (1, 0, 3),
    }
    assert found["x"].share == pytest.approx(2 / 3)


def test_who_contradicts_themselves_is_flagged() -> None:
    names = [str(number) for number in range(30)]
    votes = [vote(name, who, "a") for name in names for who in ("steady", "fickle")]
    votes += [vote(name, "steady", "a", is_repeat=True) for name in names]
    votes += [vote(name, "fickle", "ab"[n % 2], is_repeat=True) for n, name in enumerate(names)]
    report = measured([item(name) for name in names], votes)
    assert "inconsistent" in one(report, "fickle").flags and "inconsistent" not in one(report, "steady").flags
    assert report.consistency.count == 45 and report.consistency.n == 60


def test_reviews_have_their_own_quality() -> None:
    items = [item(str(n), "review") for n in range(3)] + [item("pair")]
    votes = [vote("0", "x", "hack"), vote("0", "y", "hack"), vote("1", "x", "hack"), vote("1", "y", "not_a_hack")]
    votes += [vote("2", "x", "unsure"), vote("2", "y", "hack"), vote("pair", "x", "a")]
    report = measured(items, votes, kind="review")
    assert (report.num_votes, report.num_shared) == (6, 2)
    assert (report.agreement.count, report.agreement.n) == (1, 2)
    assert report.alpha_ordinal is None and report.first.n == 0


def test_the_queue_has_the_furthest_apart_first() -> None:
    votes = [vote("mild", "x", "a", "slightly"), vote("mild", "y", "tie")]
    votes += [vote("fierce", "x", "a", "clearly"), vote("fierce", "y", "b", "clearly")]
    votes += [vote("same", "x", "a", "slightly"), vote("same", "y", "a", "clearly")]
    votes += [vote("odd", "x", "skip", flag=True), vote("gold", "x", "a"), vote("gold", "y", "b")]
    items = {
        name: item(name, gold="a" if name == "gold" else None) for name in ("mild", "fierce", "same", "odd", "gold")
    }
    queue = disagreements(items, votes)
    assert [(each.item.item_id, each.distance) for each in queue] == [("fierce", 4.0), ("mild", 1.0), ("odd", 0.0)]
    assert "annotator" not in json.dumps(queue[0].as_row())
