"""The labelling database: how it is opened, written to one at a time, and copied.

Whoever writes holds the one lock there is: SQLite's own from `BEGIN IMMEDIATE`, on PostgreSQL an advisory lock until
the transaction ends. So what is read inside `writing` cannot change before the commit, and quotas are exact. People
answer in seconds and a transaction takes milliseconds; nothing is gained by letting two of them interleave.

SQLite itself has no queue: who finds it busy sleeps and tries again, and of fifty writers one may do so for minutes. So
prefloop's writers first wait for a lock file beside the database, where the system wakes them. It only keeps order:
another program that writes is kept out by SQLite's own lock.

What was committed is on disk: SQLite syncs the journal, the database and, without WAL, the directory as well.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from prefloop.label.migrations import migrate
from prefloop.rundir import DISK_FULL, fsync_directory, locked, output_file
from prefloop.types import EnvironmentStop, InputError

WAL_FROM = (3, 51, 3)
"""Older SQLite can lose a commit when two processes checkpoint the write-ahead log at the same moment."""
WAIT_SECONDS = 60.0
"""How long a writer waits for the others."""
POSTGRES_LOCK = 0x7072666C
WRITES = "prefloop_writes"
SYSTEM_ERRORS = {
    "SQLITE_FULL": errno.ENOSPC,
    "SQLITE_READONLY": errno.EACCES,
    "SQLITE_PERM": errno.EACCES,
    "SQLITE_CANTOPEN": errno.EACCES,
    "53100": errno.ENOSPC,
}
"""What SQLite and PostgreSQL (SQLSTATE) call what the system calls so."""
DAMAGED = "restore it from a backup"


class Store:
    """An open database. Close it, or use it as a context manager."""

    def __init__(self, engine: Engine, database: str, clock: Callable[[], float] = time.time) -> None:
        self.engine, self.database, self.clock = engine, database, clock

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file."""
        return self.engine.dialect.name == "sqlite"

    def now(self) -> str:
        """The clock's time, ISO 8601 in UTC."""
        return datetime.datetime.fromtimestamp(self.clock(), datetime.UTC).isoformat(timespec="milliseconds")

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that nobody else writes beside. Committed, and on disk, when the block ends without an error.

        Raises OSError where the disk is full, EnvironmentStop where the others do not let go of the lock.
        """
        with self._errors(), self._turn(), self.engine.connect() as plain:
            connection = plain.execution_options(**{WRITES: True})
            with connection.begin():
                if not self.is_sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": POSTGRES_LOCK})
                yield connection

    def _turn(self) -> contextlib.AbstractContextManager[None]:
        return locked(Path(f"{self.database}.lock")) if self.is_sqlite else contextlib.nullcontext()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database throughout, and never waits for long."""
        with self._errors(), self.engine.connect() as plain:
            connection = plain if self.is_sqlite else plain.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def backup(self, path: str | Path) -> dict[str, int]:
        """Copy the database as it is now into a new file, while others go on writing; checked, then under its name.
        Answers what the copy holds, by number.

        Raises InputError for PostgreSQL, which has its own tool, and where the file exists.
        """
        if not self.is_sqlite:
            remedy = "use pg_dump: it is consistent while people work"
            raise InputError("PostgreSQL databases are not copied by prefloop", path=self.database, remedy=remedy)
        target = output_file(str(path))
        if target.exists():
            raise InputError("exists", path=target, field="out", remedy="name another file, or move it away")
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with self._errors():
                counted = _copy_sqlite(Path(self.database), temporary)
            temporary.rename(target)
            fsync_directory(target.parent)
            return counted
        except OSError as error:
            # SQLite does not say which of the two files had no room.
            if error.errno in DISK_FULL:
                error.filename = str(target)
            raise
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """The databases' errors as what they are: a full disk, a file that may not be written to, a damaged one."""
        try:
            yield
        except (DBAPIError, sqlite3.DatabaseError) as error:
            cause = error.orig or error if isinstance(error, DBAPIError) else error
            explained = self._explained(cause, isinstance(error, OperationalError))
            # What cannot be explained is a bug: a statement or a constraint of ours.
            if explained is None:
                raise
            raise explained from error

    def _explained(self, error: BaseException, is_operational: bool) -> Exception | None:
        name = str(getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or "")
        for known, number in SYSTEM_ERRORS.items():
            if name.startswith(known):
                return OSError(number, str(error), self.database)
        reason = " ".join(str(error).split())[:200]
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "55P03", "57014")):
            return EnvironmentStop(f"{self.database} is busy: others kept it for {WAIT_SECONDS:.0f} s")
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return InputError(f"cannot be read as a database ({reason})", path=self.database, remedy=DAMAGED)
        if name.startswith("SQLITE_IOERR") or (not self.is_sqlite and is_operational):
            return EnvironmentStop(f"{self.database}: {reason}")
        return None


def open_store(database: str, *, create: bool = True, clock: Callable[[], float] = time.time) -> Store:
    """Open the SQLite file or PostgreSQL database, make what is missing, and check its version.

    Raises InputError for a newer database or another's, for a file that is no database, and without `create` for one
    that does not exist.
    """
    store = Store(_postgres(database) if "://" in database else _sqlite(database, create), _shown(database), clock)
    try:
        with store._errors():
            if store.is_sqlite:
                _set_journal(store)
        with store.writing() as connection:
            migrate(connection, store.database)
    except BaseException:
        store.close()
        raise
    return store


def _shown(database: str) -> str:
    """The database as messages name it: a URL without its password."""
    return make_url(database).render_as_string(hide_password=True) if "://" in database else database


def _sqlite(database: str, create: bool) -> Engine:
    path = Path(database)
    if path.is_dir():
        raise InputError("is a directory", path=path, field="database", remedy="give a file")
    if not path.parent.is_dir():
        raise InputError("no such directory", path=path.parent, field="database", remedy="make it first")
    if not create and not path.exists():
        remedy = "`prefloop label import` makes one; --database names another"
        raise InputError("no such database", path=path, field="database", remedy=remedy)
    # A connection is opened in a fraction of a millisecond, and one that is never kept is safe across forks.
    engine = sqlalchemy.create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(
            path.absolute(), timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
        ),
        poolclass=NullPool,
    )

    @event.listens_for(engine, "connect")
    def _settle(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        # EXTRA is FULL, and without WAL also syncs the directory once the journal is gone: else a power cut just after
        # a commit could bring the journal back, and with it the state before.
        is_wal = sqlite3.sqlite_version_info >= WAL_FROM
        connection.execute(f"PRAGMA synchronous = {'FULL' if is_wal else 'EXTRA'}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _set_journal(store: Store) -> None:
    """WAL where SQLite is safe with it, else the rollback journal. Raises EnvironmentStop where it cannot be set."""
    wanted = "wal" if sqlite3.sqlite_version_info >= WAL_FROM else "delete"
    connection = store.engine.raw_connection()
    try:
        cursor = connection.cursor()
        if cursor.execute("PRAGMA journal_mode").fetchone()[0] != wanted:
            found = cursor.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]
            if found != wanted:
                raise EnvironmentStop(
                    f"{store.database} is open elsewhere in journal mode {found}, and SQLite {sqlite3.sqlite_version} "
                    f"needs {wanted} here; close the others and try again"
                )
    finally:
        connection.close()


def _copy_sqlite(source: Path, target: Path) -> dict[str, int]:
    """SQLite's own online copy, which starts again where somebody writes meanwhile; on disk when it returns."""
    with (
        contextlib.closing(sqlite3.connect(source, timeout=WAIT_SECONDS)) as original,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        original.backup(copy)
        # A copy on another medium is one file, whatever the original's journal.
        copy.execute("PRAGMA journal_mode = DELETE")
        if (found := copy.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
            raise InputError(f"the copy does not pass SQLite's check ({found})", path=source, remedy=DAMAGED)
        counted = {
            f"num_{name}": copy.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in ("items", "votes", "people")
        }
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return counted


def _postgres(database: str) -> Engine:
    try:
        url = make_url(database)
    except (ArgumentError, ValueError) as error:
        raise InputError("is no URL of a database", field="database", remedy="postgresql://USER@HOST/NAME") from error
    if url.get_backend_name() not in ("postgresql", "postgres"):
        remedy = "give the path of a SQLite file, or postgresql://USER@HOST/NAME"
        raise InputError(f"{url.get_backend_name()} databases are not supported", field="database", remedy=remedy)
    try:
        return sqlalchemy.create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=10,
            max_overflow=20,
            pool_timeout=WAIT_SECONDS,
            pool_pre_ping=True,
            connect_args={"options": f"-c lock_timeout={int(WAIT_SECONDS * 1000)} -c synchronous_commit=on"},
        )
    except ImportError as error:
        remedy = "pip install 'prefloop[postgres]'"
        raise InputError(f"PostgreSQL needs the package {error.name}", field="database", remedy=remedy) from error
