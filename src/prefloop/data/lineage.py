"""Which prompts a model has met before: those in the files that its run, or a run it started from, was trained on.

Held-out accuracy is one only on prompts that no ancestor of the model was trained on. A reward model whose trunk was
fine-tuned on the chosen answers of its test pairs is the usual way to lose that unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefloop.console import say
from prefloop.data.read import iter_prompts
from prefloop.data.stream import Tally
from prefloop.rundir import sha256_of

ANCESTORS = ("model", "reward")
"""Inputs of a run that are models: what those were trained on has reached the run's own."""


def prompts_met(model: str, prompt_ids: set[str]) -> set[str]:
    """Those of the prompts that occur in training files of `model`'s run and of the runs it started from.

    Says which files those are, and which can no longer be looked at. A model directory without a run tells nothing.
    """
    met: set[str] = set()
    for run, path, digest in training_files(Path(model)):
        if not path.is_file() or sha256_of(path) != digest:
            say(f"warning: {path}, which {run} was trained on, is gone or changed: it may share prompts with this data")
            continue
        shared = prompt_ids & {prompt.prompt_id for prompt in iter_prompts([str(path)], tally=Tally(skip_bad=True))}
        if shared:
            say(
                f"warning: {len(shared)} of {len(prompt_ids)} prompts are also in {path}, which {run} was trained on: "
                "for them this is no held-out accuracy"
            )
        met |= shared
    return met


def training_files(model: Path) -> Iterator[tuple[Path, Path, str]]:
    """(run, training file, its sha256 at that time) for the run that made `model` and all that it started from."""
    done: set[Path] = set()
    waiting = [model]
    while waiting:
        run = _run_of(waiting.pop())
        if run is None or run.resolve() in done:
            continue
        done.add(run.resolve())
        for name, entry in _inputs(run).items():
            if name.startswith("data:"):
                yield run, Path(entry["path"]), entry["sha256"]
            elif name in ANCESTORS:
                waiting.append(Path(entry["path"]))


def training_files_of_run(model: Path) -> list[Path]:
    """Files that the run which made `model` was itself trained on, as far as they are still what they were then."""
    run = _run_of(model)
    entries = [] if run is None else [entry for name, entry in _inputs(run).items() if name.startswith("data:")]
    return [path for entry in entries if (path := Path(entry["path"])).is_file() and sha256_of(path) == entry["sha256"]]


def input_hashes(model: Path, name: str) -> set[str]:
    """sha256 of the inputs called so (`name`, or `name:` and more) of the run that made `model`; none without one."""
    run = _run_of(model)
    entries = _inputs(run) if run is not None else {}
    return {str(entry["sha256"]) for key, entry in entries.items() if key.partition(":")[0] == name}


def _run_of(path: Path) -> Path | None:
    """The run directory that a path is, or lies in."""
    return next((place for place in (path, *path.parents) if (place / "inputs.json").is_file()), None)


def _inputs(run: Path) -> dict[str, Any]:
    inputs: dict[str, Any] = json.loads((run / "inputs.json").read_text(encoding="utf-8"))["inputs"]
    return inputs
