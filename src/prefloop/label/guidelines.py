"""What annotators go by, in numbered versions: every vote names the one its annotator was shown."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, insert, select

from prefloop.data.dialogue import short_hash, text_of
from prefloop.label import tables
from prefloop.label.records import Guidelines
from prefloop.label.store import Store
from prefloop.types import InputError

DEFAULT = Path(__file__).with_name("guidelines.md")


def current(store: Store) -> Guidelines:
    """The newest version; before the first one the text that comes with the package, named by its hash."""
    with store.reading() as connection:
        return newest(connection)


def publish(store: Store, text: str, by: str) -> str:
    """Make a text the newest version and answer its number; the text that holds already makes no new one.

    Raises InputError for an empty text.
    """
    if not text_of(text, "text").strip() or "\0" in text:
        raise InputError("is empty, or holds a NUL byte", field="text", remedy="say what annotators should go by")
    table = tables.guidelines
    with store.writing() as connection:
        before = newest(connection)
        if before.text == text:
            return before.version
        number = int(before.version) + 1 if before.version.isdecimal() else 1
        connection.execute(insert(table).values(version=number, text=text, published_by=by, at=store.now()))
        about = f"version {number}"
        connection.execute(insert(tables.log).values(at=store.now(), who=by, what="published guidelines", about=about))
    return str(number)


def newest(connection: Connection) -> Guidelines:
    """As `current`, inside a transaction."""
    table = tables.guidelines
    row = connection.execute(select(table).order_by(table.c.version.desc()).limit(1)).one_or_none()
    if row is not None:
        return Guidelines(str(row.version), row.text)
    text = DEFAULT.read_text(encoding="utf-8")
    return Guidelines(f"default-{short_hash(text)[:8]}", text)
