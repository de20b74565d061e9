"""`report`: the page of a run, with what a registry's gate decided about its model."""

from __future__ import annotations

from pathlib import Path

from prefloop.registry.store import opened
from prefloop.report import command
from prefloop.report.config import ReportConfig
from prefloop.report.records import read_result
from prefloop.rundir import sha256_of
from prefloop.types import InputError


def make(config: ReportConfig) -> dict[str, str]:
    """Write the report. Raises InputError for anything but a finished run, and where the registry has no decision."""
    if config.registry is None:
        return command.make(config)
    run_dir, root = Path(config.run), Path(config.registry)
    output = read_result(run_dir).get("outputs", {}).get("model")
    if output is None:
        raise InputError("the run made no model that a gate could decide about", path=run_dir, field="registry")
    digest = sha256_of(run_dir / output)
    with opened(root) as registry:
        registry.require_sound()
        found = registry.state.decisions.get(digest)
        event = next((each for each in registry.events if found is not None and each.number == found.event), None)
    if event is None:
        raise InputError(
            f"no decision about the model of {run_dir} ({digest[:8]}) is recorded",
            path=root,
            field="registry",
            remedy="register it and ask the gate: prefloop model register, prefloop model gate",
        )
    place = f"{root}, event {event.number}, by {event.who} at {event.at}"
    return command.make(config, event.values, place)
