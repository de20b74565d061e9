"""For who looks after the work: people and invitations, the audit log, and what annotators go by."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select

from prefloop.app.form import Form
from prefloop.app.pages import page
from prefloop.app.station import person_in, station_of
from prefloop.label import tables
from prefloop.label.guidelines import current, publish
from prefloop.label.people import INVITATION_SECONDS, deactivate, events, invite, people
from prefloop.label.records import Guidelines, PersonRole
from prefloop.label.store import Store
from prefloop.label.votes import votes_of
from prefloop.types import InputError

router = APIRouter()

SHOWN_EVENTS = 500
"""Newest lines of the log on its page."""


@router.get("/people")
def everybody(request: Request) -> HTMLResponse:
    """Who is there, and how much each has done."""
    return page(request, "people.html", **_people(request))


@router.post("/people/invite")
def make_invitation(request: Request, form: Form) -> HTMLResponse:
    """Make an invitation and show its link, this once."""
    station, person = station_of(request), person_in(request)
    try:
        # The store refuses a role that there is not.
        role = cast(PersonRole, form.get("role", ""))
        token = invite(station.store, name=form.get("name", ""), role=role, by=person.annotator_id)
    except InputError as error:
        return page(request, "people.html", status=422, **_people(request, refused=str(error)))
    link = f"{station.url}/enter#{token}"
    return page(request, "people.html", **_people(request, link=link, invited=form["name"]))


@router.post("/people/deactivate")
def let_go(request: Request, form: Form) -> Response:
    """End somebody's sessions and let them in no more; their votes stay."""
    station, person = station_of(request), person_in(request)
    annotator_id = form.get("annotator_id", "")
    if annotator_id == person.annotator_id:
        raise HTTPException(409, "you cannot deactivate yourself; another owner can")
    deactivate(station.store, annotator_id, person.annotator_id)
    return RedirectResponse("/people", status_code=303)


@router.get("/log")
def log(request: Request) -> HTMLResponse:
    """What people did, newest first."""
    store = station_of(request).store
    entries, names = events(store), names_of(store)
    return page(request, "log.html", entries=entries[::-1][:SHOWN_EVENTS], total=len(entries), names=names)


@router.get("/guidelines")
def newest_guidelines(request: Request) -> HTMLResponse:
    """What annotators go by now."""
    store = station_of(request).store
    return _guidelines(request, current(store), is_current=True)


@router.get("/guidelines/{version}")
def old_guidelines(request: Request, version: str) -> HTMLResponse:
    """What annotators went by once."""
    store = station_of(request).store
    newest = current(store)
    if version == newest.version:
        return _guidelines(request, newest, is_current=True)
    for guidelines in published(store):
        if guidelines.version == version:
            return _guidelines(request, guidelines, is_current=False)
    raise HTTPException(404, "no such version of the guidelines")


@router.post("/guidelines")
def publish_guidelines(request: Request, form: Form) -> Response:
    """Publish a text as the newest version."""
    station, person = station_of(request), person_in(request)
    # Forms send lines as CR LF, and the same text must not become a new version.
    text = form.get("text", "").replace("\r\n", "\n")
    publish(station.store, text, person.annotator_id)
    return RedirectResponse("/guidelines", status_code=303)


def published(store: Store) -> list[Guidelines]:
    """All versions that were published, newest first."""
    table = tables.guidelines
    with store.reading() as connection:
        rows = connection.execute(select(table).order_by(table.c.version.desc())).all()
    return [Guidelines(str(row.version), row.text) for row in rows]


def names_of(store: Store) -> dict[str, str]:
    """Id -> name, of everybody."""
    return {person.annotator_id: person.name for person in people(store)}


def _guidelines(request: Request, guidelines: Guidelines, *, is_current: bool) -> HTMLResponse:
    versions = [each.version for each in published(station_of(request).store)]
    return page(
        request,
        "guidelines.html",
        guidelines=guidelines,
        is_current=is_current,
        versions=versions,
        may_publish=person_in(request).role == "owner",
    )


def _people(request: Request, *, refused: str = "", link: str = "", invited: str = "") -> dict[str, Any]:
    store = station_of(request).store
    return {
        "everybody": people(store),
        "counts": Counter(vote.annotator_id for vote in votes_of(store)),
        "is_owner": person_in(request).role == "owner",
        "me": person_in(request).annotator_id,
        "days": int(INVITATION_SECONDS // 86400),
        "refused": refused,
        "link": link,
        "invited": invited,
    }
