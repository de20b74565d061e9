"""Checkpoints that are whole or absent: temporary directory, fsync, manifest with sha256 last, one atomic rename.

Models are Hugging Face directories; optimiser moments are safetensors; the rest is JSON. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, load_model, save_file

from prefloop.console import say
from prefloop.models.adapter_files import load_adapters
from prefloop.models.load import disk_errors, save_adapters, save_model
from prefloop.models.lora import is_adapted
from prefloop.rundir import fsync_directory, sha256_of, write_json

if TYPE_CHECKING:
    from prefloop.train.loop import TrainState


def save_checkpoint(state: TrainState, root: Path) -> Path:
    """Write `root/step-NNNNNN`. A checkpoint that is already there and verifies is left alone."""
    target = root / checkpoint_name(state.step)
    if target.exists() and verify(target) is None:
        return target
    temporary = root / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "state").mkdir(parents=True)
    for name, model in state.models.items():
        save = save_adapters if is_adapted(model) else save_model
        save(model, state.chat, temporary / name)
    for name, optimizer in state.optimizers.items():
        path = temporary / "state" / f"optimizer-{name}.safetensors"
        with disk_errors(path):
            save_file(_optimizer_tensors(optimizer), path)
    write_json(temporary / "state" / "state.json", state.plain())
    files = [file for file in sorted(temporary.rglob("*")) if file.is_file()]
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    manifest = {str(file.relative_to(temporary)): sha256_of(file) for file in files}
    write_json(temporary / "manifest.json", {"step": state.step, "files": manifest})
    for directory in {file.parent for file in files}:
        fsync_directory(directory)
    if target.exists():
        shutil.rmtree(target)
    temporary.rename(target)
    fsync_directory(root)
    return target


def verify(directory: Path) -> str | None:
    """None if every file is as the manifest says, else what is wrong."""
    path = directory / "manifest.json"
    if not path.exists():
        return "no manifest"
    try:
        files: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError, TypeError) as error:
        return f"broken manifest ({error})"
    for name, expected in files.items():
        if not (directory / name).exists():
            return f"{name} is missing"
        if sha256_of(directory / name) != expected:
            return f"{name} does not match its checksum"
    return None


def checkpoints(root: Path) -> list[Path]:
    """Checkpoint directories, oldest first, verified or not."""
    return sorted(root.glob("step-*"), key=step_of)


def step_of(directory: Path) -> int:
    """The step that a checkpoint directory is named after."""
    return int(directory.name.removeprefix("step-"))


def newest_verified(root: Path, *, before: int | None = None) -> Path | None:
    """The newest checkpoint (`before` a step) that verifies; damaged ones are named and passed over."""
    for directory in reversed(checkpoints(root)):
        if before is not None and step_of(directory) >= before:
            continue
        problem = verify(directory) or _lost_best(directory)
        if problem is None:
            return directory
        say(f"warning: {directory} is damaged ({problem}); using the one before")
    return None


def _lost_best(directory: Path) -> str | None:
    """None if the checkpoint that was the best so far is whole, else what is wrong with it."""
    stored: dict[str, Any] = json.loads((directory / "state" / "state.json").read_text(encoding="utf-8"))
    if stored["best_loss"] is None:
        return None
    best = directory.parent / checkpoint_name(stored["best_step"])
    problem = verify(best)
    return None if problem is None else f"the best one, {best.name}, is lost: {problem}"


def discard_after(root: Path, step: int) -> None:
    """Delete half-written checkpoints, and those after `step`: a resumed run does those steps again."""
    for directory in checkpoints(root):
        if step_of(directory) > step:
            shutil.rmtree(directory)
    for leftover in root.glob(".step-*.tmp"):
        shutil.rmtree(leftover)


def checkpoint_name(step: int) -> str:
    """The name of the directory with the checkpoint of a step."""
    return f"step-{step:06d}"


def restore(state: TrainState, directory: Path) -> None:
    """Bring `state` to where it was when `directory` was written."""
    for name, model in state.models.items():
        if is_adapted(model):
            load_adapters(model, directory / name)
            continue
        missing, unexpected = load_model(model, directory / name / "model.safetensors", strict=False)
        tied = set(model.all_tied_weights_keys)
        assert not unexpected and set(missing) <= tied, (missing, unexpected)
    for name, optimizer in state.optimizers.items():
        _load_optimizer(optimizer, load_file(directory / "state" / f"optimizer-{name}.safetensors"))
    stored: dict[str, Any] = json.loads((directory / "state" / "state.json").read_text(encoding="utf-8"))
    state.set_plain(stored)


def prune(root: Path, *, keep: int, protect: set[int]) -> None:
    """Delete all but the newest `keep` checkpoints and the protected steps."""
    for directory in checkpoints(root)[:-keep]:
        if step_of(directory) not in protect:
            shutil.rmtree(directory)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{key}": value.detach().contiguous()
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
