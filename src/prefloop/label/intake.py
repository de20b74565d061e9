"""Items into the database: all of a file, or nothing; what is there already stays as it is.

New items get their place by lot, so that neither the order of the file nor its structure says who gets what, or which
items get a second annotator.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, func, insert, select

from prefloop.data.dialogue import short_hash
from prefloop.label import tables
from prefloop.label.assign import item_of
from prefloop.label.questions import Found, as_json, read_items, same_question
from prefloop.label.records import Item
from prefloop.label.store import Store
from prefloop.rundir import sha256_of
from prefloop.types import InputError

CHUNK = 500
"""Values in one statement; SQLite has a limit."""

T = TypeVar("T")


def import_rows(store: Store, path: str | Path, *, pairs_per_prompt: int = 6, by: str = "") -> dict[str, int]:
    """Put the questions of a file into the database. Answers what the file held, by number.

    Raises InputError with file, line and field where a row cannot be used or contradicts what is there: then nothing
    has changed.
    """
    found, counts = read_items(path, pairs_per_prompt=pairs_per_prompt)
    with store.writing() as connection:
        known = _known(connection, found, path)
        new = [each.item for each in found if each.item.item_id not in known]
        for chunk in _chunks(_placed(connection, new), CHUNK):
            connection.execute(insert(tables.items), [{**values, "at": store.now()} for values in chunk])
        if new:
            about = f"{len(new)} items of {path} (sha256 {sha256_of(Path(path))})"
            values = {"at": store.now(), "who": by, "what": "imported", "about": about}
            connection.execute(insert(tables.log).values(values))
    return {
        "rows": counts["rows"],
        "new_items": len(new),
        "pairs": sum(item.kind == "pair" for item in new),
        "reviews": sum(item.kind == "review" for item in new),
        "gold": sum(item.gold is not None for item in new),
        "already_there": len(known),
        "repeated_rows": counts["repeated"],
        "prompts_with_one_response": counts["single_responses"],
    }


def _known(connection: Connection, found: Sequence[Found], path: str | Path) -> set[str]:
    """Ids of those that are there already. Raises InputError for a row that says something else than what is there."""
    items = tables.items
    known: set[str] = set()
    for chunk in _chunks(found, CHUNK):
        lines = {each.item.item_id: each for each in chunk}
        for row in connection.execute(select(items).where(items.c.item_id.in_(lines))):
            new = lines[row.item_id]
            if not same_question(item_of(row), new.item):
                problem = f"differs from the database, where it is {row.gold or 'no gold question'}"
                raise InputError(problem, path=path, line=new.line, field="gold", remedy="people may have answered it")
            known.add(row.item_id)
        names = {name: each for each in chunk if (name := each.item.facts.get("comparison_id")) is not None}
        for row in connection.execute(select(items.c.item_id, items.c.given_id).where(items.c.given_id.in_(names))):
            new = names[row.given_id]
            if new.item.item_id != row.item_id:
                problem = f"{row.given_id} is in the database with other texts"
                raise InputError(problem, path=path, line=new.line, field="comparison_id", remedy="rename it")
    return known


def _placed(connection: Connection, new: Iterable[Item]) -> Iterator[dict[str, Any]]:
    """Rows of the items, each with its place after those of its kind that are there."""
    groups: dict[tuple[str, bool], list[Item]] = defaultdict(list)
    for item in new:
        groups[item.kind, item.gold is not None].append(item)
    items = tables.items
    for (kind, is_gold), group in groups.items():
        query = select(func.count()).where(items.c.kind == kind, items.c.gold.is_not(None) == is_gold)
        start = connection.execute(query).scalar_one()
        group.sort(key=lambda item: short_hash("place", item.item_id))
        yield from (_values(item, place) for place, item in enumerate(group, start=start))


def _values(item: Item, place: int) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "kind": item.kind,
        "place": place,
        "prompt": item.prompt,
        "response_a": item.response_a,
        "response_b": item.response_b,
        "model_a": item.model_a,
        "model_b": item.model_b,
        "gold": item.gold,
        "given_id": item.facts.get("comparison_id"),
        "facts": as_json(item.facts),
        "answers": 0,
    }


def _chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
