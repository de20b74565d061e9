"""Who may do what: one table of all routes, and the check that reads it before any of them runs."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import HTTPException, Request

from prefloop.app.station import station_of
from prefloop.label.people import person_of
from prefloop.label.records import PersonRole

ANYONE = None
EVERYBODY: frozenset[PersonRole] = frozenset({"annotator", "reviewer", "owner"})
REVIEWERS: frozenset[PersonRole] = frozenset({"reviewer", "owner"})
OWNERS: frozenset[PersonRole] = frozenset({"owner"})

ACCESS: Mapping[tuple[str, str], frozenset[PersonRole] | None] = {
    ("GET", "/enter"): ANYONE,
    ("POST", "/enter"): ANYONE,
    ("GET", "/static/{name}"): ANYONE,
    ("GET", "/"): EVERYBODY,
    ("POST", "/task"): EVERYBODY,
    ("POST", "/vote"): EVERYBODY,
    ("POST", "/undo"): EVERYBODY,
    ("GET", "/guidelines"): EVERYBODY,
    ("GET", "/guidelines/{version}"): EVERYBODY,
    ("POST", "/leave"): EVERYBODY,
    ("GET", "/people"): REVIEWERS,
    ("GET", "/quality"): REVIEWERS,
    ("GET", "/disagreements"): REVIEWERS,
    ("POST", "/disagreements/settle"): REVIEWERS,
    ("POST", "/disagreements/reopen"): REVIEWERS,
    ("GET", "/log"): REVIEWERS,
    ("GET", "/runs"): REVIEWERS,
    ("GET", "/runs/{run}"): REVIEWERS,
    ("GET", "/audits"): REVIEWERS,
    ("GET", "/audits/{sha256}"): REVIEWERS,
    ("GET", "/gate"): REVIEWERS,
    ("GET", "/gate/{sha256}"): REVIEWERS,
    ("GET", "/ledger"): REVIEWERS,
    ("GET", "/ledger/rollback"): OWNERS,
    ("POST", "/gate/{sha256}"): OWNERS,
    ("POST", "/ledger/rollback"): OWNERS,
    ("POST", "/people/invite"): OWNERS,
    ("POST", "/people/deactivate"): OWNERS,
    ("POST", "/guidelines"): OWNERS,
}
"""A route that is not in the table answers nobody: `admit` fails on it."""


class SignedOut(Exception):
    """There is no session, or it has ended."""


def admit(request: Request) -> None:
    """Let a request through to its route, or raise SignedOut or HTTPException 403 or 429."""
    roles = ACCESS[request.method, request.scope["route"].path]
    station = station_of(request)
    if roles is ANYONE:
        return
    person = person_of(station.store, request.cookies.get(station.cookie, ""))
    if person is None:
        raise SignedOut
    if (seconds := station.requests.wait(person.annotator_id)) > 0:
        raise HTTPException(429, "too many requests; wait a little", headers={"Retry-After": str(int(seconds) + 1)})
    if person.role not in roles:
        raise HTTPException(403, f"this is for the roles {' and '.join(sorted(roles))}; yours is {person.role}")
    request.state.person = person
