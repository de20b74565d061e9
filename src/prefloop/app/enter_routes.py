"""Signing in with an invitation, signing out, and the static files.

The code of an invitation stands behind the # of its link: browsers keep that part to themselves, so it reaches no log,
and a program that previews links cannot use the invitation up.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from prefloop.app.form import form_of
from prefloop.app.pages import etags, page, static_files
from prefloop.app.station import person_in, station_of
from prefloop.label.people import SESSION_SECONDS, end_session, note_event, redeem

router = APIRouter()


@router.get("/enter")
def ask(request: Request) -> HTMLResponse:
    """Ask for the code of an invitation."""
    return page(request, "enter.html", refused="")


@router.post("/enter")
def enter(request: Request, form: Annotated[dict[str, str], Depends(form_of)]) -> Response:
    """Use an invitation up, and start a session."""
    station = station_of(request)
    if (seconds := station.sign_ins.wait("all")) > 0:
        retry = {"Retry-After": str(int(seconds) + 1)}
        raise HTTPException(429, "too many tries to sign in; wait a minute", headers=retry)
    # Whoever pastes the whole link means its code.
    found = redeem(station.store, form.get("code", "").strip().rpartition("#")[2])
    if found is None:
        refused = "This code is unknown, used already, or too old. Ask for a new invitation."
        return page(request, "enter.html", status=403, refused=refused)
    before = request.cookies.get(station.cookie)
    if before is not None:
        end_session(station.store, before)
    answer = RedirectResponse("/", status_code=303)
    answer.set_cookie(
        station.cookie,
        found[1],
        max_age=int(SESSION_SECONDS),
        secure=station.is_secure,
        httponly=True,
        samesite="strict",
        path="/",
    )
    return answer


@router.post("/leave")
def leave(request: Request) -> Response:
    """End the session."""
    station, person = station_of(request), person_in(request)
    end_session(station.store, request.cookies[station.cookie])
    note_event(station.store, who=person.annotator_id, what="signed out", about=person.name)
    answer = RedirectResponse("/enter", status_code=303)
    answer.delete_cookie(station.cookie, path="/", secure=station.is_secure, httponly=True, samesite="strict")
    return answer


@router.get("/static/{name}")
def static(name: str, request: Request) -> Response:
    """A file of the app, by its name in a dict."""
    found = static_files().get(name)
    if found is None:
        raise HTTPException(404, "no such file")
    headers = {"ETag": etags()[name]}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(found[0], media_type=found[1], headers=headers)
