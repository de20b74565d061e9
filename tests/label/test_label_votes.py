"""Votes are stored once, by whom they belong to, and are never changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError
from tests.label.conftest import Clock, comparison, fill, join

from prefloop.label.assign import next_task, progress
from prefloop.label.config import Quotas
from prefloop.label.guidelines import current, publish
from prefloop.label.intake import import_rows
from prefloop.label.people import deactivate
from prefloop.label.records import Submission, Task, Vote
from prefloop.label.settle import reopen, settle
from prefloop.label.store import Store
from prefloop.label.tables import APPEND_ONLY
from prefloop.label.votes import as_judgments, items_of, submit, undo, votes_of
from prefloop.rundir import write_rows
from prefloop.types import InputError

PLAIN = Quotas(overlap=0, repeats=0, gold=0)


def take(store: Store, who: str, quotas: Quotas = PLAIN) -> Task:
    task = next_task(store, who, quotas=quotas)
    assert task is not None
    return task


def vote(store: Store, who: str, choice: str = "a", *, name: str = "", **others: Any) -> Vote:
    task = take(store, who)
    name = name or f"{who} {task.assignment_id}"
    return submit(store, who, Submission(name, task.assignment_id, choice, **{"seconds": 2.0, **others}))


@pytest.fixture
def ann(store: Store, tmp_path: Path) -> str:
    """An annotator with ten questions to answer."""
    fill(store, tmp_path, 10)
    return join(store)


def test_a_vote_is_stored_as_it_was_sent(store: Store, ann: str, clock: Clock) -> None:
    publish(store, "Choose well.", "owner")
    task = take(store, ann)
    sent = Submission(
        "u1", task.assignment_id, "b", "clearly", "wrong", True, "\u202b\u0645\u0631\u062d\u0628\u0627\u200b", 3.5
    )
    stored = submit(store, ann, sent)
    assert stored == votes_of(store)[0]
    for field in dataclasses.fields(sent):
        assert getattr(stored, field.name) == getattr(sent, field.name)
    assert (stored.item_id, stored.annotator_id, stored.undone) == (task.item.item_id, ann, False)
    assert (stored.shown_first, stored.guideline_version) == (task.shown_first, "1")
    assert stored.at == "2027-01-15T08:00:00.000+00:00"


def test_sent_twice_is_one_vote(store: Store, ann: str) -> None:
    task = take(store, ann)
    first = submit(store, ann, Submission("u1", task.assignment_id, "a", seconds=1))
    assert submit(store, ann, Submission("u1", task.assignment_id, "a", seconds=1)) == first
    # Even if it says something else: the first one was acknowledged.
    assert submit(store, ann, Submission("u1", task.assignment_id, "b", seconds=1)) == first
    assert votes_of(store) == [first]


def test_of_two_tabs_the_first_vote_counts(store: Store, ann: str) -> None:
    task = take(store, ann)
    assert take(store, ann) == task
    first = submit(store, ann, Submission("tab 1", task.assignment_id, "a", seconds=1))
    assert submit(store, ann, Submission("tab 2", task.assignment_id, "b", seconds=1)) == first
    assert votes_of(store) == [first]
    assert take(store, ann).item != task.item


def test_a_task_belongs_to_one_person(store: Store, ann: str) -> None:
    bob = join(store, "bob")
    task = take(store, ann)
    with pytest.raises(InputError, match="assignment_id: is another person's task"):
        submit(store, bob, Submission("u1", task.assignment_id, "a", seconds=1))
    with pytest.raises(InputError, match="assignment_id: no such task"):
        submit(store, ann, Submission("u1", 999, "a", seconds=1))
    submit(store, ann, Submission("u1", task.assignment_id, "a", seconds=1))
    with pytest.raises(InputError, match="submission_id: is another person's"):
        submit(store, bob, Submission("u1", take(store, bob).assignment_id, "a", seconds=1))
    assert len(votes_of(store)) == 1


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"choice": "A"}, "choice: unknown choice 'A'; give one of a, b, tie, both_bad, skip"),
        ({"choice": "hack"}, "choice: unknown choice 'hack'"),
        ({"strength": "very"}, "strength: unknown strength 'very'"),
        ({"choice": "tie", "strength": "clearly"}, "strength: goes with a or b, not with tie"),
        ({"note": "\ud800"}, "note: holds half of a surrogate pair"),
        ({"note": "a\0b"}, "note: holds a NUL byte"),
        ({"note": "x" * 10_001}, "note: has 10001 characters; give at most 10000"),
        ({"reason": "x" * 201}, "reason: has 201 characters"),
        ({"submission_id": ""}, "submission_id: is empty"),
        ({"submission_id": "x" * 65}, "submission_id: has 65 characters"),
        ({"seconds": -1.0}, "seconds: is -1.0"),
        ({"seconds": float("nan")}, "seconds: is nan"),
        ({"seconds": float("inf")}, "seconds: is inf"),
        ({"seconds": 10**400}, "seconds: is 1000"),
        ({"assignment_id": 10**30}, "assignment_id: no such task"),
        ({"assignment_id": -1}, "assignment_id: no such task"),
    ],
)
def test_what_is_no_vote_is_not_stored(store: Store, ann: str, values: dict[str, Any], problem: str) -> None:
    sent = Submission("u1", take(store, ann).assignment_id, "a", seconds=1)
    with pytest.raises(InputError) as refused:
        submit(store, ann, dataclasses.replace(sent, **values))
    assert str(refused.value).startswith(problem)
    assert votes_of(store, with_undone=True) == []


def test_a_review_has_other_choices(store: Store, tmp_path: Path) -> None:
    write_rows(tmp_path / "queue.jsonl", [{"task": "review", "prompt": "p", "response": "r"}])
    import_rows(store, tmp_path / "queue.jsonl")
    ann = join(store)
    with pytest.raises(InputError, match="give one of hack, not_a_hack, unsure"):
        vote(store, ann, "a")
    with pytest.raises(InputError, match="strength: goes with a or b"):
        vote(store, ann, "hack", strength="clearly")
    stored = vote(store, ann, "hack", reason="boasts")
    assert votes_of(store, kind="review") == [stored] and votes_of(store, kind="pair") == []
    assert as_judgments([stored], items_of(store)) == []


def test_undo_adds_a_row_and_opens_the_task_again(store: Store, ann: str, clock: Clock) -> None:
    assert undo(store, ann) is None
    first, second = vote(store, ann, "a"), vote(store, ann, "b")
    clock.time += 5
    third = take(store, ann)
    clock.time += 5
    assert undo(store, ann) == dataclasses.replace(second, undone=True)
    assert votes_of(store) == [first]
    assert votes_of(store, with_undone=True) == [first, dataclasses.replace(second, undone=True)]
    # What was taken back comes before what was open, with the sides as they were.
    again = take(store, ann)
    assert (again.assignment_id, again.shown_first) == (second.assignment_id, second.shown_first)
    corrected = submit(store, ann, Submission("corrected", again.assignment_id, "tie", seconds=1))
    assert [each.choice for each in votes_of(store)] == ["a", "tie"]
    assert take(store, ann).assignment_id == third.assignment_id
    # The first vote, sent again by a slow network, is still the vote that was taken back.
    name = second.submission_id
    late = submit(store, ann, Submission(name, second.assignment_id, "b", seconds=2))
    assert late.undone and len(votes_of(store)) == 2
    assert undo(store, ann) == dataclasses.replace(corrected, undone=True)
    assert undo(store, ann) == dataclasses.replace(first, undone=True)
    assert undo(store, ann) is None


def test_an_undo_that_names_its_vote_happens_once(store: Store, ann: str) -> None:
    first, second = vote(store, ann), vote(store, ann)
    with pytest.raises(InputError, match="is not the newest vote"):
        undo(store, ann, submission_id=first.submission_id)
    taken = undo(store, ann, submission_id=second.submission_id)
    assert taken == undo(store, ann, submission_id=second.submission_id)
    assert votes_of(store) == [first]


def test_undo_is_ones_own(store: Store, ann: str) -> None:
    bob = join(store, "bob")
    vote(store, ann)
    assert undo(store, bob) is None
    assert len(votes_of(store)) == 1


def test_an_item_that_is_undone_wants_an_annotator_again(store: Store, tmp_path: Path, clock: Clock) -> None:
    fill(store, tmp_path, 1)
    ann, bob = join(store), join(store, "bob")
    vote(store, ann)
    assert next_task(store, bob, quotas=PLAIN) is None
    undo(store, ann)
    # Ann holds it for the time of a lease.
    assert next_task(store, bob, quotas=PLAIN) is None
    clock.time += PLAIN.lease_seconds + 1
    assert take(store, bob).item.prompt == "Question 0?"


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET at = 'x'"])
def test_what_only_grows_cannot_be_changed(store: Store, ann: str, table: str, statement: str) -> None:
    publish(store, "Choose well.", "owner")
    item_id = vote(store, ann).item_id
    rita = join(store, "rita", "reviewer")
    reopen(store, rita, settle(store, rita, item_id, "tie").number)
    undo(store, ann)
    with pytest.raises(IntegrityError, match=f"{table} only grows"), store.writing() as connection:
        connection.execute(text(statement.format(table)))
    assert len(votes_of(store, with_undone=True)) == 1 and current(store).version == "1"


def test_the_database_refuses_a_second_vote_by_itself(store: Store, ann: str) -> None:
    vote(store, ann, name="u1")
    columns = "assignment_id, attempt, item_id, annotator_id, choice, flag, note, seconds, guideline_version, "
    columns += "shown_first, is_repeat, at"
    copy = f"INSERT INTO votes (submission_id, {columns}) SELECT 'u2', {columns} FROM votes"
    with pytest.raises(IntegrityError, match="UNIQUE"), store.writing() as connection:
        connection.execute(text(copy))


def test_a_full_disk_stores_nothing_and_says_so(store: Store, ann: str) -> None:
    """The limit is SQLite's own on the number of pages; what it raises is what a full disk raises."""
    with store.reading() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
    limit = [pages]
    event.listen(store.engine, "connect", lambda each, _: each.execute(f"PRAGMA max_page_count = {limit[0]}"))
    acknowledged: list[Vote] = []
    with pytest.raises(OSError, match="full") as full:
        while True:
            acknowledged.append(vote(store, ann, note="x" * 3000))
    assert (full.value.errno, full.value.filename) == (28, store.database)
    assert votes_of(store, with_undone=True) == acknowledged
    limit[0] = 10**6
    # The task is still there, and the same submission is now stored.
    retried = vote(store, ann, note="x" * 3000)
    assert votes_of(store) == [*acknowledged, retried]


def test_judgments_speak_of_the_items_sides(store: Store, tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    given = {"prompt": messages, "comparison_id": "c7", "model_a": "m1", "source": "s"}
    write_rows(tmp_path / "rows.jsonl", [{**given, "response_a": "So.", "response_b": "Because."}])
    import_rows(store, tmp_path / "rows.jsonl")
    ann = join(store)
    stored = vote(store, ann, "b", strength="slightly")
    ((comparison, judgment),) = as_judgments(votes_of(store), items_of(store))
    assert (comparison.comparison_id, comparison.response_b, comparison.model_a) == ("c7", "Because.", "m1")
    assert [(each.role, each.content) for each in comparison.prompt.messages] == [
        ("system", "Be brief."),
        ("user", "Why?"),
    ]
    assert comparison.prompt.source == "s"
    assert (judgment.comparison_id, judgment.choice, judgment.strength) == ("c7", "b", "slightly")
    assert (judgment.annotator_id, judgment.at, judgment.seconds) == (ann, stored.at, 2.0)


def test_who_was_deactivated_votes_no_more(store: Store, ann: str) -> None:
    task = take(store, ann)
    deactivate(store, ann, "owner")
    for attempt in (
        lambda: submit(store, ann, Submission("u1", task.assignment_id, "a", seconds=1)),
        lambda: next_task(store, ann, quotas=PLAIN),
        lambda: undo(store, ann),
    ):
        with pytest.raises(InputError, match="was deactivated"):
            attempt()
    with pytest.raises(InputError, match="no such person"):
        next_task(store, "nobody", quotas=PLAIN)


def test_progress_counts_votes_and_what_is_left(store: Store, ann: str, clock: Clock) -> None:
    fresh = progress(store, ann)
    assert (fresh.done, fresh.today, fresh.left, fresh.seconds_median) == (0, 0, 10, None)
    for seconds in (1.0, 5.0, 2.0):
        vote(store, ann, seconds=seconds)
    clock.time += 86_400
    vote(store, ann, "skip", seconds=9.0)
    now = progress(store, ann)
    assert (now.done, now.today, now.left, now.seconds_median) == (4, 1, 6, 3.5)
    # Of the ten items floor(10 x 0.2) want a second annotator, whoever was the first.
    assert progress(store, join(store, "bob")).left == 10 - 3 + 2 - sum(_wanted_twice(store, ann))


def _wanted_twice(store: Store, who: str) -> list[bool]:
    """For each item whether it wants two and has no answer yet: those count once."""
    with store.reading() as connection:
        rows = connection.execute(text("SELECT place, answers FROM items")).all()
    return [row.answers == 0 and (row.place + 1) % 5 == 0 for row in rows]


def test_a_long_response_is_kept_whole(store: Store, tmp_path: Path) -> None:
    texts = {"response_a": "ä" * 100_000, "response_b": "\u202eabc\u2066 \u05e9\u05dc\u05d5\u05dd \u200b\u200d\ufeff"}
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "p", **texts}])
    import_rows(store, tmp_path / "rows.jsonl")
    item = take(store, join(store)).item
    assert (item.response_a, item.response_b) == (texts["response_a"], texts["response_b"])
    assert comparison(0)["response_a"] == "yes, 0"
