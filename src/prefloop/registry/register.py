"""`model register`: copy weights in, enter them into the ledger."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from pathlib import Path
from typing import Any

from prefloop.registry.config import RegisterConfig
from prefloop.registry.lineage import hashes_of, lineage_of
from prefloop.registry.state import State
from prefloop.registry.store import opened
from prefloop.registry.weights import copy_durably
from prefloop.rundir import locked, resolve_model, sha256_of
from prefloop.types import InputError, ModelVersion

INCOMING = ".incoming"


def register(config: RegisterConfig) -> dict[str, Any]:
    """Register a model; the same weights under the same name are the same version.

    Raises InputError for what is no model, and where the registry cannot be used.
    """
    root = Path(config.registry)
    source = resolve_model(config.model, "model")
    if not any(path.is_file() for path in source.rglob("*")):
        raise InputError("holds no files", path=source, field="model", remedy="give a model directory")
    with opened(root, create=True) as registry:
        registry.require_sound()
        parents = _parents(config.parents, registry.state, root)
    lineage = lineage_of(config.model)
    data = {**(lineage.data or {}), **hashes_of(config.data, "data")}
    against = hashes_of(config.reward, "reward")
    # A large model takes its time, and a rollback must not wait for it: copied under a lock of its own.
    with locked(root / "copying"):
        incoming = root / INCOMING
        shutil.rmtree(incoming, ignore_errors=True)
        copy = incoming / "copy"
        try:
            copy_durably(source, copy)
            sha256 = sha256_of(copy)
            with opened(root) as registry:
                registry.require_sound()
                registry.weights.keep(copy, sha256)
                same = [each for each in registry.state.versions if each.name == config.name]
                version = next((each for each in same if each.weights_sha256 == sha256), None)
                is_new = version is None
                if version is None:
                    version = ModelVersion(
                        name=config.name,
                        version=len(same) + 1,
                        role=config.role or lineage.role,
                        parents=parents or lineage.parents,
                        run=config.model,
                        weights_sha256=sha256,
                        data=data,
                        optimised_against=against or lineage.optimised_against,
                    )
                    values = {"version": dataclasses.asdict(version)}
                    registry.append("registered", values, who=config.who, why=config.why)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    where = "" if config.registry == "registry" else f" --registry {shlex.quote(config.registry)}"
    return {
        "version": version.label,
        "weights_sha256": sha256,
        "new": is_new,
        "next": f"prefloop model gate {version.label} --evidence EVIDENCE.jsonl{where}",
    }


def _parents(given: tuple[str, ...], state: State, root: Path) -> tuple[str, ...]:
    """sha256 of the weights of each parent: of a directory or run, or of a registered version."""
    return tuple(
        sha256_of(resolve_model(parent, "parents"))
        if Path(parent).exists()
        else state.find(parent, path=root, field="parents").weights_sha256
        for parent in given
    )
