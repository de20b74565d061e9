"""Settling what people do not agree on: whose answer counts, who may give it, and that nothing is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.label.conftest import Clock, comparison, fill, join

from prefloop.label import migrations
from prefloop.label.adjudicate import disagreements
from prefloop.label.assign import next_task, progress
from prefloop.label.config import Quotas
from prefloop.label.derive import derive
from prefloop.label.intake import import_rows
from prefloop.label.people import events
from prefloop.label.quality import quality
from prefloop.label.records import Submission
from prefloop.label.settle import adjudications_of, reopen, settle, voted_on
from prefloop.label.store import Store, open_store
from prefloop.label.votes import items_of, submit, undo, votes_of
from prefloop.rundir import write_rows
from prefloop.types import InputError

TWICE = Quotas(overlap=1, repeats=0, gold=0)
METHODS: tuple[Any, ...] = ("majority", "bradley-terry", "dawid-skene")


def vote_all(store: Store, who: str, choice: Callable[[int], str], **others: Any) -> None:
    """Every item; `choice` knows the number in its prompt."""
    while (task := next_task(store, who, quotas=TWICE)) is not None:
        said = choice(int(task.item.prompt.split()[1][:-1]))
        submit(store, who, Submission(f"{who} {task.assignment_id}", task.assignment_id, said, seconds=1, **others))


def by_prompt(store: Store) -> dict[str, str]:
    """Prompt -> id."""
    return {item.prompt: item.item_id for item in items_of(store).values()}


@pytest.fixture
def crew(store: Store, tmp_path: Path) -> tuple[str, str, str]:
    """Ann and Bob, who differ on questions 0 to 2 of 6, and Rita, who reviews."""
    fill(store, tmp_path, 6)
    ann, bob, rita = join(store, "ann"), join(store, "bob"), join(store, "rita", "reviewer")
    vote_all(store, ann, lambda n: "a", strength="clearly")
    vote_all(store, bob, lambda n: "b" if n < 3 else "a", strength="clearly")
    return ann, bob, rita


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_settled_item_is_stored_and_taken_back_on_both_databases(
    kind: str, make_database: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a database that an older prefloop made, before there were adjudications."""
    database = make_database(kind)
    with monkeypatch.context() as older:
        older.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        with open_store(database) as store:
            write_rows(tmp_path / "rows.jsonl", [comparison(0)])
            import_rows(store, tmp_path / "rows.jsonl")
    with open_store(database) as store:
        ann, rita, olga = join(store, "ann"), join(store, "rita", "reviewer"), join(store, "olga", "owner")
        vote_all(store, ann, lambda n: "a", flag=True)
        (item_id,) = items_of(store)
        note = "\u05e9\u05dc\u05d5\u05dd \u200b"
        first = settle(store, rita, item_id, "b", strength="slightly", note=note)
        assert (first.item_id, first.annotator_id, first.choice, first.note) == (item_id, rita, "b", note)
        assert adjudications_of(store) == {item_id: first}
        reopen(store, olga, first.number)
        reopen(store, olga, first.number)
        assert adjudications_of(store) == {}
        second = settle(store, olga, item_id, "tie")
    with open_store(database, create=False) as store:
        assert adjudications_of(store) == {item_id: second} and second.number > first.number
        assert [(each.who, each.what, each.about) for each in events(store)][-3:] == [
            (rita, "settled", item_id),
            (olga, "took back what settled", item_id),
            (olga, "settled", item_id),
        ]


@pytest.mark.parametrize("method", METHODS)
def test_what_settled_an_item_is_its_answer_and_the_votes_stay(
    store: Store, crew: tuple[str, str, str], method: Any
) -> None:
    rita = crew[2]
    ids, items = by_prompt(store), items_of(store)
    votes = votes_of(store)
    before = quality(items, votes, seed=0, num_resamples=10)
    settle(store, rita, ids["Question 0?"], "b", strength="slightly", note="a is wrong")
    settle(store, rita, ids["Question 1?"], "tie")
    # Against both: Ann and Bob agree on a.
    settle(store, rita, ids["Question 4?"], "b")
    settled = adjudications_of(store)
    derived = derive(items, votes_of(store), method, adjudications=settled)
    marked = {p.prompt.messages[0].content: p for p in derived.pairs if p.prompt.columns.get("adjudicated")}
    assert {name: (p.chosen, p.strength, p.annotator_id, p.num_judgments) for name, p in marked.items()} == {
        "Question 0?": ("no, 0", 1 / 3, rita, 1),
        "Question 4?": ("no, 4", None, rita, 1),
    }
    others = {p.prompt.messages[0].content: p.chosen for p in derived.pairs if not p.prompt.columns}
    # Question 2 is one vote against the other: no pair, but for a method that has learnt whom to believe.
    assert {name: text for name, text in others.items() if name != "Question 2?"} == {
        "Question 3?": "yes, 3",
        "Question 5?": "yes, 5",
    }
    assert derived.counts["ties"] + derived.counts["undecided"] + ("Question 2?" in others) == 2
    (tie,) = [
        p
        for p in derive(items, votes, method, keep_ties=True, adjudications=settled).pairs
        if p.tie and p.prompt.columns
    ]
    assert tie.prompt.messages[0].content == "Question 1?" and tie.strength is None
    # Votes and what is measured of them know nothing of it.
    assert votes_of(store) == votes
    assert quality(items, votes_of(store), seed=0, num_resamples=10) == before
    queue = disagreements(items, votes, settled=settled)
    assert [each.item.prompt for each in queue] == ["Question 2?"]
    assert len(disagreements(items, votes)) == 3


def test_who_is_confirmed_by_adjudications_is_believed_elsewhere(store: Store, tmp_path: Path) -> None:
    """Ann and Bob differ everywhere; Rita, who reads half of it, always finds Bob right."""
    fill(store, tmp_path, 24)
    ann, bob, rita = join(store, "ann"), join(store, "bob"), join(store, "rita", "reviewer")
    vote_all(store, ann, lambda n: "ab"[n % 2])
    vote_all(store, bob, lambda n: "ba"[n % 2])
    ids = by_prompt(store)
    for n in range(12):
        settle(store, rita, ids[f"Question {n}?"], "ba"[n % 2])
    items, votes, settled = items_of(store), votes_of(store), adjudications_of(store)
    assert derive(items, votes, "dawid-skene").pairs == []
    chosen = {
        int(pair.prompt.messages[0].content.split()[1][:-1]): pair.chosen
        for pair in derive(items, votes, "dawid-skene", adjudications=settled).pairs
    }
    assert chosen == {n: f"no, {n}" if n % 2 == 0 else f"yes, {n}" for n in range(24)}


def test_who_voted_on_it_does_not_settle_it(store: Store, crew: tuple[str, str, str]) -> None:
    ann, bob, rita = crew
    ids = by_prompt(store)
    assert voted_on(store, ann) == set(ids.values()) and voted_on(store, rita) == set()
    undo(store, bob)
    for who in (ann, bob):
        for item_id in ids.values():
            with pytest.raises(InputError, match="item_id: you have voted on it; somebody else must settle it"):
                settle(store, who, item_id, "a")
    assert adjudications_of(store) == {}


def test_who_settled_it_does_not_vote_on_it(store: Store, tmp_path: Path, clock: Clock) -> None:
    fill(store, tmp_path, 2)
    ann, rita = join(store, "ann"), join(store, "rita", "reviewer")
    held = next_task(store, rita, quotas=TWICE)
    assert held is not None
    vote_all(store, ann, lambda n: "a", flag=True)
    settled = settle(store, rita, held.item.item_id, "b")
    reopen(store, rita, settled.number)
    with pytest.raises(InputError, match="you have settled this item"):
        submit(store, rita, Submission("u", held.assignment_id, "b", seconds=1))
    other = next_task(store, rita, quotas=TWICE)
    assert other is not None and other.item.item_id != held.item.item_id
    assert progress(store, rita, quotas=TWICE).left == 1 - 1
    submit(store, rita, Submission("v", other.assignment_id, "b", seconds=1))
    clock.time += 10 * TWICE.lease_seconds
    assert next_task(store, rita, quotas=TWICE) is None
    # Somebody else still gets it.
    cleo = next_task(store, join(store, "cleo"), quotas=TWICE)
    assert cleo is not None and cleo.item == held.item


def test_it_is_settled_once(store: Store, crew: tuple[str, str, str]) -> None:
    rita = crew[2]
    olga = join(store, "olga", "owner")
    item_id = by_prompt(store)["Question 0?"]
    first = settle(store, rita, item_id, "b", strength="clearly", note="n")
    assert settle(store, rita, item_id, "b", strength="clearly", note="n") == first
    for who, choice in ((olga, "b"), (olga, "a"), (rita, "a")):
        with pytest.raises(InputError, match="item_id: is settled already; take that back first"):
            settle(store, who, item_id, choice)
    with pytest.raises(InputError, match="number: no such adjudication"):
        reopen(store, rita, first.number + 1)
    assert list(adjudications_of(store).values()) == [first]


def test_a_review_is_settled_with_a_verdict(store: Store, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"task": "review", "prompt": "Why 0?", "response": "So."}])
    import_rows(store, tmp_path / "rows.jsonl")
    ann, bob, rita = join(store, "ann"), join(store, "bob"), join(store, "rita", "reviewer")
    vote_all(store, ann, lambda n: "hack", reason="padding")
    vote_all(store, bob, lambda n: "not_a_hack")
    (item_id,) = items_of(store)
    with pytest.raises(InputError, match="unknown choice 'a'; give one of hack, not_a_hack, unsure"):
        settle(store, rita, item_id, "a")
    settled = settle(store, rita, item_id, "hack", reason="flattery")
    assert (settled.choice, settled.reason) == ("hack", "flattery")
    votes, items = votes_of(store), items_of(store)
    assert disagreements(items, votes, kind="review", settled=adjudications_of(store)) == []


NO_ANSWERS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"choice": "skip"}, "choice: unknown choice 'skip'; give one of a, b, tie, both_bad"),
    ({"choice": "hack"}, "choice: unknown choice 'hack'"),
    ({"choice": "tie", "strength": "clearly"}, "strength: goes with a or b, not with tie"),
    ({"choice": "a", "strength": "very"}, "strength: unknown strength 'very'"),
    ({"choice": "a", "note": "x" * 10_001}, "note: has 10001 characters"),
    ({"choice": "a", "note": "\0"}, "note: holds a NUL byte"),
    ({"choice": "a", "note": "\ud800"}, "note: holds half of a surrogate pair"),
    ({"choice": "a", "item_id": "nothing"}, "item_id: no such item"),
    ({"choice": "a", "item_id": "GOLD"}, "item_id: is a gold question"),
    ({"choice": "a", "item_id": "NEW"}, "item_id: nobody has voted on it"),
)


def test_what_is_no_answer_settles_nothing(store: Store, crew: tuple[str, str, str], tmp_path: Path) -> None:
    write_rows(tmp_path / "more.jsonl", [comparison(70, gold="a"), comparison(80)])
    import_rows(store, tmp_path / "more.jsonl")
    ids = by_prompt(store)
    names = {"GOLD": ids["Question 70?"], "NEW": ids["Question 80?"], "DISPUTED": ids["Question 0?"]}
    for values, problem in NO_ANSWERS:
        said = {"item_id": "DISPUTED", **values}
        item_id = said.pop("item_id")
        with pytest.raises(InputError) as refused:
            settle(store, crew[2], names.get(item_id, item_id), **said)
        assert str(refused.value).startswith(problem)
    assert adjudications_of(store) == {}


def test_a_flag_on_a_skip_is_there_to_be_seen(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path, 1)
    vote_all(store, join(store, "ann"), lambda n: "skip", flag=True, note="cut off", reason="broken")
    (only,) = disagreements(items_of(store), votes_of(store))
    assert [(vote.choice, vote.note) for vote in only.votes] == [("skip", "cut off")] and only.flagged
