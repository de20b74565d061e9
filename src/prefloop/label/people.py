"""Who may vote: invitations, sessions, roles, and the log of what people did.

A token is shown once; only its hash is kept, so a stolen database lets nobody in.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, get_args

from sqlalchemy import Connection, insert, select, update

from prefloop.data.dialogue import text_of
from prefloop.label import tables
from prefloop.label.records import LogEntry, Person, PersonRole
from prefloop.label.store import Store
from prefloop.types import InputError

INVITATION_SECONDS = 7 * 86400.0
SESSION_SECONDS = 30 * 86400.0
MAX_NAME = 100
ROLES: tuple[str, ...] = get_args(PersonRole)


def invite(store: Store, *, name: str, role: PersonRole, by: str) -> str:
    """A token that makes the person, or for somebody who is there already lets them in again. It works once.

    Raises InputError for a name that cannot be, another role than the person has, and somebody deactivated.
    """
    name = _name(name)
    if role not in ROLES:
        raise InputError(f"unknown role {role!r}", field="role", remedy=f"give one of {', '.join(ROLES)}")
    token = secrets.token_urlsafe(32)
    with store.writing() as connection:
        row = connection.execute(select(tables.people).where(tables.people.c.name == name)).one_or_none()
        if row is not None and not row.active:
            raise InputError(f"{name} was deactivated", field="name", remedy="invite under another name")
        if row is not None and row.role != role:
            raise InputError(f"{name} is {row.role} already", field="role", remedy="give that role, or another name")
        values = {
            "token_hash": _hash(token),
            "name": name,
            "role": role,
            "invited_by": by,
            "expires": store.clock() + INVITATION_SECONDS,
            "used": False,
        }
        connection.execute(insert(tables.invitations).values(values))
        log_line(store, connection, who=by, what="invited", about=f"{name} as {role}")
    return token


def redeem(store: Store, token: str) -> tuple[Person, str] | None:
    """The person and a session token; None for a token that is unknown, used or too old."""
    with store.writing() as connection:
        where = tables.invitations.c.token_hash == _hash(token)
        row = connection.execute(select(tables.invitations).where(where)).one_or_none()
        if row is None or row.used or row.expires <= store.clock():
            return None
        person = _person_named(store, connection, row.name, row.role)
        if not person.active:
            return None
        connection.execute(update(tables.invitations).where(where).values(used=True))
        session = secrets.token_urlsafe(32)
        values = {
            "token_hash": _hash(session),
            "annotator_id": person.annotator_id,
            "expires": store.clock() + SESSION_SECONDS,
            "ended": False,
        }
        connection.execute(insert(tables.sessions).values(values))
        log_line(store, connection, who=person.annotator_id, what="signed in", about=person.name)
    return person, session


def person_of(store: Store, session_token: str) -> Person | None:
    """Whose session it is; None where it has ended or expired, or the person was deactivated."""
    session, person = tables.sessions, tables.people
    query = (
        select(person)
        .join(session, session.c.annotator_id == person.c.annotator_id)
        .where(session.c.token_hash == _hash(session_token), session.c.ended.is_(False), person.c.active.is_(True))
        .where(session.c.expires > store.clock())
    )
    with store.reading() as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else _person(row)


def end_session(store: Store, session_token: str) -> None:
    """Sign out."""
    session = tables.sessions
    with store.writing() as connection:
        connection.execute(update(session).where(session.c.token_hash == _hash(session_token)).values(ended=True))


def people(store: Store) -> list[Person]:
    """Everybody, by name."""
    with store.reading() as connection:
        return [_person(row) for row in connection.execute(select(tables.people).order_by(tables.people.c.name))]


def deactivate(store: Store, annotator_id: str, by: str) -> None:
    """End all sessions of a person and let them in no more; their votes stay. Raises InputError for an unknown one."""
    person, session = tables.people, tables.sessions
    with store.writing() as connection:
        found = connection.execute(update(person).where(person.c.annotator_id == annotator_id).values(active=False))
        if not found.rowcount:
            raise InputError(f"no such person: {annotator_id}", field="annotator_id")
        connection.execute(update(session).where(session.c.annotator_id == annotator_id).values(ended=True))
        log_line(store, connection, who=by, what="deactivated", about=annotator_id)


def note_event(store: Store, *, who: str, what: str, about: str) -> None:
    """Add a line to the audit log."""
    with store.writing() as connection:
        log_line(store, connection, who=who, what=what, about=about)


def events(store: Store) -> list[LogEntry]:
    """The audit log, oldest first."""
    log = tables.log
    with store.reading() as connection:
        rows = connection.execute(select(log).order_by(log.c.number)).all()
    return [LogEntry(row.number, row.at, row.who, row.what, row.about) for row in rows]


def require_active(connection: Connection, annotator_id: str) -> None:
    """Raises InputError for somebody unknown or deactivated."""
    person = tables.people
    query = select(person.c.active).where(person.c.annotator_id == annotator_id)
    active = connection.execute(query).scalar_one_or_none()
    if active is None:
        raise InputError(f"no such person: {annotator_id}", field="annotator_id")
    if not active:
        raise InputError(f"{annotator_id} was deactivated", field="annotator_id")


def _person_named(store: Store, connection: Connection, name: str, role: str) -> Person:
    query = select(tables.people).where(tables.people.c.name == name)
    row = connection.execute(query).one_or_none()
    if row is None:
        values = {"annotator_id": f"p{secrets.token_hex(6)}", "name": name, "role": role, "active": True}
        connection.execute(insert(tables.people).values(**values, at=store.now()))
        row = connection.execute(query).one()
    return _person(row)


def _person(row: Any) -> Person:
    return Person(row.annotator_id, row.name, row.role, row.active)


def log_line(store: Store, connection: Connection, *, who: str, what: str, about: str) -> None:
    """As `note_event`, inside a transaction."""
    values = {"at": store.now(), "who": who, "what": what, "about": about}
    connection.execute(insert(tables.log).values(values))


def _name(given: str) -> str:
    name = " ".join(text_of(given, "name").split())
    if not name or not name.isprintable():
        raise InputError("is no name that can be read", field="name", remedy="give letters")
    if len(name) > MAX_NAME:
        raise InputError(f"has {len(name)} characters", field="name", remedy=f"give at most {MAX_NAME}")
    return name


def _hash(token: str) -> str:
    """Of 256 random bits: no salt is needed, and none of the slowness that passwords need."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
