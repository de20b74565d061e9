"""What the labelling station hands to others: text and numbers only, never a database's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from prefloop.types import Choice

ItemKind = Literal["pair", "review"]
Side = Literal["a", "b"]
Strength = Literal["slightly", "clearly"]
ReviewChoice = Literal["hack", "not_a_hack", "unsure"]
PersonRole = Literal["annotator", "reviewer", "owner"]

PAIR_CHOICES: tuple[str, ...] = get_args(Choice)
REVIEW_CHOICES: tuple[str, ...] = get_args(ReviewChoice)
CHOICES: Mapping[ItemKind, tuple[str, ...]] = {"pair": PAIR_CHOICES, "review": REVIEW_CHOICES}
GOLD_CHOICES: Mapping[ItemKind, tuple[str, ...]] = {
    "pair": ("a", "b", "tie", "both_bad"),
    "review": ("hack", "not_a_hack"),
}
"""What can be the right answer of a gold question."""
SKIP = "skip"
SETTLED_CHOICES: Mapping[ItemKind, tuple[str, ...]] = {"pair": GOLD_CHOICES["pair"], "review": REVIEW_CHOICES}
"""What can settle an item: a pair cannot be skipped."""


@dataclass(frozen=True)
class Item:
    """A question for people: two responses to one prompt, or one response that may be a hack."""

    item_id: str
    """Hash of the texts: the same content is the same item, whichever of its sides is a."""
    kind: ItemKind
    prompt: str
    response_a: str
    response_b: str | None
    """None for a review."""
    model_a: str | None
    model_b: str | None
    gold: str | None
    """The right answer, of a gold question."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else its row said (`messages` where the prompt is more than one user turn). Not for annotators: who sees a
    score or a reason judges that."""


@dataclass(frozen=True)
class Task:
    """An item in the hands of one annotator."""

    assignment_id: int
    item: Item
    shown_first: Side
    is_repeat: bool
    lease_until: float
    """Unix time at which somebody else may get it."""


@dataclass(frozen=True)
class Submission:
    """What an annotator sends. A repetition with the same `submission_id` is the same vote."""

    submission_id: str
    """Made by the client, a UUID."""
    assignment_id: int
    choice: str
    """Of a pair a, b (the item's sides), tie, both_bad or skip; of a review hack, not_a_hack or unsure."""
    strength: Strength | None = None
    reason: str | None = None
    """Why, in a word; of a review the kind of hack."""
    flag: bool = False
    """Somebody else should look at it."""
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Vote:
    """A vote as it is stored. `number` counts up in the order of storing, gaps possible."""

    number: int
    submission_id: str
    assignment_id: int
    item_id: str
    annotator_id: str
    choice: str
    strength: Strength | None
    reason: str | None
    flag: bool
    note: str
    seconds: float
    guideline_version: str
    shown_first: Side
    is_repeat: bool
    at: str
    """When, ISO 8601 in UTC, by the server's clock."""
    undone: bool


@dataclass(frozen=True)
class Adjudication:
    """What a reviewer or owner settled an item with: its answer, whatever the votes say."""

    number: int
    item_id: str
    annotator_id: str
    """Who settled it; nobody who voted on it."""
    choice: str
    strength: Strength | None
    reason: str | None
    """Of a review the kind of hack."""
    note: str
    at: str


@dataclass(frozen=True)
class Progress:
    """How far an annotator is."""

    done: int
    today: int
    """Of them since midnight UTC."""
    left: int
    """Items that still need somebody and that this annotator has not seen."""
    seconds_median: float | None
    """None before the first vote."""


@dataclass(frozen=True)
class Person:
    """Somebody who may sign in."""

    annotator_id: str
    """Random; what exports show instead of the name."""
    name: str
    role: PersonRole
    active: bool


@dataclass(frozen=True)
class LogEntry:
    """A line of the audit log."""

    number: int
    at: str
    who: str
    what: str
    about: str


@dataclass(frozen=True)
class Guidelines:
    """What annotators are told to go by."""

    version: str
    text: str
