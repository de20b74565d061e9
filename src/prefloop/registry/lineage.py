"""What a model was made from, as its run recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefloop.rundir import read_json, read_section, sha256_of
from prefloop.types import InputError

NOTHING = "train sft"
"""The command that optimises against no preferences."""


@dataclass(frozen=True)
class Lineage:
    """Where a model comes from. As in ModelVersion."""

    role: Literal["policy", "reward"] = "policy"
    parents: tuple[str, ...] = ()
    data: Mapping[str, str] | None = None
    optimised_against: Mapping[str, str] | None = None


def lineage_of(path: str) -> Lineage:
    """What the inputs of a model's run say; little for a model without a run.

    A policy was optimised against its reward models, or else against the preference data that it was tuned on.
    """
    run = next((place for place in (Path(path), *Path(path).parents) if (place / "inputs.json").is_file()), None)
    if run is None:
        return Lineage()
    command, inputs = read_json(run / "inputs.json").get("command"), read_section(run / "inputs.json", "inputs")
    rewards, data = _those(inputs, "reward"), _those(inputs, "data", "prompts", "ptx_data")
    return Lineage(
        role="reward" if command == "train reward" else "policy",
        parents=tuple(entry["sha256"] for name, entry in inputs.items() if name == "model"),
        data=data,
        optimised_against={} if command == NOTHING else rewards or _those(inputs, "data"),
    )


def _those(inputs: Mapping[str, Any], *names: str) -> dict[str, str]:
    found = (entry for name, entry in inputs.items() if name.partition(":")[0] in names)
    return {str(entry["path"]): str(entry["sha256"]) for entry in found}


def hashes_of(paths: tuple[str, ...], field: str) -> dict[str, str]:
    """Path -> sha256. Raises InputError for what does not exist."""
    for path in paths:
        if not Path(path).exists():
            raise InputError("no such file or directory", path=path, field=field)
    return {path: sha256_of(Path(path)) for path in paths}
