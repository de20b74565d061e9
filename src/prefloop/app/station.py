"""What every route needs: the store, the settings, and how sessions are kept."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from prefloop.app.config import LabelServeConfig
from prefloop.app.rate import Rate
from prefloop.label.records import Person
from prefloop.label.store import Store


@dataclass(frozen=True)
class Station:
    """One running app."""

    store: Store
    config: LabelServeConfig
    url: str
    """Origin under which people reach it."""
    cookie: str
    """Name of the session's cookie."""
    requests: Rate
    sign_ins: Rate

    @property
    def is_secure(self) -> bool:
        """Whether people reach it through TLS."""
        return self.url.startswith("https://")


def station_of(request: Request) -> Station:
    """The app that a request came to."""
    station: Station = request.app.state.station
    return station


def person_in(request: Request) -> Person:
    """Who asks; only after `admit` has let the request through."""
    person: Person = request.state.person
    return person
