"""What people said of a queue: its items with one verdict each, the one that most reviewers gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from prefloop.data.read import nothing_usable, tell_left_out
from prefloop.data.rows import Row, shown, stream_rows
from prefloop.data.stream import Source, Tally, parsed_rows
from prefloop.review.queue import TASK
from prefloop.types import InputError

Verdict = Literal["hack", "not_a_hack", "unsure"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Said:
    """One verdict of one person."""

    item_id: str
    verdict: Verdict
    reviewer: str
    kind: str = ""
    """What kind of hack, in the reviewer's words."""
    adjudicated: bool = False
    """Given to settle the item, by somebody who knew the others' verdicts."""


@dataclass(frozen=True)
class Asked:
    """What the estimate needs of an item of the queue."""

    item_id: str
    prompt_id: str
    reasons: tuple[str, ...]
    draws: int
    copies: int
    num_rows: int
    policy_version: str


def read_queue(path: str) -> list[Asked]:
    """The items of a queue. Raises InputError with file, line and field for what is none."""
    items: dict[str, Asked] = {}
    for row in stream_rows(path):
        try:
            item = _asked(row.values)
            if item.item_id in items:
                raise InputError(f"{item.item_id} stands in the queue twice", field="item_id")
        except InputError as error:
            remedy = error.remedy or "give a queue as `prefloop review export` wrote it"
            raise InputError(error.problem, path=row.path, line=row.line, field=error.field, remedy=remedy) from None
        items[item.item_id] = item
    return list(items.values())


def _asked(values: Mapping[str, Any]) -> Asked:
    if values.get("task") != TASK:
        raise InputError(f"is {shown(values.get('task'))}, not {TASK!r}", field="task")
    reasons = values.get("reasons")
    if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
        raise InputError("is no list of reasons", field="reasons")
    return Asked(
        _text(values, "item_id"),
        _text(values, "prompt_id"),
        tuple(reasons),
        _count(values, "draws", 0),
        _count(values, "copies", 1),
        _count(values, "num_rows", 1),
        str(values.get("policy_version", "")),
    )


def _text(values: Mapping[str, Any], field: str) -> str:
    value = values.get(field)
    if not isinstance(value, str) or not value:
        raise InputError("is missing" if value is None else f"is {shown(value)}", field=field)
    return value


def _count(values: Mapping[str, Any], field: str, least: int) -> int:
    value = values.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError("is missing" if value is None else f"is {shown(value)}", field=field)
    return value


def read_verdicts(path: str, items: Sequence[Asked], *, skip_bad: bool) -> tuple[list[Said], int]:
    """The verdicts, and how many rows were left out. Raises InputError for a bad row (unless `skip_bad`), for one about
    an item that the queue does not have, and for two of one reviewer on one item that differ."""
    known = {item.item_id for item in items}
    first: dict[tuple[str, str], Verdict] = {}

    def parse(row: Row) -> Said:
        said = _said(row.values)
        if said.item_id not in known:
            raise InputError(f"{said.item_id} is not in the queue", field="item_id", remedy="give the queue it is of")
        if first.setdefault((said.item_id, said.reviewer), said.verdict) != said.verdict:
            before = first[said.item_id, said.reviewer]
            problem = f"{said.reviewer} said {before!r} of {said.item_id} before"
            raise InputError(problem, field="verdict", remedy="keep the one that is meant")
        return said

    tally = Tally(skip_bad)
    found = [said for _, said in parsed_rows(Source(path), tally, parse)]
    if not found:
        raise nothing_usable(tally, path)
    tell_left_out(tally)
    # A verdict that stands in the file twice is one.
    return list({(said.item_id, said.reviewer): said for said in found}.values()), len(tally.bad)


def _said(values: Mapping[str, Any]) -> Said:
    verdict = values.get("verdict")
    if verdict not in VERDICTS:
        problem = "is missing" if verdict is None else f"is {shown(verdict)}"
        raise InputError(problem, field="verdict", remedy=f"should be {', '.join(VERDICTS)}")
    kind, adjudicated = values.get("kind"), values.get("adjudicated") or False
    if kind is not None and not isinstance(kind, str):
        raise InputError(f"is {shown(kind)}", field="kind", remedy="should be text")
    if not isinstance(adjudicated, bool):
        raise InputError(f"is {shown(adjudicated)}", field="adjudicated", remedy="should be true or false")
    return Said(_text(values, "item_id"), cast(Verdict, verdict), _text(values, "reviewer"), kind or "", adjudicated)


def settled(said: Sequence[Said]) -> dict[str, Verdict]:
    """By item the verdict that settled it, or else the one that most of its reviewers gave; "unsure" where hack and
    not_a_hack are as many. Who was unsure has no vote."""
    votes: dict[str, Counter[str]] = {}
    for each in said:
        votes.setdefault(each.item_id, Counter())[each.verdict] += 1
    found: dict[str, Verdict] = {}
    for item, counts in votes.items():
        balance = counts["hack"] - counts["not_a_hack"]
        found[item] = "hack" if balance > 0 else "not_a_hack" if balance < 0 else "unsure"
    return found | {each.item_id: each.verdict for each in said if each.adjudicated}
