"""The ledger: one table of events, each with the hash of the one before, so that no row can be changed unnoticed.

The hash of an event is the sha256 of a JSON list: the ledger's version, then all columns but the hash itself.
Triggers refuse to change or delete a row by accident; who does it on purpose is found by the chain.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from prefloop.types import InputError

VERSION = 1
"""Of the table and of how events are hashed; stands in SQLite's `user_version` and in the first event."""
GENESIS = "0" * 64
"""What stands as `previous` in the first event."""
Kind = Literal["created", "registered", "decided", "promoted", "rolled_back"]
KINDS: tuple[str, ...] = get_args(Kind)
SCHEMA = (
    "CREATE TABLE events (number INTEGER PRIMARY KEY, at TEXT NOT NULL, who TEXT NOT NULL, kind TEXT NOT NULL, "
    "why TEXT NOT NULL, body TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events "
    "BEGIN SELECT RAISE(ABORT, 'events are never changed'); END",
    "CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events "
    "BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END",
)
DAMAGED = "restore it from a backup; the weights under versions/ are untouched"


@dataclass(frozen=True)
class Event:
    """One row: who did what, when and why. `body` is the JSON text of what belongs to its kind."""

    number: int
    at: str
    who: str
    kind: str
    why: str
    body: str
    previous: str
    hash: str

    @property
    def values(self) -> dict[str, Any]:
        """The body, read."""
        values: dict[str, Any] = json.loads(self.body)
        return values


@dataclass(frozen=True)
class Problem:
    """Something that does not verify. `event` is None where it concerns no single event."""

    event: int | None
    problem: str

    def __str__(self) -> str:
        return self.problem if self.event is None else f"event {self.event}: {self.problem}"


def make_event(last: Event | None, kind: Kind, values: Mapping[str, Any], *, at: str, who: str, why: str) -> Event:
    """The event that follows `last`."""
    body = json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False)
    number, previous = (1, GENESIS) if last is None else (last.number + 1, last.hash)
    event = Event(number, at, who, kind, why, body, previous, hash="")
    return dataclasses.replace(event, hash=hash_of(event))


def hash_of(event: Event) -> str:
    """sha256 (hex) of everything in an event but its hash."""
    columns = dataclasses.astuple(event)[:-1]
    return hashlib.sha256(json.dumps([VERSION, *columns], separators=(",", ":")).encode()).hexdigest()


def chain_problems(events: Sequence[Event]) -> list[Problem]:
    """Every place at which the chain is broken; none where it holds."""
    problems = []
    previous = GENESIS
    for position, event in enumerate(events, start=1):
        if event.number != position:
            problems.append(Problem(event.number, f"stands where event {position} belongs"))
        if not all(isinstance(value, str) for value in dataclasses.astuple(event)[1:]):
            problems.append(Problem(event.number, "holds something else than text"))
        elif hash_of(event) != event.hash:
            problems.append(Problem(event.number, "was changed: its content does not have its hash"))
        if event.previous != previous:
            problems.append(
                Problem(event.number, "does not follow the event before it: one was changed, moved or left out")
            )
        previous = event.hash
    return problems


class Ledger:
    """An open ledger.sqlite. Whoever writes holds the registry's lock."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open it, or make an empty one.

        Raises InputError for a file that is no ledger or of a newer version, OSError where it cannot be opened.
        """
        self.path = path
        with _errors(path):
            mode = "rwc" if create else "rw"
            uri = f"{path.absolute().as_uri()}?mode={mode}"
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._connection.close()
                raise

    def _open(self) -> None:
        execute = self._connection.execute
        # A commit is on disk before anything goes live, the removal of its journal too.
        execute("PRAGMA synchronous = EXTRA")
        version = execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            problem = f"this ledger has version {version}, this prefloop knows {VERSION}"
            raise InputError(problem, path=self.path, remedy="use the newer prefloop that wrote it")
        self.is_new = not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not self.is_new and version != VERSION:
            raise InputError("is no ledger of prefloop", path=self.path, remedy=DAMAGED)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def events(self) -> list[Event]:
        """All events by number. Raises InputError where the file is damaged."""
        if self.is_new:
            return []
        columns = ", ".join(field.name for field in dataclasses.fields(Event))
        with _errors(self.path):
            rows = self._connection.execute(f"SELECT {columns} FROM events ORDER BY number").fetchall()
        return [Event(*row) for row in rows]

    def has_its_schema(self) -> bool:
        """Whether the file defines the one table and its triggers, and nothing else."""
        with _errors(self.path):
            rows = self._connection.execute("SELECT sql FROM sqlite_master").fetchall()
        return sorted(row[0] or "" for row in rows) == sorted(SCHEMA)

    def append(self, event: Event) -> None:
        """Add one event; on disk when this returns, or not there at all. Raises OSError for a full disk."""
        with _errors(self.path):
            execute = self._connection.execute
            execute("BEGIN IMMEDIATE")
            try:
                if self.is_new:
                    for statement in SCHEMA:
                        execute(statement)
                    execute(f"PRAGMA user_version = {VERSION}")
                marks = ", ".join("?" * len(dataclasses.fields(Event)))
                execute(f"INSERT INTO events VALUES ({marks})", dataclasses.astuple(event))
                execute("COMMIT")
            except BaseException:
                # A full disk has rolled back by itself.
                if self._connection.in_transaction:
                    execute("ROLLBACK")
                raise
        self.is_new = False


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    """SQLite's errors as what they are: a full disk, a file that may not be written to, a damaged ledger."""
    numbers = {
        "SQLITE_FULL": errno.ENOSPC,
        "SQLITE_READONLY": errno.EACCES,
        "SQLITE_PERM": errno.EACCES,
        "SQLITE_CANTOPEN": errno.EACCES,
    }
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        for known, number in numbers.items():
            if name.startswith(known):
                raise OSError(number, str(error), str(path)) from error
        raise InputError(f"cannot be read as a ledger ({error})", path=path, remedy=DAMAGED) from error
