"""The database: made, migrated, refused, copied; the same on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, inspect, text
from sqlalchemy.exc import DBAPIError
from tests.label.conftest import fill, join

from prefloop.label import migrations, tables
from prefloop.label import store as store_module
from prefloop.label.assign import next_task
from prefloop.label.config import Quotas
from prefloop.label.guidelines import current, publish
from prefloop.label.intake import import_rows
from prefloop.label.people import deactivate, end_session, events, invite, people, person_of, redeem
from prefloop.label.records import Submission
from prefloop.label.store import Store, open_store
from prefloop.label.votes import items_of, submit, undo, votes_of
from prefloop.types import EnvironmentStop, InputError

KINDS = ("sqlite", "postgresql")
ODD = {"response_a": "\u202e\u05e9\u05dc\u05d5\u05dd \u200b", "response_b": "b" * 100_000}


@pytest.mark.parametrize("kind", KINDS)
def test_both_databases_do_the_same(kind: str, make_database: Callable[[str], str], tmp_path: Path) -> None:
    """One life of a database: questions, people, votes, an undo, a second opening."""
    database = make_database(kind)
    rows = [{"prompt": "p", **ODD, "big": 10**40, "half": "HALF"}, {"prompt": "q", **ODD}]
    lines = "\n".join(map(json.dumps, rows)).replace("HALF", "\\ud800")
    (tmp_path / "rows.jsonl").write_text(lines)
    with open_store(database) as store:
        assert import_rows(store, tmp_path / "rows.jsonl")["new_items"] == 2
        assert import_rows(store, tmp_path / "rows.jsonl")["already_there"] == 2
        token = invite(store, name="Zoë", role="reviewer", by="owner")
        redeemed = redeem(store, token)
        assert redeemed is not None and redeem(store, token) is None
        person, session = redeemed
        assert person_of(store, session) == person and person_of(store, "x") is None
        assert publish(store, "Choose.", "owner") == "1" == current(store).version
        votes = []
        for choice in ("a", "tie"):
            task = next_task(store, person.annotator_id, quotas=Quotas())
            assert task is not None and task.item.response_a == ODD["response_a"]
            sent = Submission(f"u {choice}", task.assignment_id, choice, flag=True, note="\u200b", seconds=0.5)
            votes.append(submit(store, person.annotator_id, sent))
        assert next_task(store, person.annotator_id, quotas=Quotas()) is None
        undone = undo(store, person.annotator_id)
        assert undone is not None and undone.undone
        for statement in ("UPDATE votes SET choice = 'b'", "DELETE FROM undos", "DELETE FROM log"):
            with pytest.raises(DBAPIError, match="only grows"), store.writing() as connection:
                connection.execute(text(statement))
    with open_store(database, create=False) as store:
        assert votes_of(store) == votes[:1] and len(votes_of(store, with_undone=True)) == 2
        assert {item.facts.get("big") for item in items_of(store).values()} == {None, 10**40}
        assert {item.facts.get("half") for item in items_of(store).values()} == {None, "\ud800"}
        assert [each.what for each in events(store)] == ["imported", "invited", "signed in", "published guidelines"]
        end_session(store, session)
        assert person_of(store, session) is None
        deactivate(store, person.annotator_id, "owner")
        assert [each.active for each in people(store)] == [False]


@pytest.mark.parametrize("kind", KINDS)
def test_the_migrations_make_the_tables_that_the_code_names(kind: str, make_database: Callable[[str], str]) -> None:
    with open_store(make_database(kind)) as store:
        found = MetaData()
        found.reflect(store.engine)
        assert set(found.tables) - {"prefloop_label_version"} == set(tables.metadata.tables)
        for name, table in tables.metadata.tables.items():
            made = found.tables[name]
            assert [each.name for each in made.columns] == [each.name for each in table.columns]
            for column in table.columns:
                same = made.columns[column.name]
                assert (same.nullable, same.primary_key) == (column.nullable, column.primary_key), column
                assert same.type._type_affinity is column.type._type_affinity, column
            assert {each.target_fullname for each in made.foreign_keys} == {
                each.target_fullname for each in table.foreign_keys
            }
            indexes = {each["name"]: each["column_names"] for each in inspect(store.engine).get_indexes(name)}
            for index in table.indexes:
                assert indexes[str(index.name)] == [each.name for each in index.columns]


@pytest.mark.parametrize("kind", KINDS)
def test_a_newer_database_is_refused(kind: str, make_database: Callable[[str], str]) -> None:
    database = make_database(kind)
    with open_store(database) as store, store.writing() as connection:
        statement = "PRAGMA user_version = 7" if kind == "sqlite" else "UPDATE prefloop_label_version SET number = 7"
        connection.execute(text(statement))
    with pytest.raises(InputError, match="this database has version 7, this prefloop knows 2; use the newer prefloop"):
        open_store(database)


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_database_is_brought_up_to_date_or_left_alone(
    kind: str, make_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    database = make_database(kind)
    with open_store(database) as store:
        fill(store, tmp_path, 3)

    def second(dialect: str) -> list[str]:
        return ["ALTER TABLE items ADD COLUMN topic TEXT", "UPDATE items SET topic = 'none'"]

    def broken(dialect: str) -> list[str]:
        return ["ALTER TABLE items ADD COLUMN lost TEXT", "SELECT nothing FROM nowhere"]

    steps = migrations.MIGRATIONS
    monkeypatch.setattr(migrations, "MIGRATIONS", (*steps, second, broken))
    with pytest.raises((DBAPIError, EnvironmentStop)):
        open_store(database)
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)
    # Nothing of the failed attempt is there.
    with open_store(database) as store:
        assert not {"topic", "lost"} & {each["name"] for each in inspect(store.engine).get_columns("items")}
    monkeypatch.setattr(migrations, "MIGRATIONS", (*steps, second))
    for _ in range(2):
        with open_store(database) as store, store.reading() as connection:
            assert connection.execute(text("SELECT topic FROM items")).scalars().all() == ["none"] * 3


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE events (number INTEGER)")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(InputError, match=r"other.sqlite: is a database, but not of prefloop's labels"):
        open_store(str(other))
    (tmp_path / "text.sqlite").write_text("not a database, however long it may be" * 100)
    with pytest.raises(InputError, match=r"text.sqlite: cannot be read as a database"):
        open_store(str(tmp_path / "text.sqlite"))
    with pytest.raises(InputError, match="is a directory"):
        open_store(str(tmp_path))
    with pytest.raises(InputError, match="no such directory"):
        open_store(str(tmp_path / "none" / "label.sqlite"))
    with pytest.raises(InputError, match="no such database"):
        open_store(str(tmp_path / "label.sqlite"), create=False)
    assert not (tmp_path / "label.sqlite").exists()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://root@localhost/x", "mysql databases are not supported"),
        ("sqlite:///label.sqlite", "sqlite databases are not supported; give the path"),
        ("postgresql://h:x/y", "is no URL of a database"),
    ],
)
def test_other_urls_are_refused(url: str, problem: str) -> None:
    with pytest.raises(InputError, match="database: ") as refused:
        open_store(url)
    assert problem in str(refused.value)


def test_a_server_that_is_away_is_said_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(EnvironmentStop) as stopped:
        open_store("postgresql://ann:secret@127.0.0.1:1/x")
    assert "127.0.0.1" in str(stopped.value) and "secret" not in str(stopped.value)


@pytest.mark.parametrize(("version", "mode", "level"), [((3, 51, 2), "delete", 3), ((3, 51, 3), "wal", 2)])
def test_the_journal_follows_the_version_of_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], mode: str, level: int
) -> None:
    """SQLite numbers the levels: 2 is FULL, 3 is EXTRA."""
    database = str(tmp_path / "label.sqlite")
    for pretended in (version, (3, 51, 3), (3, 51, 2), version):
        monkeypatch.setattr(store_module.sqlite3, "sqlite_version_info", pretended)
        with open_store(database) as store, store.reading() as connection:
            found = [
                connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in ("journal_mode", "synchronous")
            ]
    assert found == [mode, level]


def test_a_backup_is_whole_while_others_write(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path, 5)
    ann = join(store)
    task = next_task(store, ann, quotas=Quotas())
    assert task is not None
    stored = submit(store, ann, Submission("u1", task.assignment_id, "a", seconds=1))
    with store.writing() as connection:
        connection.execute(text("UPDATE items SET prompt = 'not committed'"))
        assert store.backup(tmp_path / "copy.sqlite") == {"num_items": 5, "num_votes": 1, "num_people": 1}
    with open_store(str(tmp_path / "copy.sqlite"), create=False) as copy:
        assert votes_of(copy) == [stored]
        assert all(item.prompt.startswith("Question") for item in items_of(copy).values())
    assert not list(tmp_path.glob(".copy*"))
    with pytest.raises(InputError, match="out: exists"):
        store.backup(tmp_path / "copy.sqlite")
    with pytest.raises(InputError, match="no such directory"):
        store.backup(tmp_path / "none" / "copy.sqlite")


def test_postgres_is_copied_by_its_own_tool(make_database: Callable[[str], str], tmp_path: Path) -> None:
    with open_store(make_database("postgresql")) as store, pytest.raises(InputError, match="use pg_dump"):
        store.backup(tmp_path / "copy.sqlite")


def test_a_database_that_others_keep_is_busy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that writes, and does not let go."""
    monkeypatch.setattr(store_module, "WAIT_SECONDS", 0.05)
    other = sqlite3.connect(store.database, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(EnvironmentStop, match="is busy"):
            join(store)
    finally:
        other.close()
    join(store)


def test_a_read_only_database_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(str(tmp_path / "label.sqlite")) as store:
        error = sqlite3.OperationalError("attempt to write a readonly database")
        error.sqlite_errorname = "SQLITE_READONLY"

        def refuse(*_: Any) -> None:
            raise error

        monkeypatch.setattr(store.engine.dialect, "do_execute", refuse)
        with pytest.raises(OSError, match="readonly") as refused:
            people(store)
    assert refused.value.errno == 13 and refused.value.filename == store.database
