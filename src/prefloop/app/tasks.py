"""A task as its annotator sees it, and what the annotator says of the screen as a vote on the item.

Which side of the screen is a, which model wrote it, whether it is a gold question or a repetition, and why a response
stands in the review queue: none of it leaves the server before the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select

from prefloop.app.pages import fragment
from prefloop.data.dialogue import is_dialogue, parse_dialogue
from prefloop.label import tables
from prefloop.label.records import Item, Side, Submission, Task, Vote
from prefloop.label.store import Store
from prefloop.types import InputError

Seen = Literal["left", "right", "tie", "both_bad", "skip", "hack", "not_a_hack", "unsure"]


@dataclass(frozen=True)
class Turn:
    """One turn of the prompt."""

    role: str
    text: str


def as_seen(task: Task) -> dict[str, Any]:
    """What the browser gets of a task, and all it gets."""
    item = task.item
    texts = [item.response_a]
    if item.kind == "pair":
        other = item.response_b or ""
        texts = [item.response_a, other] if task.shown_first == "a" else [other, item.response_a]
    html = fragment("task.html", kind=item.kind, turns=turns_of(item), texts=texts)
    return {"assignment_id": task.assignment_id, "kind": item.kind, "html": html}


def turns_of(item: Item) -> list[Turn]:
    """The prompt, turn by turn where it is a dialogue."""
    messages = item.facts.get("messages")
    if messages:
        return [Turn(str(message["role"]), str(message["content"])) for message in messages]
    # A review queue has its prompts as text.
    if is_dialogue(item.prompt):
        return [Turn(message.role, message.content) for message in parse_dialogue(item.prompt)]
    return [Turn("", item.prompt)]


def submission_of(store: Store, annotator_id: str, seen: Seen, **values: Any) -> Submission:
    """A vote on the item. Raises InputError for another's task, as the store does."""
    if seen not in ("left", "right"):
        return Submission(choice=seen, **values)
    first = shown_first(store, annotator_id, values["assignment_id"])
    return Submission(choice=first if seen == "left" else _other(first), **values)


def on_screen(vote: Vote) -> str:
    """What the annotator said of the screen."""
    if vote.choice not in ("a", "b"):
        return vote.choice
    return "left" if vote.choice == vote.shown_first else "right"


def shown_first(store: Store, annotator_id: str, assignment_id: int) -> Side:
    """Which side of the item stands on the left. Raises InputError where the task is not the annotator's."""
    work = tables.assignments
    query = select(work.c.shown_first).where(work.c.assignment_id == assignment_id, work.c.annotator_id == annotator_id)
    with store.reading() as connection:
        side: Side | None = connection.execute(query).scalar_one_or_none()
    if side is None:
        raise InputError("is no task of yours", field="assignment_id", remedy="load the page again")
    return side


def _other(side: Side) -> Side:
    return "b" if side == "a" else "a"
