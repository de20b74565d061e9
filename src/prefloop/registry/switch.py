"""`model promote` and `model rollback`: what is live changes, by one rename."""

from __future__ import annotations

import math
import os
import shlex
import time
from pathlib import Path
from typing import Any

from prefloop.registry.config import PromoteConfig, RollbackConfig
from prefloop.registry.state import why_not_promote
from prefloop.registry.store import LIVE, Registry, opened
from prefloop.types import InputError, ModelVersion, Refusal


def promote(config: PromoteConfig) -> dict[str, Any]:
    """Make a version live: what a gate's decision allows, once, over the model that it was compared with.

    Raises Refusal (exit code 1) where no decision allows it, the weights are not what was registered, or another
    version has gone live meanwhile; OSError for a full disk. The old version is live then.
    """
    root, started = Path(config.registry), time.perf_counter()
    seen = link_target(root)
    with opened(root) as registry:
        registry.require_sound()
        version = registry.state.find(config.version, path=root, field="version")
        done = registry.finished
        if done is not None and done.kind == "promoted" and done.values["version"] == version.label:
            return _answer(registry, config.registry, started)
        _require_unchanged(registry, seen)
        if registry.state.live == version and seen != _target(version):
            _require_weights(registry, version)
            registry.relink()
            return _answer(registry, config.registry, started)
        if hindered := why_not_promote(registry.state, version, override=True):
            raise Refusal(hindered)
        refused = why_not_promote(registry.state, version, override=False)
        if refused and not config.override:
            remedy = f"`prefloop model gate {version.label} --evidence FILE...` decides"
            raise Refusal(f"{refused}; {remedy}, --override --why REASON takes the risk")
        _require_weights(registry, version)
        live, decided = registry.state.live, registry.state.decisions.get(version.weights_sha256)
        values = {
            "version": version.label,
            "weights_sha256": version.weights_sha256,
            "previous": None if live is None else live.label,
            "decision": None if decided is None else decided.event,
            "override": bool(refused),
            "overrode": refused,
        }
        registry.append("promoted", values, who=config.who, why=config.why, live=version.weights_sha256)
        return _answer(registry, config.registry, started)


def rollback(
    config: RollbackConfig, *, last_switch: int | None = None, patience_seconds: float = math.inf
) -> dict[str, Any]:
    """Make what was live before live again.

    Raises InputError where nothing was, EnvironmentStop where another command holds the registry longer than the
    patience; else as `promote`. A rollback that was killed is finished, not done twice. `last_switch`: the event that
    made live what is to be rolled back, for who looked at it before; another one since is refused.
    """
    root, started = Path(config.registry), time.perf_counter()
    seen = link_target(root)
    with opened(root, patience_seconds=patience_seconds) as registry:
        registry.require_sound()
        if last_switch is not None and last_switch != registry.state.last_switch:
            raise _changed(registry)
        if registry.finished is not None and registry.finished.kind == "rolled_back":
            return _answer(registry, config.registry, started)
        _require_unchanged(registry, seen)
        live, previous = registry.state.live, registry.state.previous
        if live is None or previous is None:
            said = "nothing is live" if live is None else f"{live.label} is the first version that was ever live"
            raise InputError(f"there is nothing to roll back to: {said}", path=root, remedy="promote another version")
        _require_weights(registry, previous)
        values = {"version": previous.label, "weights_sha256": previous.weights_sha256, "from": live.label}
        registry.append("rolled_back", values, who=config.who, why=config.why, live=previous.weights_sha256)
        return _answer(registry, config.registry, started)


def link_target(root: Path) -> str | None:
    """What the live link names, relative to the registry; None where there is none."""
    try:
        return os.readlink(root / LIVE)
    except OSError:
        return None


def _target(version: ModelVersion) -> str:
    return f"versions/{version.weights_sha256}"


def _require_unchanged(registry: Registry, seen: str | None) -> None:
    """Who waits for the lock decided on what was live before the wait."""
    if link_target(registry.root) != seen:
        raise _changed(registry)


def _changed(registry: Registry) -> Refusal:
    live = registry.state.live
    return Refusal(f"what is live changed meanwhile: {live.label if live else 'nothing'} is live now; look again")


def _require_weights(registry: Registry, version: ModelVersion) -> None:
    if problem := registry.weights.problem(version.weights_sha256):
        where = registry.weights.directory(version.weights_sha256)
        remedy = f"register {version.run} as {version.name} again"
        raise Refusal(f"{version.label} cannot go live: {problem} ({where}); {remedy}")


def _answer(registry: Registry, where: str, started: float) -> dict[str, Any]:
    live, previous, last = registry.state.live, registry.state.previous, registry.last
    assert live is not None and last is not None
    flag = "" if where == "registry" else f" --registry {shlex.quote(where)}"
    return {
        "live": live.label,
        "weights_sha256": live.weights_sha256,
        "path": str(registry.link),
        "previous": None if previous is None else previous.label,
        "event": last.number,
        "head": last.hash,
        "seconds": time.perf_counter() - started,
        "next": f"prefloop model rollback{flag}" if previous else f"prefloop model list{flag}",
    }
