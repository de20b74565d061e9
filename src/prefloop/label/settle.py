"""Settling what annotators do not agree on: a reviewer's answer that counts as the item's, and taking it back.

An adjudication is a row, taking it back is another row. Votes stay as they are, and so do the statistics of them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select

from prefloop.label import tables
from prefloop.label.people import log_line, require_active
from prefloop.label.records import SETTLED_CHOICES, Adjudication, Strength
from prefloop.label.store import Store
from prefloop.label.votes import MAX_NOTE, MAX_REASON, require_choice, require_text
from prefloop.types import InputError


def settle(
    store: Store,
    annotator_id: str,
    item_id: str,
    choice: str,
    *,
    strength: Strength | None = None,
    reason: str | None = None,
    note: str = "",
) -> Adjudication:
    """Make an answer the item's; on disk when this returns. Sent again by the same person it is the same adjudication.

    Raises InputError for somebody who voted on the item, for an item that nobody voted on or that is settled already,
    for a gold question, and for what is no answer to it.
    """
    for field, value, limit in (("reason", reason, MAX_REASON), ("note", note, MAX_NOTE)):
        if value is not None:
            require_text(value, field, limit)
    values: dict[str, Any] = {"choice": choice, "strength": strength, "reason": reason, "note": note}
    with store.writing() as connection:
        require_active(connection, annotator_id)
        _require_open(connection, annotator_id, item_id, choice, strength)
        found = connection.execute(_standing().where(tables.adjudications.c.item_id == item_id)).one_or_none()
        if found is not None:
            adjudication = adjudication_of(found)
            said = {name: getattr(adjudication, name) for name in values}
            if (adjudication.annotator_id, said) == (annotator_id, values):
                return adjudication
            raise InputError("is settled already", field="item_id", remedy="take that back first")
        row = {"item_id": item_id, "annotator_id": annotator_id, **values, "at": store.now()}
        made = connection.execute(insert(tables.adjudications).values(row).returning(tables.adjudications.c.number))
        log_line(store, connection, who=annotator_id, what="settled", about=item_id)
        return Adjudication(number=made.scalar_one(), **row)


def reopen(store: Store, annotator_id: str, number: int) -> None:
    """Take an adjudication back, whosever it is; again changes nothing. Raises InputError for an unknown one."""
    settled, reopened = tables.adjudications, tables.reopenings
    with store.writing() as connection:
        require_active(connection, annotator_id)
        item_id = connection.execute(select(settled.c.item_id).where(settled.c.number == number)).scalar_one_or_none()
        if item_id is None:
            raise InputError("no such adjudication", field="number", remedy="load the page again")
        if connection.execute(_standing().where(settled.c.number == number)).one_or_none() is None:
            return
        values = {"adjudication_number": number, "annotator_id": annotator_id, "at": store.now()}
        connection.execute(insert(reopened).values(values))
        log_line(store, connection, who=annotator_id, what="took back what settled", about=item_id)


def adjudications_of(store: Store) -> dict[str, Adjudication]:
    """Item -> what settled it, in the order of storing; those that were taken back are left out."""
    with store.reading() as connection:
        rows = connection.execute(_standing().order_by(tables.adjudications.c.number)).all()
    return {row.item_id: adjudication_of(row) for row in rows}


def voted_on(store: Store, annotator_id: str) -> Collection[str]:
    """The items that somebody has voted on, also where the vote was taken back: those they cannot settle."""
    votes = tables.votes
    with store.reading() as connection:
        query = select(votes.c.item_id).where(votes.c.annotator_id == annotator_id).distinct()
        return set(connection.execute(query).scalars())


def adjudication_of(row: Row[Any]) -> Adjudication:
    """An adjudication as the database holds it."""
    return Adjudication(**row._asdict())


def _standing() -> Select[Any]:
    settled, reopened = tables.adjudications, tables.reopenings
    query = select(settled).outerjoin(reopened, reopened.c.adjudication_number == settled.c.number)
    return query.where(reopened.c.adjudication_number.is_(None))


def _require_open(
    connection: Connection, annotator_id: str, item_id: str, choice: str, strength: Strength | None
) -> None:
    items, votes, undos = tables.items, tables.votes, tables.undos
    item = connection.execute(select(items.c.kind, items.c.gold).where(items.c.item_id == item_id)).one_or_none()
    if item is None:
        raise InputError("no such item", field="item_id", remedy="load the page again")
    if item.gold is not None:
        raise InputError("is a gold question, whose answer is known", field="item_id")
    require_choice(choice, strength, SETTLED_CHOICES[item.kind])
    cast = select(votes.c.number).where(votes.c.item_id == item_id)
    if connection.execute(cast.where(votes.c.annotator_id == annotator_id).limit(1)).first() is not None:
        raise InputError("you have voted on it", field="item_id", remedy="somebody else must settle it")
    standing = cast.outerjoin(undos, undos.c.vote_number == votes.c.number).where(undos.c.vote_number.is_(None))
    if connection.execute(standing.limit(1)).first() is None:
        raise InputError("nobody has voted on it", field="item_id", remedy="it is a task like any other")
