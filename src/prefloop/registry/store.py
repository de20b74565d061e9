"""The registry on disk, held by a lock while open, and the one way in which it changes.

    ledger.sqlite   all events; what they come to is never stored
    head.json       number and hash of the newest event: what tells that the last row was deleted
    versions/       weights of every registered version, by sha256
    live            link to the weights that are live; a serving process follows it
    hashes.json     which weights have been hashed, and how their files looked then
    lock            held by whoever reads or writes; `copying` by whoever copies weights in

A change writes down first what will be (`head.next.json`, `live.next`), which may find the disk full, then commits the
event, and from there on only renames. What a kill leaves behind is finished by the next command, or forgotten if the
event was never committed; `live` names exactly one version at every instant.
"""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefloop.console import say
from prefloop.registry.ledger import VERSION, Event, Kind, Ledger, Problem, chain_problems, make_event
from prefloop.registry.state import State, replay
from prefloop.registry.weights import Weights
from prefloop.rundir import fsync_directory, locked, read_json, user_name, write_json
from prefloop.types import InputError, Refusal

LEDGER = "ledger.sqlite"
HEAD, NEXT_HEAD = "head.json", "head.next.json"
LIVE, NEXT_LIVE = "live", "live.next"


class Registry:
    """An open registry. `state` is what its events come to."""

    def __init__(self, root: Path, ledger: Ledger) -> None:
        self.root, self.ledger = root, ledger
        self.weights = Weights(root)
        self.finished: Event | None = None
        """The event of an interrupted command, where this one has finished it."""
        self._load()
        self._recover()

    def _load(self) -> None:
        self.events = self.ledger.events()
        self.state, impossible = replay(self.events) if not chain_problems(self.events) else (State(), [])
        self._problems = [*chain_problems(self.events), *impossible]

    @property
    def last(self) -> Event | None:
        """The newest event."""
        return self.events[-1] if self.events else None

    def problems(self) -> list[Problem]:
        """What is wrong with the chain of events and its head; none where both hold."""
        problems = list(self._problems)
        if not self.ledger.has_its_schema():
            problems.append(Problem(None, "the ledger's table or its triggers were changed"))
        head = self._read(HEAD)
        found = None if self.last is None else {"number": self.last.number, "hash": self.last.hash}
        if head is None:
            problems.append(Problem(None, f"{HEAD} is gone: nothing tells whether the last events were deleted"))
        elif found != head:
            newest = "no event" if self.last is None else f"event {self.last.number}"
            problems.append(
                Problem(None, f"{HEAD} names event {head.get('number')}, the ledger ends with another, {newest}")
            )
        return problems

    def require_sound(self) -> None:
        """Raises Refusal where the chain does not verify: nothing is built on it then."""
        if problems := self.problems():
            raise Refusal(f"{self.root}: the ledger does not verify: {problems[0]}; see `prefloop model verify`")

    @property
    def link(self) -> Path:
        """The link to what is live."""
        return self.root / LIVE

    def append(self, kind: Kind, values: Mapping[str, Any], *, who: str | None, why: str, live: str = "") -> Event:
        """Add an event, and with `live` switch to the weights with this sha256. All or nothing.

        Raises OSError where the disk is full: then nothing has changed.
        """
        if self.link.exists() and not self.link.is_symlink():
            raise InputError("is no link", path=self.link, remedy="move it away; promote makes a link there")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        event = make_event(self.last, kind, values, at=now, who=who or user_name(), why=why)
        try:
            if live:
                self._prepare_link(live)
            write_json(self.root / NEXT_HEAD, {"number": event.number, "hash": event.hash})
            self.ledger.append(event)
        except BaseException:
            self._load()
            if event.hash != (self.last.hash if self.last else None):
                self._forget()
            raise
        self._switch()
        self._load()
        return event

    def _prepare_link(self, sha256: str) -> None:
        link = self.root / NEXT_LIVE
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(Path(self.weights.versions.name) / sha256)
        fsync_directory(self.root)

    def relink(self) -> None:
        """Let the link name what is live, where somebody has changed it."""
        assert self.state.live is not None
        self._prepare_link(self.state.live.weights_sha256)
        (self.root / NEXT_LIVE).replace(self.link)
        fsync_directory(self.root)

    def _switch(self) -> None:
        """Only renames, and in this order: the head says last that all is done."""
        with contextlib.suppress(FileNotFoundError):
            (self.root / NEXT_LIVE).replace(self.link)
        (self.root / NEXT_HEAD).replace(self.root / HEAD)
        fsync_directory(self.root)

    def _forget(self) -> None:
        for name in (NEXT_HEAD, NEXT_LIVE):
            with contextlib.suppress(OSError):
                (self.root / name).unlink()

    def _recover(self) -> None:
        """Finish what a killed command had committed; forget what it had only prepared."""
        intended = self._read(NEXT_HEAD)
        if intended is None or self.last is None or intended.get("hash") != self.last.hash:
            self._forget()
            return
        if self._problems:
            return
        # Killed between its two renames, it has switched already, and there is no link left to rename.
        self._switch()
        self.finished = self.last
        say(f"finished what was interrupted: {self.last.kind} (event {self.last.number})")

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.root / name
        return read_json(path) if path.exists() else None


def is_registry(root: Path) -> bool:
    """Whether there is one in this directory, whole or damaged."""
    return (root / HEAD).exists() or (root / LEDGER).exists()


@contextlib.contextmanager
def opened(root: Path, *, create: bool = False, patience_seconds: float = math.inf) -> Iterator[Registry]:
    """The registry in a directory, locked.

    Raises InputError where there is none (unless it may be made), or its ledger is gone, damaged or of a newer version,
    and EnvironmentStop where another command holds it longer than the patience.
    """
    if create:
        root.mkdir(parents=True, exist_ok=True)
    elif not is_registry(root):
        remedy = "`prefloop model register` makes one; --registry names another"
        raise InputError("there is no registry here", path=root, remedy=remedy)
    with locked(root / "lock", patience_seconds=patience_seconds):
        if not (root / LEDGER).exists() and ((root / HEAD).exists() or not create):
            remedy = "restore it from a backup; the weights under versions/ are untouched"
            raise InputError("is gone", path=root / LEDGER, remedy=remedy)
        with contextlib.closing(Ledger(root / LEDGER, create=create)) as ledger:
            registry = Registry(root, ledger)
            if registry.last is None and not (root / HEAD).exists() and not registry.weights.versions.exists():
                registry.append("created", {"ledger": VERSION}, who=None, why="")
            yield registry
