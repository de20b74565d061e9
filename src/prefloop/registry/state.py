"""What the events of a ledger come to: which versions there are, what was decided, what is live. Never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefloop.config import nearest
from prefloop.registry.ledger import KINDS, VERSION, Event, Problem
from prefloop.types import InputError, ModelVersion

LEAST_DIGITS = 8
"""Of a sha256 that names a version."""


@dataclass(frozen=True)
class Decided:
    """A gate's decision, as far as a promotion asks for it."""

    event: int
    verdict: str
    incumbent: str | None


@dataclass(frozen=True)
class State:
    """The registry after some events."""

    versions: tuple[ModelVersion, ...] = ()
    """In the order of their registration."""
    was_live: tuple[str, ...] = ()
    """Labels: the live version last, before it what a rollback returns to, and so on."""
    decisions: dict[str, Decided] = field(default_factory=dict)
    """sha256 of weights -> the newest decision about them."""
    last_switch: int = 0
    """Number of the newest event that changed what is live."""

    @property
    def live(self) -> ModelVersion | None:
        """The live version."""
        return self.version(self.was_live[-1]) if self.was_live else None

    @property
    def previous(self) -> ModelVersion | None:
        """What a rollback returns to."""
        return self.version(self.was_live[-2]) if len(self.was_live) > 1 else None

    def version(self, label: str) -> ModelVersion | None:
        """The version `name:version`."""
        return next((each for each in self.versions if each.label == label), None)

    def with_weights(self, sha256: str) -> ModelVersion | None:
        """The newest version with these weights."""
        return next((each for each in reversed(self.versions) if each.weights_sha256 == sha256), None)

    def find(self, text: str, *, path: Path, field: str) -> ModelVersion:
        """The version that `name:version`, `name` (its newest) or the beginning of a sha256 names.

        Raises InputError where there is none.
        """
        newest_first = self.versions[::-1]
        exact = [each for each in newest_first if text in (each.label, each.name)]
        by_hash = [each for each in newest_first if len(text) >= LEAST_DIGITS and each.weights_sha256.startswith(text)]
        for found in (exact, by_hash):
            if found:
                return found[0]
        labels = [each.label for each in self.versions]
        close = nearest(text, labels)
        meant = f"did you mean {close}? " if close else ""
        remedy = f"{meant}registered: {', '.join(labels) or 'none'}"
        raise InputError(f"there is no version {text}", path=path, field=field, remedy=remedy)

    def status(self, version: ModelVersion, ever_live: frozenset[str]) -> str:
        """live, previous (a rollback returns to it), retired (was live once) or candidate."""
        for label, status in zip(reversed(self.was_live), ("live", "previous"), strict=False):
            if label == version.label:
                return status
        return "retired" if version.label in ever_live else "candidate"


def replay(events: Sequence[Event]) -> tuple[State, list[Problem]]:
    """The state after the events, and those events that cannot have happened: they change nothing."""
    state, problems = State(), []
    for event in events:
        try:
            state = _after(state, event)
        except (KeyError, TypeError, ValueError) as error:
            problems.append(Problem(event.number, f"cannot have happened ({error})"))
    return state, problems


def why_not_promote(state: State, version: ModelVersion, *, override: bool) -> str:
    """Why a version may not go live; empty where it may. A decision allows one promotion, over what it compared to."""
    live = state.live
    if live is not None and live.label == version.label:
        return f"{version.label} is live already"
    if live is not None and live.role != version.role:
        return f"{version.label} is a {version.role}, and what is live is a {live.role}"
    if override:
        return ""
    decided = state.decisions.get(version.weights_sha256)
    if decided is None:
        return f"no gate has decided about {version.label}"
    if decided.verdict != "promote":
        return f"the gate says of {version.label}: {decided.verdict} (event {decided.event})"
    if decided.incumbent != (live.weights_sha256 if live else None):
        live_now = live.label if live else "nothing"
        return f"the gate compared {version.label} with another model than what is live now ({live_now})"
    if decided.event < state.last_switch:
        return f"the gate's decision about {version.label} (event {decided.event}) is older than the last switch"
    return ""


def _after(state: State, event: Event) -> State:
    values = event.values
    match event.kind:
        case "created":
            if event.number != 1:
                raise ValueError("a ledger is created once")
            if values["ledger"] != VERSION:
                raise ValueError(f"it is a ledger of version {values['ledger']}")
            return state
        case "registered":
            return replace(state, versions=(*state.versions, _registered(state, values["version"])))
        case "decided":
            decided = Decided(event.number, values["verdict"], values["incumbent"])
            return replace(state, decisions={**state.decisions, values["candidate"]: decided})
        case "promoted":
            version = state.version(values["version"])
            if version is None or version.weights_sha256 != values["weights_sha256"]:
                raise ValueError("there is no such version")
            if refused := why_not_promote(state, version, override=bool(values["override"])):
                raise ValueError(refused)
            return replace(state, was_live=(*state.was_live, values["version"]), last_switch=event.number)
        case "rolled_back":
            if state.previous is None or state.previous.label != values["version"]:
                raise ValueError("not what was live before")
            return replace(state, was_live=state.was_live[:-1], last_switch=event.number)
    raise ValueError(f"unknown kind {event.kind!r}, known: {', '.join(KINDS)}")


def _registered(state: State, values: dict[str, Any]) -> ModelVersion:
    version = ModelVersion(**{**values, "parents": tuple(values["parents"])})
    number = 1 + sum(each.name == version.name for each in state.versions)
    if version.version != number:
        raise ValueError(f"the next version of {version.name} is {number}")
    return version
