"""Many annotators at once, and annotators that are killed: on SQLite and on PostgreSQL.

Full sizes: `make test-label`.
"""

from __future__ import annotations

import collections
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.label.conftest import Voters, diary, fill, join, unsynced

from prefloop.label import tables
from prefloop.label.assign import next_task
from prefloop.label.config import Quotas
from prefloop.label.records import Submission
from prefloop.label.store import Store, open_store
from prefloop.label.votes import submit, votes_of

NUM_ANNOTATORS = int(os.environ.get("PREFLOOP_ANNOTATORS", "8"))
NUM_VOTES = int(os.environ.get("PREFLOOP_VOTES", "10"))
NUM_KILLS = int(os.environ.get("PREFLOOP_KILLS", "10"))
IS_FULL = NUM_VOTES >= 40
QUOTAS: dict[str, Any] = {} if IS_FULL else {"gold": 0.1, "repeats": 0.1, "repeat_gap": 3}
"""The usual quotas need 20 votes for one gold question."""
KINDS = ("sqlite", "postgresql")
# A server makes the same test slower; small, it only has to show that the same code runs there.
SHARE = {"sqlite": 1, "postgresql": 1 if IS_FULL else 2}


def derived_from_votes(store: Store) -> tuple[dict[int, str], dict[str, int]]:
    """What the votes that stand say of the state of assignments and the number of answers of items."""
    states: dict[int, str] = {}
    answers: collections.Counter[str] = collections.Counter()
    with store.reading() as connection:
        gold = set(connection.execute(select(tables.items.c.item_id).where(tables.items.c.gold.is_not(None))).scalars())
    for vote in votes_of(store):
        assert vote.assignment_id not in states, "two votes stand for one assignment"
        states[vote.assignment_id] = "skipped" if vote.choice == "skip" else "done"
        answers[vote.item_id] += not (vote.is_repeat or vote.item_id in gold or vote.choice == "skip")
    return states, {item_id: number for item_id, number in answers.items() if number}


def require_consistent(store: Store) -> None:
    """What is kept beside the votes is what they say, and nobody had an item twice but as a repetition."""
    states, answers = derived_from_votes(store)
    work, items = tables.assignments, tables.items
    with store.reading() as connection:
        kept = {row.assignment_id: row.state for row in connection.execute(select(work))}
        counted = {row.item_id: row.answers for row in connection.execute(select(items).where(items.c.answers != 0))}
        twice = select(work.c.item_id).group_by(work.c.item_id, work.c.annotator_id, work.c.is_repeat)
        assert connection.execute(twice.having(func.count() > 1)).all() == []
        if store.is_sqlite:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    assert {number: state for number, state in kept.items() if state != "open"} == states
    assert counted == answers


@pytest.mark.parametrize("kind", KINDS)
def test_quotas_hold_exactly_when_all_vote_at_once(
    kind: str, make_database: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database, num_annotators = make_database(kind), NUM_ANNOTATORS // SHARE[kind]
    num_items = num_annotators * NUM_VOTES * 4 // 5
    with open_store(database) as store:
        fill(store, tmp_path, num_items, num_gold=5)
        who = [join(store, f"annotator {number}") for number in range(num_annotators)]
        started = time.perf_counter()
        voters = Voters(database, tmp_path / "diaries", NUM_VOTES, QUOTAS, who)
        assert voters.codes() == [0] * num_annotators
        seconds = time.perf_counter() - started
        require_consistent(store)
        votes = votes_of(store, with_undone=True)
        assert collections.Counter(vote.annotator_id for vote in votes) == dict.fromkeys(who, NUM_VOTES)
        acknowledged = [line for each in who for line in diary(tmp_path / "diaries" / each) if line["did"] == "voted"]
        assert {(line["id"], line["number"]) for line in acknowledged} == {
            (vote.submission_id, vote.number) for vote in votes
        }
        quotas = Quotas(**QUOTAS)
        unsynced(store)
        # Two more finish what is left: then every item has its one answer or its two, however the race went.
        for name in ("first to finish", "second to finish"):
            finisher = join(store, name)
            while task := next_task(store, finisher, quotas=quotas):
                name = f"{finisher} {task.assignment_id}"
                submit(store, finisher, Submission(name, task.assignment_id, "b", seconds=1.0))
        require_consistent(store)
        with store.reading() as connection:
            rows = connection.execute(select(tables.items)).all()
        answers = collections.Counter(row.answers for row in rows if row.gold is None)
        gold = {row.item_id for row in rows if row.gold is not None}
    assert answers == {1: num_items - num_items // 5, 2: num_items // 5}
    share = round(NUM_VOTES * quotas.gold)
    assert share > 0
    assert collections.Counter(v.annotator_id for v in votes if v.item_id in gold) == dict.fromkeys(who, share)
    assert collections.Counter(v.annotator_id for v in votes if v.is_repeat) == dict.fromkeys(who, share)
    if IS_FULL:
        with capsys.disabled():
            rate = len(votes) / seconds
            print(f"\n{kind}: {len(votes)} votes of {num_annotators} at once in {seconds:.1f} s ({rate:.0f} a second)")


@pytest.mark.parametrize("kind", KINDS)
def test_an_acknowledged_vote_survives_a_kill(
    kind: str, make_database: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Annotators are killed at random times and come back, sending again what was not acknowledged."""
    database, generator, num_kills = make_database(kind), random.Random(kind), NUM_KILLS // SHARE[kind]
    diaries = tmp_path / "diaries"
    quotas = {**QUOTAS, "undoes": True}
    landed: collections.Counter[str] = collections.Counter()
    with open_store(database) as store:
        fill(store, tmp_path, 40 * num_kills, num_gold=5)
        who = [join(store, f"annotator {number}") for number in range(5)]
        while landed["killed"] < num_kills:
            before = sum(len(diary(diaries / each)) for each in who)
            voters = Voters(database, diaries, 10**6, quotas, who)
            # Nothing is learnt from those that had not begun.
            while sum(len(diary(diaries / each)) for each in who) < before + len(who):
                time.sleep(0.002)
            for pid in generator.sample(voters.pids, len(who)):
                time.sleep(generator.uniform(0, 0.2))
                os.kill(pid, signal.SIGKILL)
            assert voters.codes() == [-signal.SIGKILL] * len(who)
            landed["killed"] += len(who)
            _require_acknowledged(store, diaries, who, landed)
        assert sum(landed[name] for name in ("voted", "undone")) > 0
        # All come back once more; then nothing that was sent is missing.
        Voters(database, diaries, 0, quotas, who).codes()
        require_consistent(store)
        sent = {
            line["submission"]["submission_id"]
            for each in who
            for line in diary(diaries / each)
            if "submission" in line
        }
        assert sent == {vote.submission_id for vote in votes_of(store, with_undone=True)}
    if IS_FULL:
        with capsys.disabled():
            print(f"\n{kind}: {dict(landed)}")


def _require_acknowledged(store: Store, diaries: Path, who: list[str], landed: collections.Counter[str]) -> None:
    """Every acknowledged vote and undo is stored; of the rest at most the one that was on its way."""
    require_consistent(store)
    stored = {vote.submission_id: vote for vote in votes_of(store, with_undone=True)}
    for annotator_id in who:
        lines = diary(diaries / annotator_id)
        for line in lines:
            if line["did"] == "voted":
                assert stored[line["id"]].number == line["number"]
            elif line["did"] == "undone":
                assert stored[line["id"]].undone
        voted = {line["id"] for line in lines if line["did"] == "voted"}
        mine = {name for name, vote in stored.items() if vote.annotator_id == annotator_id}
        in_flight = mine - voted
        last = lines[-1] if lines else {}
        assert len(in_flight) <= 1 and all(last["submission"]["submission_id"] == name for name in in_flight)
        undone = {line["id"] for line in lines if line["did"] == "undone"}
        found = {name for name in mine if stored[name].undone}
        assert undone <= found and len(found - undone) <= 1
        landed["stored, not acknowledged"] += len(in_flight)
    landed["voted"] = sum(line["did"] == "voted" for each in who for line in diary(diaries / each))
    landed["undone"] = sum(line["did"] == "undone" for each in who for line in diary(diaries / each))
