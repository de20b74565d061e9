"""Who gets which item next, so that the quotas hold exactly however many ask at once.

Every item needs one annotator, and a share of the items (`overlap`, drawn by lot) a second one. Of what an annotator
does, a share is gold questions and a share repetitions, at places drawn by lot within every stretch of 1 / share tasks.
A task waits for its annotator until its lease ends; then its item is open to others as well. A skipped item goes to
others, never back. Nobody gets an item twice but as a repetition: the database itself refuses that. Who settled an item
does not get it: they have seen the votes.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, exists, func, insert, select, update

from prefloop.data.dialogue import short_hash
from prefloop.label import tables
from prefloop.label.config import Quotas
from prefloop.label.guidelines import newest
from prefloop.label.people import require_active
from prefloop.label.records import Item, ItemKind, Progress, Side, Task
from prefloop.label.store import Store

PARTS = 1_000_000
"""The overlap counts in millionths, so that both databases do the same whole-number arithmetic."""
SPREAD = 0.9
"""How much of its stretch of tasks a gold question or repetition may fall into; the rest is for two that collide."""


def next_task(store: Store, annotator_id: str, *, quotas: Quotas, kind: ItemKind | None = None) -> Task | None:
    """The task that the annotator has open, or else a new one; None where nothing is left to do. Of one kind, where it
    is given.

    Raises InputError for somebody unknown or deactivated.
    """
    with store.writing() as connection:
        require_active(connection, annotator_id)
        queue = _Queue(connection, annotator_id, quotas, store.clock(), kind)
        assignment_id = queue.open_task()
        if assignment_id is None:
            assignment_id = queue.new_task()
        return None if assignment_id is None else _task(connection, assignment_id)


def progress(store: Store, annotator_id: str, *, quotas: Quotas | None = None) -> Progress:
    """How far the annotator is. Raises InputError for somebody unknown."""
    votes, undos = tables.votes, tables.undos
    now = datetime.datetime.fromtimestamp(store.clock(), datetime.UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0).isoformat(timespec="milliseconds")
    standing = select(votes.c.at, votes.c.seconds).outerjoin(undos, undos.c.vote_number == votes.c.number)
    standing = standing.where(votes.c.annotator_id == annotator_id, undos.c.vote_number.is_(None))
    with store.reading() as connection:
        require_active(connection, annotator_id)
        rows = connection.execute(standing).all()
        queue = _Queue(connection, annotator_id, quotas or Quotas(), store.clock())
        left = queue.num_left()
    seconds = median(row.seconds for row in rows) if rows else None
    return Progress(len(rows), sum(row.at >= midnight for row in rows), left, seconds)


def lot(*parts: str) -> float:
    """A number in [0, 1) that nobody chose: always the same for the same parts."""
    return int(short_hash(*parts), 16) / 2**64


def item_of(row: Row[Any]) -> Item:
    """An item as the database holds it."""
    texts = (row.item_id, row.kind, row.prompt, row.response_a, row.response_b, row.model_a, row.model_b, row.gold)
    return Item(*texts, facts=json.loads(row.facts))


class _Queue:
    """What one annotator may get, inside a transaction."""

    def __init__(
        self, connection: Connection, annotator_id: str, quotas: Quotas, now: float, kind: ItemKind | None = None
    ) -> None:
        self.connection, self.annotator_id, self.quotas, self.now = connection, annotator_id, quotas, now
        settled, item = tables.adjudications.c, tables.items.c
        mine = exists().where(settled.item_id == item.item_id, settled.annotator_id == annotator_id)
        self.settled_by_me: ColumnElement[bool] = mine
        self.may_ask = [~mine] if kind is None else [~mine, item.kind == kind]
        share = round(quotas.overlap * PARTS)
        place = tables.items.c.place
        # Whole numbers: true for exactly the share of any first so many places.
        self.wants_second: ColumnElement[bool] = ((place + 1) * share) // PARTS > (place * share) // PARTS

    def open_task(self) -> int | None:
        """The task that the annotator holds (of several, that of the newest undo), with a new lease where it is old."""
        work, items = tables.assignments, tables.items
        query = select(work, items.c.gold, items.c.answers, self.wants_second.label("second"))
        query = query.join(items, items.c.item_id == work.c.item_id)
        query = query.where(work.c.annotator_id == self.annotator_id, work.c.state == "open", *self.may_ask)
        found = self.connection.execute(query.order_by(work.c.lease_until.desc(), work.c.assignment_id)).all()
        for row in found:
            if self._is_live(row.lease_until):
                if row.lease_until - self.now < self.quotas.lease_seconds / 2:
                    self._renew(row.assignment_id)
                return int(row.assignment_id)
        for row in reversed(found):
            if row.is_repeat or row.gold is not None or row.answers + self._others(row.item_id) < 1 + row.second:
                self._renew(row.assignment_id)
                return int(row.assignment_id)
        return None

    def new_task(self) -> int | None:
        """A gold question or a repetition where one is due, or else the first item that wants an annotator."""
        num, num_gold, num_repeats = self._done()
        row = self._gold() if self._is_due("gold", num, num_gold, self.quotas.gold) else None
        if row is not None:
            return self._give(row)
        row = self._repetition(num_repeats) if self._is_due("repeat", num, num_repeats, self.quotas.repeats) else None
        if row is not None:
            return self._give(row, is_repeat=True)
        first = [row for query in self.wanting() if (row := self._first(query)) is not None]
        return self._give(min(first, key=lambda row: (row.place, row.item_id))) if first else None

    def wanting(self) -> list[Select[Any]]:
        """The items that want an annotator and are new to this one: those without an answer, those that want another.

        Two queries, since each can walk the index of places.
        """
        items, work = tables.items, tables.assignments
        seen = exists().where(work.c.item_id == items.c.item_id, work.c.annotator_id == self.annotator_id)
        held = select(func.count()).where(work.c.item_id == items.c.item_id, *self._leased()).scalar_subquery()
        query = select(items.c.item_id, items.c.kind, items.c.place).where(items.c.gold.is_(None), ~seen, *self.may_ask)
        unanswered = query.where(items.c.answers == 0, (held == 0) | (self.wants_second & (held == 1)))
        answered = query.where(items.c.answers == 1, self.wants_second, held == 0)
        return [unanswered, answered]

    def num_left(self) -> int:
        """The items that want an annotator and are new to this one, also those that others hold now."""
        items, work = tables.items, tables.assignments
        want = (items.c.answers == 0) | ((items.c.answers == 1) & self.wants_second)
        query = select(func.count()).select_from(items).where(items.c.gold.is_(None), want)
        mine = query.join(work, work.c.item_id == items.c.item_id).where(work.c.annotator_id == self.annotator_id)
        seen = self.connection.execute(mine.where(work.c.is_repeat.is_(False), ~self.settled_by_me)).scalar_one()
        return int(self.connection.execute(query.where(~self.settled_by_me)).scalar_one()) - int(seen)

    def _first(self, query: Select[Any]) -> Row[Any] | None:
        items = tables.items
        return self.connection.execute(query.order_by(items.c.place, items.c.item_id).limit(1)).one_or_none()

    def _leased(self) -> tuple[ColumnElement[bool], ...]:
        """Of tasks: others hold them now, for the item's own sake."""
        work = tables.assignments.c
        return (
            work.annotator_id != self.annotator_id,
            work.is_repeat.is_(False),
            work.state == "open",
            and_(work.lease_until > self.now, work.lease_until <= self._latest()),
        )

    def _latest(self) -> float:
        """A lease that ends later was given while the clock stood wrong, and holds nobody up."""
        return self.now + 2 * self.quotas.lease_seconds

    def _is_live(self, lease_until: float) -> bool:
        return self.now < lease_until <= self._latest()

    def _others(self, item_id: str) -> int:
        query = select(func.count()).where(tables.assignments.c.item_id == item_id, *self._leased())
        return int(self.connection.execute(query).scalar_one())

    def _done(self) -> tuple[int, int, int]:
        """How many tasks the annotator has done (or skipped); gold questions and repetitions among them."""
        work, items = tables.assignments, tables.items
        query = select(func.count(), func.count(items.c.gold), func.count().filter(work.c.is_repeat))
        query = query.select_from(work).join(items, items.c.item_id == work.c.item_id)
        row = self.connection.execute(query.where(work.c.annotator_id == self.annotator_id, work.c.state != "open"))
        num, num_gold, num_repeats = row.one()
        return num, num_gold, num_repeats

    def _is_due(self, what: str, num: int, num_before: int, share: float) -> bool:
        """Exactly one falls into every stretch of 1 / share tasks, at a place that cannot be guessed."""
        if not share:
            return False
        return num >= math.floor((num_before + SPREAD * lot(self.annotator_id, what, str(num_before))) / share)

    def _gold(self) -> Row[Any] | None:
        items, work = tables.items, tables.assignments
        seen = exists().where(work.c.item_id == items.c.item_id, work.c.annotator_id == self.annotator_id)
        query = select(items.c.item_id, items.c.kind).where(items.c.gold.is_not(None), ~seen, *self.may_ask)
        return self._first(query)

    def _repetition(self, num_before: int) -> Row[Any] | None:
        """One of the annotator's own answers, by lot; none too fresh, no gold question, none a third time."""
        work, items = tables.assignments, tables.items
        query = select(work.c.item_id, items.c.kind, work.c.is_repeat, work.c.state, items.c.gold)
        query = query.join(items, items.c.item_id == work.c.item_id)
        query = query.where(work.c.annotator_id == self.annotator_id, work.c.state != "open", *self.may_ask)
        rows: Sequence[Any] = self.connection.execute(query.order_by(work.c.assignment_id)).all()
        repeated = {row.item_id for row in rows if row.is_repeat}
        old = rows[: max(0, len(rows) - self.quotas.repeat_gap)]
        able = [row for row in old if row.state == "done" and row.gold is None and row.item_id not in repeated]
        return able[int(lot(self.annotator_id, "which", str(num_before)) * len(able))] if able else None

    def _give(self, item: Row[Any], *, is_repeat: bool = False) -> int:
        values = {
            "item_id": item.item_id,
            "annotator_id": self.annotator_id,
            "is_repeat": is_repeat,
            "shown_first": self._side(item.item_id, is_repeat) if item.kind == "pair" else "a",
            "guideline_version": newest(self.connection).version,
            "lease_until": self.now + self.quotas.lease_seconds,
            "state": "open",
        }
        work = tables.assignments
        made = self.connection.execute(insert(work).values(values).returning(work.c.assignment_id))
        return int(made.scalar_one())

    def _side(self, item_id: str, is_repeat: bool) -> Side:
        return "a" if lot(self.annotator_id, item_id, "again" if is_repeat else "first") < 0.5 else "b"

    def _renew(self, assignment_id: int) -> None:
        work = tables.assignments
        values = {
            "lease_until": self.now + self.quotas.lease_seconds,
            "guideline_version": newest(self.connection).version,
        }
        self.connection.execute(update(work).where(work.c.assignment_id == assignment_id).values(values))


def _task(connection: Connection, assignment_id: int) -> Task:
    work, items = tables.assignments, tables.items
    query = select(items, work.c.shown_first, work.c.is_repeat, work.c.lease_until)
    query = query.join(work, work.c.item_id == items.c.item_id).where(work.c.assignment_id == assignment_id)
    row = connection.execute(query).one()
    return Task(assignment_id, item_of(row), row.shown_first, row.is_repeat, row.lease_until)
