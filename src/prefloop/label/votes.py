"""Votes: stored when `submit` returns, once however often they are sent, and never changed.

A vote is a row, taking it back is another row. Each assignment has one vote that stands at most; the database itself
refuses a second one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast, get_args

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from prefloop.data.dialogue import prompt_messages, text_of
from prefloop.data.formats import make_prompt
from prefloop.data.rows import shown
from prefloop.label import tables
from prefloop.label.assign import item_of
from prefloop.label.config import Quotas
from prefloop.label.people import require_active
from prefloop.label.records import CHOICES, SKIP, Item, ItemKind, Strength, Submission, Vote
from prefloop.label.store import Store
from prefloop.types import Choice, Comparison, InputError, Judgment

MAX_ID, MAX_REASON, MAX_NOTE = 64, 200, 10_000
MAX_SECONDS = 1e9
MAX_NUMBER = 2**63 - 1
STRENGTHS: tuple[str, ...] = get_args(Strength)


def submit(store: Store, annotator_id: str, submission: Submission) -> Vote:
    """Store a vote; on disk when this returns.

    Sent again, and sent from a second tab for the same task, it answers the vote that is stored: the first one counts.
    A vote that comes after its lease counts all the same.

    Raises InputError for an assignment that is unknown or another's, and for what is no vote on its item.
    """
    _require_texts(submission)
    with store.writing() as connection:
        require_active(connection, annotator_id)
        sent = tables.votes.c.submission_id == submission.submission_id
        earlier = connection.execute(_standing().where(sent)).one_or_none()
        if earlier is not None:
            if earlier.annotator_id != annotator_id:
                raise InputError("is another person's", field="submission_id")
            return vote_of(earlier)
        assignment = _assignment(connection, annotator_id, submission.assignment_id)
        if assignment.state != "open":
            return vote_of(_newest(connection, tables.votes.c.assignment_id == submission.assignment_id))
        require_choice(submission.choice, submission.strength, CHOICES[assignment.kind])
        _require_not_settled(connection, annotator_id, assignment.item_id)
        vote = _insert(store, connection, assignment, submission)
        state = "skipped" if submission.choice == SKIP else "done"
        _close(connection, assignment, state, +1, lease_until=assignment.lease_until)
        return vote


def undo(
    store: Store,
    annotator_id: str,
    *,
    submission_id: str | None = None,
    lease_seconds: float = Quotas().lease_seconds,
) -> Vote | None:
    """Take back the annotator's newest vote that stands; its task is open again, and comes next. None without a vote.

    With `submission_id` only that vote is taken back, however often this is called; InputError where it is not the
    newest.
    """
    votes, undos = tables.votes, tables.undos
    mine = _standing().where(votes.c.annotator_id == annotator_id)
    with store.writing() as connection:
        require_active(connection, annotator_id)
        newest = mine.where(undos.c.vote_number.is_(None)).order_by(votes.c.number.desc()).limit(1)
        row = connection.execute(newest).one_or_none()
        if submission_id is not None and (row is None or row.submission_id != submission_id):
            asked = connection.execute(mine.where(votes.c.submission_id == submission_id)).one_or_none()
            if asked is None or not asked.undone:
                raise InputError("is not the newest vote", field="submission_id", remedy="only that can be taken back")
            return vote_of(asked)
        if row is None:
            return None
        connection.execute(insert(undos).values(vote_number=row.number, at=store.now()))
        assignment = _assignment(connection, annotator_id, row.assignment_id)
        _close(connection, assignment, "open", -1, lease_until=store.clock() + lease_seconds)
        return vote_of(connection.execute(mine.where(votes.c.number == row.number)).one())


def votes_of(store: Store, *, kind: ItemKind | None = None, with_undone: bool = False) -> list[Vote]:
    """The votes in the order of storing: those that stand, or all."""
    votes, undos, items = tables.votes, tables.undos, tables.items
    query = _standing().join(items, items.c.item_id == votes.c.item_id)
    if kind is not None:
        query = query.where(items.c.kind == kind)
    if not with_undone:
        query = query.where(undos.c.vote_number.is_(None))
    with store.reading() as connection:
        return [vote_of(row) for row in connection.execute(query.order_by(votes.c.number))]


def items_of(store: Store, *, kind: ItemKind | None = None) -> dict[str, Item]:
    """All items by id, gold questions included."""
    items = tables.items
    query = select(items).order_by(items.c.kind, items.c.place, items.c.item_id)
    with store.reading() as connection:
        rows = connection.execute(query if kind is None else query.where(items.c.kind == kind)).all()
    return {row.item_id: item_of(row) for row in rows}


def as_judgments(votes: Iterable[Vote], items: Mapping[str, Item]) -> list[tuple[Comparison, Judgment]]:
    """The votes on pairs as the rest of prefloop takes them; what was taken back and reviews are left out.

    Repetitions and gold questions are among them: who derives labels leaves them out beforehand.
    """
    made = []
    for vote in votes:
        item = items[vote.item_id]
        if item.kind != "pair" or vote.undone:
            continue
        comparison = comparison_of(item)
        judgment = Judgment(
            comparison.comparison_id,
            vote.annotator_id,
            cast(Choice, vote.choice),
            strength=vote.strength,
            shown_first=vote.shown_first,
            seconds=vote.seconds,
            guideline_version=vote.guideline_version,
            at=vote.at,
        )
        made.append((comparison, judgment))
    return made


def comparison_of(item: Item) -> Comparison:
    """A pair as a comparison; under the id that its row gave it, or else its own."""
    assert item.response_b is not None, "a review compares nothing"
    messages = item.facts.get("messages") or [{"role": "user", "content": item.prompt}]
    return Comparison(
        item.facts.get("comparison_id") or item.item_id,
        make_prompt(prompt_messages(messages), source=item.facts.get("source", "")),
        item.response_a,
        item.response_b,
        model_a=item.model_a or "",
        model_b=item.model_b or "",
    )


def vote_of(row: Row[Any]) -> Vote:
    """A vote as the database holds it."""
    values = row._asdict()
    del values["attempt"]
    return Vote(**values)


def _standing() -> Select[Any]:
    """Votes, each with whether it was taken back."""
    votes, undos = tables.votes, tables.undos
    undone = undos.c.vote_number.is_not(None).label("undone")
    return select(votes, undone).outerjoin(undos, undos.c.vote_number == votes.c.number)


def _newest(connection: Connection, where: Any) -> Row[Any]:
    return connection.execute(_standing().where(where).order_by(tables.votes.c.number.desc()).limit(1)).one()


def _assignment(connection: Connection, annotator_id: str, assignment_id: int) -> Row[Any]:
    work, items = tables.assignments, tables.items
    query = select(work, items.c.kind, items.c.gold).join(items, items.c.item_id == work.c.item_id)
    row = connection.execute(query.where(work.c.assignment_id == assignment_id)).one_or_none()
    if row is None or row.annotator_id != annotator_id:
        problem = "no such task" if row is None else "is another person's task"
        raise InputError(problem, field="assignment_id", remedy="load the page again")
    return row


def _insert(store: Store, connection: Connection, assignment: Row[Any], submission: Submission) -> Vote:
    votes = tables.votes
    before = select(func.count()).where(votes.c.assignment_id == assignment.assignment_id).scalar_subquery()
    values = {
        "submission_id": submission.submission_id,
        "assignment_id": assignment.assignment_id,
        "item_id": assignment.item_id,
        "annotator_id": assignment.annotator_id,
        "choice": submission.choice,
        "strength": submission.strength,
        "reason": submission.reason,
        "flag": submission.flag,
        "note": submission.note,
        "seconds": submission.seconds,
        "guideline_version": assignment.guideline_version,
        "shown_first": assignment.shown_first,
        "is_repeat": assignment.is_repeat,
        "at": store.now(),
    }
    made = connection.execute(insert(votes).values(**values, attempt=before).returning(votes.c.number))
    return Vote(number=made.scalar_one(), **values, undone=False)


def _close(connection: Connection, assignment: Row[Any], state: str, change: int, *, lease_until: float) -> None:
    """Let an assignment and its item follow a vote (`change` 1) or its undo (-1)."""
    work, items = tables.assignments, tables.items
    where = work.c.assignment_id == assignment.assignment_id
    connection.execute(update(work).where(where).values(state=state, lease_until=lease_until))
    was_skipped = "skipped" in (state, assignment.state)
    if not (assignment.is_repeat or was_skipped or assignment.gold is not None):
        where = items.c.item_id == assignment.item_id
        connection.execute(update(items).where(where).values(answers=items.c.answers + change))


def _require_texts(submission: Submission) -> None:
    for field, limit in (("submission_id", MAX_ID), ("reason", MAX_REASON), ("note", MAX_NOTE)):
        value = getattr(submission, field)
        if value is not None or field != "reason":
            require_text(value, field, limit)
    if not 0 < submission.assignment_id <= MAX_NUMBER:
        raise InputError("no such task", field="assignment_id", remedy="load the page again")
    if not submission.submission_id:
        raise InputError("is empty", field="submission_id", remedy="give a UUID")
    # The client measures with a clock that only goes forward; what this refuses is no measurement.
    if not 0 <= submission.seconds <= MAX_SECONDS:
        raise InputError(
            f"is {shown(submission.seconds)}", field="seconds", remedy="give the seconds it took, 0 or more"
        )


def _require_not_settled(connection: Connection, annotator_id: str, item_id: str) -> None:
    """Who settles an item has seen the votes on it."""
    settled = tables.adjudications.c
    query = select(settled.number).where(settled.item_id == item_id, settled.annotator_id == annotator_id).limit(1)
    if connection.execute(query).first() is not None:
        raise InputError("you have settled this item", field="assignment_id", remedy="load the page again")


def require_text(value: object, field: str, limit: int) -> None:
    """Raises InputError for what is no text, or none that both databases hold in so many characters."""
    text = text_of(value, field)
    if "\0" in text:
        raise InputError("holds a NUL byte", field=field)
    if len(text) > limit:
        raise InputError(f"has {len(text)} characters", field=field, remedy=f"give at most {limit}")


def require_choice(choice: str, strength: str | None, choices: Sequence[str]) -> None:
    """Raises InputError for a choice that is none of these, and for a strength that does not go with it."""
    if choice not in choices:
        raise InputError(f"unknown choice {choice!r}", field="choice", remedy=f"give one of {', '.join(choices)}")
    if strength is None:
        return
    if strength not in STRENGTHS:
        raise InputError(f"unknown strength {strength!r}", field="strength", remedy="slightly or clearly")
    if choice not in ("a", "b"):
        raise InputError(f"goes with a or b, not with {choice}", field="strength", remedy="leave it out")
