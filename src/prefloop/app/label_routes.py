"""One task at a time: the page, the next task, a vote, and taking it back."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from prefloop.app.pages import page
from prefloop.app.station import person_in, station_of
from prefloop.app.tasks import Seen, as_seen, on_screen, submission_of
from prefloop.label.assign import next_task, progress
from prefloop.label.guidelines import current
from prefloop.label.votes import MAX_NOTE, MAX_REASON, MAX_SECONDS, submit, undo

router = APIRouter()

SKIP_REASONS = (
    ("language", "I do not know this language"),
    ("subject", "I do not know this subject"),
    ("broken", "It is cut off, empty or garbled"),
    ("disturbing", "I do not want to read this"),
    ("other", "Something else (say it in the note)"),
)
HACK_KINDS = (
    ("overconfidence", "Sure of what nobody can know"),
    ("invented_source", "Invented source or number"),
    ("flattery", "Flattery, agreeing for its own sake"),
    ("padding", "Padding: long, with little in it"),
    ("repetition", "Repetition"),
    ("refusal", "A refusal where an answer was due"),
    ("format", "Lists, headings or emphasis for show"),
    ("other", "Something else (say it in the note)"),
)
UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
LARGEST_ID = 2**63 - 1


class VoteBody(BaseModel):
    """What a browser sends for a vote; `choice` speaks of the screen."""

    model_config = ConfigDict(strict=True, extra="forbid")

    submission_id: Annotated[str, Field(pattern=UUID)]
    assignment_id: Annotated[int, Field(ge=1, le=LARGEST_ID)]
    choice: Seen
    strength: Literal["slightly", "clearly"] | None = None
    reason: Annotated[str, Field(max_length=MAX_REASON)] | None = None
    flag: bool = False
    note: Annotated[str, Field(max_length=MAX_NOTE)] = ""
    seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]


class UndoBody(BaseModel):
    """Which vote to take back; the newest one where it is not said."""

    model_config = ConfigDict(strict=True, extra="forbid")

    submission_id: Annotated[str, Field(pattern=UUID)] | None = None


@router.get("/")
def label(request: Request) -> HTMLResponse:
    """The page around the tasks."""
    return page(request, "label.html", skip_reasons=SKIP_REASONS, hack_kinds=HACK_KINDS)


@router.post("/task")
def task(request: Request) -> dict[str, Any]:
    """The task that the person has open, or a new one; null where nothing is left."""
    station, person = station_of(request), person_in(request)
    found = next_task(station.store, person.annotator_id, quotas=station.config.quotas)
    done = progress(station.store, person.annotator_id, quotas=station.config.quotas)
    return {
        "task": None if found is None else as_seen(found),
        "progress": {
            "done": done.done,
            "today": done.today,
            "left": _rounded(done.left, has_task=found is not None),
            "seconds": done.seconds_median,
        },
        "guidelines": current(station.store).version,
    }


def _rounded(left: int, *, has_task: bool) -> int:
    """Up to whole tens. An exact count would stand still at gold questions and repetitions, and so give them away."""
    return 10 * math.ceil(max(left, int(has_task)) / 10)


@router.post("/vote")
def vote(body: VoteBody, request: Request) -> dict[str, Any]:
    """Store a vote; the answer is sent after it is on disk. The same submission again gets the same answer."""
    station, person = station_of(request), person_in(request)
    values = body.model_dump(exclude={"choice"})
    submission = submission_of(station.store, person.annotator_id, body.choice, **values)
    stored = submit(station.store, person.annotator_id, submission)
    # From a second tab the first vote counts, so the answer says what is stored, not what was sent.
    return {
        "saved": stored.number,
        "submission_id": stored.submission_id,
        "choice": on_screen(stored),
        "strength": stored.strength,
    }


@router.post("/undo")
def take_back(body: UndoBody, request: Request) -> dict[str, Any]:
    """Take the newest vote back; its task comes next."""
    station, person = station_of(request), person_in(request)
    lease = station.config.quotas.lease_seconds
    undone = undo(station.store, person.annotator_id, submission_id=body.submission_id, lease_seconds=lease)
    if undone is None:
        return {"undone": None}
    said = {"choice": on_screen(undone), "strength": undone.strength, "flag": undone.flag, "note": undone.note}
    return {"undone": {"submission_id": undone.submission_id, **said}}
