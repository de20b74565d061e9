"""Checkpoints that are whole or absent: temporary directory, fsync, manifest with sha256 last, one atomic rename.

Models are Hugging Face directories; optimiser moments, named tensors and random generators are safetensors; the rest is
JSON. Nothing is pickled. A checkpoint is deleted as it is written: renamed to its temporary name first, so that a crash
never leaves half of one under its own name.
"""

from __future__ import annotations

import json
import os
import re
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

RNG = "rng"
"""Name of the file with the random generators."""
_NAME = re.compile(r"step-\d{6,}")


def save_checkpoint(state: TrainState, root: Path, *, on_stop: bool = False) -> Path:
    """Write `root/step-NNNNNN`. A checkpoint that is already there and verifies is left alone.

    One written `on_stop` is a place to go on from and nothing else: an unbroken run would not have it, so it is never a
    result, does not count among those to keep, and is written anew where the run itself wants one of that step.
    """
    target = root / checkpoint_name(state.step)
    if target.exists() and verify(target) is None and (on_stop or not written_on_stop(target)):
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
    for name, tensors in _tensor_files(state).items():
        path = temporary / "state" / f"{name}.safetensors"
        with disk_errors(path):
            save_file({key: tensor.detach().contiguous() for key, tensor in tensors.items()}, path)
    write_json(temporary / "state" / "state.json", state.plain())
    files = [file for file in sorted(temporary.rglob("*")) if file.is_file()]
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    manifest = {str(file.relative_to(temporary)): sha256_of(file) for file in files}
    write_json(temporary / "manifest.json", {"step": state.step, "on_stop": on_stop, "files": manifest})
    for directory in {file.parent for file in files}:
        fsync_directory(directory)
    if target.exists():
        _delete(target)
    temporary.rename(target)
    fsync_directory(root)
    return target


def verify(directory: Path) -> str | None:
    """None if every file is as the manifest says, else what is wrong."""
    manifest = _manifest(directory)
    if isinstance(manifest, str):
        return manifest
    for name, expected in manifest["files"].items():
        if not (directory / name).is_file():
            return f"{name} is missing"
        if sha256_of(directory / name) != expected:
            return f"{name} does not match its checksum"
    return None


def _manifest(directory: Path) -> dict[str, Any] | str:
    """What manifest.json holds, or what is wrong with it. It has no checksum of its own, so its form is checked."""
    path = directory / "manifest.json"
    if not path.is_file():
        return "no manifest"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        whole = found["step"] == step_of(directory) and isinstance(found["on_stop"], bool) and found["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"broken manifest ({error})"
    return found if whole else "broken manifest (it is not of this checkpoint)"


def checkpoints(root: Path) -> list[Path]:
    """Checkpoint directories, oldest first, verified or not. What else a user put there is left alone."""
    return sorted((path for path in root.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir()), key=step_of)


def step_of(directory: Path) -> int:
    """The step that a checkpoint directory is named after."""
    return int(directory.name.removeprefix("step-"))


def written_on_stop(directory: Path) -> bool:
    """Whether a checkpoint is only there because the run was stopped at its step."""
    manifest = _manifest(directory)
    return not isinstance(manifest, str) and bool(manifest["on_stop"])


def newest_verified(root: Path, *, before: int | None = None, as_result: bool = False) -> Path | None:
    """The newest checkpoint (`before` a step) that verifies; damaged ones are named and passed over.

    `as_result` passes over those written on a stop, too.
    """
    for directory in reversed(checkpoints(root)):
        if before is not None and step_of(directory) >= before:
            continue
        problem = verify(directory) or _lost_best(directory)
        if problem is not None:
            say(f"warning: {directory} is damaged ({problem}); using the one before")
        elif not (as_result and written_on_stop(directory)):
            return directory
    return None


def _lost_best(directory: Path) -> str | None:
    """None if the checkpoint that was the best so far is whole, else what is wrong with it."""
    stored: dict[str, Any] = json.loads((directory / "state" / "state.json").read_text(encoding="utf-8"))
    if stored["best_value"] is None:
        return None
    best = directory.parent / checkpoint_name(stored["best_step"])
    problem = verify(best)
    return None if problem is None else f"the best one, {best.name}, is lost: {problem}"


def discard_after(root: Path, step: int) -> None:
    """Delete half-written checkpoints, and those after `step`: a resumed run does those steps again."""
    for directory in checkpoints(root):
        if step_of(directory) > step:
            _delete(directory)
    for leftover in root.glob(".step-*.tmp"):
        shutil.rmtree(leftover)


def _delete(directory: Path) -> None:
    """Delete a checkpoint; whatever a crash leaves of it has a name that does not count."""
    trash = directory.with_name(f".{directory.name}.old.tmp")
    shutil.rmtree(trash, ignore_errors=True)
    directory.rename(trash)
    shutil.rmtree(trash)


def checkpoint_name(step: int) -> str:
    """The name of the directory with the checkpoint of a step."""
    return f"step-{step:06d}"


def restore(state: TrainState, directory: Path) -> None:
    """Bring `state` to where it was when `directory` was written.

    Tensors of `state.tensors` that are there already are overwritten in place, so that whoever holds them sees it.
    """
    for name, model in state.models.items():
        if is_adapted(model):
            load_adapters(model, directory / name)
            continue
        missing, unexpected = load_model(model, directory / name / "model.safetensors", strict=False)
        tied = set(model.all_tied_weights_keys)
        assert not unexpected and set(missing) <= tied, (missing, unexpected)
    for name, optimizer in state.optimizers.items():
        _load_optimizer(optimizer, load_file(directory / "state" / f"optimizer-{name}.safetensors"))
    state.tensors = {
        path.stem.removeprefix("tensors-"): _filled(state.tensors.get(path.stem.removeprefix("tensors-"), {}), path)
        for path in sorted((directory / "state").glob("tensors-*.safetensors"))
    }
    state.rng = load_file(directory / "state" / f"{RNG}.safetensors")
    stored: dict[str, Any] = json.loads((directory / "state" / "state.json").read_text(encoding="utf-8"))
    state.set_plain(stored)


def prune(root: Path, *, keep: int, protect: set[int]) -> None:
    """Delete all but the newest `keep` checkpoints and the protected steps, and what a stop left before the newest."""
    on_stop = [path for path in checkpoints(root) if written_on_stop(path)]
    regular = [path for path in checkpoints(root) if path not in on_stop]
    for directory in regular[:-keep]:
        if step_of(directory) not in protect:
            _delete(directory)
    for directory in on_stop:
        if regular and step_of(directory) < step_of(regular[-1]):
            _delete(directory)


def discard_on_stop(root: Path) -> None:
    """Delete what was written on a stop: for a run that has come to its end."""
    for directory in checkpoints(root):
        if written_on_stop(directory):
            _delete(directory)


def _tensor_files(state: TrainState) -> dict[str, dict[str, torch.Tensor]]:
    return {RNG: state.rng} | {f"tensors-{name}": tensors for name, tensors in state.tensors.items()}


def _filled(present: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, written into those of the same name that are `present`."""
    found = load_file(path)
    for name in found.keys() & present.keys():
        assert found[name].shape == present[name].shape, name
        present[name].detach().copy_(found[name])
    return found | {name: present[name] for name in found.keys() & present.keys()}


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
