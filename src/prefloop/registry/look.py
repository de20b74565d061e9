"""`model list`, `model history` and `model verify`: what the ledger says, and whether it can be believed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefloop.registry.config import HistoryConfig, ListConfig, VerifyConfig
from prefloop.registry.ledger import Event, Problem
from prefloop.registry.state import State
from prefloop.registry.store import Registry, opened
from prefloop.registry.switch import link_target
from prefloop.types import InputError, Told


def list_versions(config: ListConfig) -> dict[str, Any]:
    """Every version with its status and the newest decision about it. Raises Refusal where the ledger is broken."""
    with opened(Path(config.registry)) as registry:
        registry.require_sound()
        return versions_of(registry.state, registry.events)


def versions_of(state: State, events: Sequence[Event]) -> dict[str, Any]:
    """What is live, what was before, and every version in the order of registration."""
    ever_live = frozenset(event.values["version"] for event in events if event.kind in ("promoted", "rolled_back"))
    versions = []
    for version in state.versions:
        decided = state.decisions.get(version.weights_sha256)
        parents = (state.with_weights(parent) for parent in version.parents)
        versions.append(
            {
                "version": version.label,
                "status": state.status(version, ever_live),
                "role": version.role,
                "gate": None if decided is None else decided.verdict,
                "parents": [
                    parent.label if parent else sha[:8] for parent, sha in zip(parents, version.parents, strict=True)
                ],
                "run": version.run,
                "weights_sha256": version.weights_sha256,
            }
        )
    return {
        "live": state.live.label if state.live else None,
        "previous": state.previous.label if state.previous else None,
        "versions": versions,
    }


def history(config: HistoryConfig) -> dict[str, Any]:
    """All events in order, or one in full."""
    root = Path(config.registry)
    with opened(root) as registry:
        events = registry.events
    if config.event is not None:
        found = next((event for event in events if event.number == config.event), None)
        if found is None:
            raise InputError(
                f"there is no event {config.event}", path=root, field="event", remedy=f"1 to {len(events)}"
            )
        return {**dataclasses.asdict(found), "body": _body(found)}
    return {"events": [line_of(each) for each in events]}


def line_of(event: Event) -> dict[str, Any]:
    """An event as a line of the history; text also where somebody has put something else there."""
    return {
        "event": event.number,
        **{"at": str(event.at), "who": str(event.who), "what": _what(event), "why": str(event.why)},
        "hash": str(event.hash),
    }


def _body(event: Event) -> Any:
    """The body, read; as it stands where it was damaged."""
    try:
        return event.values
    except (ValueError, TypeError):
        return str(event.body)


def _what(event: Event) -> str:
    """An event in a few words; a damaged one as its kind."""
    try:
        values = event.values
        match event.kind:
            case "registered":
                version = values["version"]
                return f"registered {version['name']}:{version['version']}"
            case "decided":
                return f"gate: {values['verdict']} {values['label']}"
            case "promoted":
                override = f", overriding: {values['overrode']}" if values["override"] else ""
                return f"promoted {values['version']}{override}"
            case "rolled_back":
                return f"rolled back {values['from']} to {values['version']}"
    except (ValueError, KeyError, TypeError):
        pass
    return str(event.kind)


def verify(config: VerifyConfig) -> Told:
    """Check the chain, its head, the live link, and read all weights. Refused (exit code 1) where anything is wrong."""
    with opened(Path(config.registry)) as registry:
        problems = [*registry.problems(), *_weight_problems(registry)]
        if not problems:
            problems = link_problems(registry)
        if config.head is not None:
            problems += _head_problems(registry, config.head)
        last, live = registry.last, registry.state.live
    values = {
        "verified": not problems,
        "problems": [dataclasses.asdict(problem) for problem in problems],
        "num_events": 0 if last is None else last.number,
        "head": None if last is None else last.hash,
        "live": None if live is None else live.label,
    }
    told = [f"{values['num_events']} events, live: {values['live'] or 'nothing'}, head {values['head']}"]
    told += [f"  {problem}" for problem in problems] or ["  everything verifies"]
    return Told(values, "\n".join(told), refused=bool(problems))


def _weight_problems(registry: Registry) -> list[Problem]:
    kept = {path.name for path in registry.weights.versions.glob("*") if re.fullmatch("[0-9a-f]{64}", path.name)}
    labels = {version.weights_sha256: version.label for version in registry.state.versions}
    found = {sha256: registry.weights.problem(sha256, thoroughly=True) for sha256 in sorted(kept | labels.keys())}
    return [Problem(None, f"{labels.get(sha256, sha256)}: {said}") for sha256, said in found.items() if said]


def link_problems(registry: Registry) -> list[Problem]:
    """Where the link names something else than what is live."""
    live, target = registry.state.live, link_target(registry.root)
    wanted = None if live is None else f"versions/{live.weights_sha256}"
    if target == wanted:
        return []
    remedy = f"; `prefloop model promote {live.label}` makes the link again" if live else ""
    said = f"{registry.link} names {target or 'nothing'}, but {live.label if live else 'nothing'} is live{remedy}"
    return [Problem(None, said)]


def _head_problems(registry: Registry, head: str) -> list[Problem]:
    if any(event.hash == head for event in registry.events):
        return []
    return [Problem(None, f"no event has the hash {head}: the ledger is not the one that you saw")]
