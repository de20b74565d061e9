"""The ledger: who did what and why, whether it holds, what is live; and for owners the way back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from prefloop.app.boards import BOARDS, MAX_REASON, PATIENCE_SECONDS, is_offered
from prefloop.app.form import Form, number_of
from prefloop.app.pages import page
from prefloop.app.station import person_in, station_of
from prefloop.label.people import note_event
from prefloop.registry.config import RollbackConfig
from prefloop.registry.ledger import Event
from prefloop.registry.look import line_of, link_problems
from prefloop.registry.state import State
from prefloop.registry.store import opened
from prefloop.registry.switch import rollback

router = APIRouter()

SHOWN = 500
"""Newest events on the page."""


@dataclass(frozen=True)
class Look:
    """A registry at one moment."""

    events: list[Event]
    state: State
    problems: list[str]
    """What does not verify; weights are not read for it."""


def look_at(request: Request) -> Look:
    """The registry of the app, as it is now.

    Raises HTTPException 404 where there is none, EnvironmentStop where another command holds it.
    """
    with opened(registry_of(request), patience_seconds=PATIENCE_SECONDS) as registry:
        problems = registry.problems()
        problems = problems or link_problems(registry)
        return Look(registry.events, registry.state, [str(each) for each in problems])


def registry_of(request: Request) -> Path:
    """The directory of the registry. Raises HTTPException 404 where none is shown."""
    config = station_of(request).config
    if config.registry is None or not is_offered(config, "/ledger"):
        raise HTTPException(404, "this app shows no registry")
    return Path(config.registry)


def reason_of(form: dict[str, str]) -> str:
    """Why, in the person's words. Raises HTTPException 422 where there are none."""
    reason = form.get("why", "").replace("\r\n", "\n").strip()
    if not reason or len(reason) > MAX_REASON:
        raise HTTPException(422, f"give a reason, of at most {MAX_REASON} characters: it stands in the ledger for ever")
    return reason


@router.get("/ledger")
def ledger(request: Request) -> HTMLResponse:
    """What is live, whether the chain holds, and all that happened, newest first."""
    if not is_offered(station_of(request).config, "/ledger"):
        return page(request, "absent.html", board=BOARDS["/ledger"])
    look = look_at(request)
    lines = [line_of(event) for event in reversed(look.events[-SHOWN:])]
    return page(
        request,
        "ledger.html",
        look=look,
        lines=lines,
        total=len(look.events),
        is_owner=person_in(request).role == "owner",
    )


@router.get("/ledger/rollback")
def ask(request: Request) -> HTMLResponse:
    """What a rollback would do, and whether to do it."""
    return page(request, "rollback.html", look=look_at(request), longest=MAX_REASON)


@router.post("/ledger/rollback")
def roll_back(request: Request, form: Form) -> Response:
    """Make live again what was live before: the same as `model rollback`."""
    root, reason, person = registry_of(request), reason_of(form), person_in(request)
    seen = number_of(form, "last_switch")
    if seen is None:
        raise HTTPException(422, "last_switch: send the form of the page")
    config = RollbackConfig(registry=str(root), who=person.name, why=reason)
    done: dict[str, Any] = rollback(config, last_switch=seen, patience_seconds=PATIENCE_SECONDS)
    about = f"{done['live']} is live again: {reason}"
    note_event(station_of(request).store, who=person.annotator_id, what="rolled back", about=about)
    return RedirectResponse("/ledger", status_code=303)
