"""Who gets what: quotas, repetitions, gold questions, what is skipped or left lying."""

from __future__ import annotations

import collections
import itertools
import math
from pathlib import Path

import pytest
from tests.label.conftest import Clock, fill, join

from prefloop.label.assign import next_task
from prefloop.label.config import Quotas
from prefloop.label.records import Submission, Task
from prefloop.label.store import Store
from prefloop.label.votes import items_of, submit, votes_of

PLAIN = Quotas(overlap=0, repeats=0, gold=0)


def do(store: Store, who: str, quotas: Quotas, num: int = 10**6, *, choice: str = "a") -> list[Task]:
    """So many tasks of one annotator, or all there are."""
    done: list[Task] = []
    while len(done) < num and (task := next_task(store, who, quotas=quotas)) is not None:
        submit(store, who, Submission(f"{who} {task.assignment_id}", task.assignment_id, choice, seconds=1))
        done.append(task)
    return done


@pytest.mark.parametrize(("overlap", "second"), [(0.0, 0), (0.2, 2), (0.33, 4), (1.0, 13)])
def test_the_share_of_second_annotators_is_exact(store: Store, tmp_path: Path, overlap: float, second: int) -> None:
    """floor(13 x share), whoever is faster."""
    fill(store, tmp_path, 13)
    quotas = Quotas(overlap=overlap, repeats=0, gold=0)
    who = [join(store, name) for name in ("ann", "bob", "cleo")]
    for turn in range(30):
        do(store, who[turn % 3 if turn % 5 else 0], quotas, 1)
    answers = collections.Counter(vote.item_id for vote in votes_of(store))
    assert sorted(answers.values()) == [1] * (13 - second) + [2] * second
    assert all(next_task(store, each, quotas=quotas) is None for each in who)


def test_the_overlap_stays_exact_when_more_is_imported(store: Store, tmp_path: Path) -> None:
    who = [join(store, name) for name in ("ann", "bob")]
    quotas = Quotas(repeats=0, gold=0)
    for num in (3, 4, 8, 11):
        fill(store, tmp_path, num)
        for each in who:
            do(store, each, quotas)
        answers = collections.Counter(vote.item_id for vote in votes_of(store))
        assert len(answers) == num and sum(each == 2 for each in answers.values()) == num // 5


def test_gold_and_repetitions_come_once_in_twenty_tasks(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path, 70, num_gold=12)
    quotas = Quotas()
    at: list[tuple[int, int]] = []
    for name in ("ann", "bob"):
        done = do(store, join(store, name), quotas, 40)
        for block in (done[:20], done[20:]):
            gold = [place for place, task in enumerate(block) if task.item.gold is not None]
            repeats = [place for place, task in enumerate(block) if task.is_repeat]
            assert (len(gold), len(repeats)) == (1, 1)
            at.append((gold[0], repeats[0]))
    # Nobody can tell by counting.
    assert len({gold for gold, _ in at}) > 1 and len({repeat for _, repeat in at}) > 1


def test_a_repetition_comes_later_once_and_is_ones_own_answer(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path, 60, num_gold=5)
    quotas = Quotas(repeats=0.25, repeat_gap=7)
    done = do(store, join(store), quotas, 48)
    first = {task.item.item_id: place for place, task in reversed(list(enumerate(done))) if not task.is_repeat}
    repeats = [(place, task) for place, task in enumerate(done) if task.is_repeat]
    assert len(repeats) == 12
    assert len({task.item.item_id for _, task in repeats}) == 12
    assert all(place - first[task.item.item_id] > 7 and task.item.gold is None for place, task in repeats)
    counted = collections.Counter((task.item.item_id, task.is_repeat) for task in done)
    assert set(counted.values()) == {1}


def test_skipped_answers_are_not_repeated(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path, 12)
    assert not any(task.is_repeat for task in do(store, join(store), Quotas(repeats=0.5, repeat_gap=0), choice="skip"))


def test_sides_are_drawn_for_each_annotator_and_item_and_again_for_a_repetition(store: Store, tmp_path: Path) -> None:
    """50 fair coins fall between 6 and 44 with a chance of all but 1e-7."""
    fill(store, tmp_path, 25)
    quotas = Quotas(overlap=1, repeats=0.4, gold=0, repeat_gap=1)
    by_annotator = [do(store, join(store, name), quotas) for name in ("ann", "bob")]
    firsts, again = (
        [
            {each.item.item_id: each.shown_first for each in tasks if each.is_repeat == is_repeat}
            for tasks in by_annotator
        ]
        for is_repeat in (False, True)
    )
    drawn = [side for sides in firsts for side in sides.values()]
    assert len(drawn) == 50 and 6 < drawn.count("a") < 44
    same = [firsts[0][item_id] == side for item_id, side in firsts[1].items()]
    assert 1 < sum(same) < 24
    same = [
        sides[item_id] == side
        for sides, repeated in zip(firsts, again, strict=True)
        for item_id, side in repeated.items()
    ]
    assert len(same) > 25 and 0.1 < sum(same) / len(same) < 0.9
    stored = {vote.assignment_id: vote.shown_first for vote in votes_of(store)}
    assert stored == {task.assignment_id: task.shown_first for tasks in by_annotator for task in tasks}


def test_without_gold_questions_the_work_goes_on(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path, 12, num_gold=1)
    done = do(store, join(store), Quotas(gold=0.5, repeats=0))
    assert sum(task.item.gold is not None for task in done) == 1 and len(done) == 13


def test_gold_questions_go_to_everybody_and_count_for_no_quota_of_items(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path, 8, num_gold=3)
    for name in ("ann", "bob", "cleo"):
        do(store, join(store, name), Quotas(overlap=1, gold=0.5, repeats=0))
    items = items_of(store)
    answers = collections.Counter(vote.item_id for vote in votes_of(store))
    assert {answers[item_id] for item_id in items if items[item_id].gold is None} == {2}
    assert max(answers[item_id] for item_id in items if items[item_id].gold is not None) >= 2


def test_a_skipped_item_goes_to_others_and_never_back(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path, 3)
    ann, bob = join(store), join(store, "bob")
    skipped = {task.item.item_id for task in do(store, ann, PLAIN, choice="skip")}
    assert len(skipped) == 3
    assert {task.item.item_id for task in do(store, bob, PLAIN)} == skipped
    assert next_task(store, ann, quotas=PLAIN) is None


def test_what_is_left_lying_goes_to_others(store: Store, tmp_path: Path, clock: Clock) -> None:
    fill(store, tmp_path, 1)
    ann, bob = join(store), join(store, "bob")
    task = next_task(store, ann, quotas=PLAIN)
    assert task is not None and task.lease_until == clock.time + 1800
    clock.time += 1799
    assert next_task(store, bob, quotas=PLAIN) is None
    clock.time += 1
    other = next_task(store, bob, quotas=PLAIN)
    assert other is not None and other.item == task.item
    # It is not given to two at a time, and who comes too late has not worked in vain.
    assert next_task(store, ann, quotas=PLAIN) is None
    submit(store, ann, Submission("late", task.assignment_id, "b", seconds=1))
    submit(store, bob, Submission("in time", other.assignment_id, "a", seconds=1))
    assert [vote.submission_id for vote in votes_of(store)] == ["late", "in time"]


def test_what_nobody_took_comes_back_to_whom_it_was_given(store: Store, tmp_path: Path, clock: Clock) -> None:
    fill(store, tmp_path, 5)
    ann = join(store)
    task = next_task(store, ann, quotas=PLAIN)
    clock.time += 10**6
    again = next_task(store, ann, quotas=PLAIN)
    assert task is not None and again is not None
    assert (again.assignment_id, again.shown_first) == (task.assignment_id, task.shown_first)
    assert again.lease_until == clock.time + 1800


def test_looking_at_a_task_again_keeps_it(store: Store, tmp_path: Path, clock: Clock) -> None:
    fill(store, tmp_path, 1)
    ann, bob = join(store), join(store, "bob")
    for _ in range(5):
        assert next_task(store, ann, quotas=PLAIN) is not None
        clock.time += 1000
        assert next_task(store, bob, quotas=PLAIN) is None


@pytest.mark.parametrize("hours", [-3, -0.4, 0.4, 3])
def test_a_clock_that_jumps_loses_nothing_and_blocks_nobody(
    store: Store, tmp_path: Path, clock: Clock, hours: float
) -> None:
    fill(store, tmp_path, 2)
    ann, bob = join(store), join(store, "bob")
    held = next_task(store, ann, quotas=PLAIN)
    clock.time += hours * 3600
    others = do(store, bob, PLAIN)
    # A jump of more than a lease gives up what was held; a small one does not.
    assert len(others) == (2 if abs(hours) > 1 else 1)
    assert held is not None
    submit(store, ann, Submission("mine", held.assignment_id, "a", seconds=1))
    assert [vote.number for vote in votes_of(store)] == list(range(1, len(others) + 2))


def test_the_order_is_not_that_of_the_file(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path, 30)
    prompts = [task.item.prompt for task in do(store, join(store), PLAIN)]
    assert sorted(prompts) == sorted(f"Question {number}?" for number in range(30))
    numbers = [int("".join(filter(str.isdigit, prompt))) for prompt in prompts]
    ups = sum(second > first for first, second in itertools.pairwise(numbers))
    # Eulerian numbers: mean (n - 1) / 2, variance (n + 1) / 12.
    assert abs(ups - 29 / 2) < 5 * math.sqrt(31 / 12)
