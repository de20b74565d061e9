"""The models that come out of a run. With adapters they are two directories: merged, for everyone, and the adapters.

A checkpoint holds adapters alone, so it is small; the merged model is written once, at the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from prefloop.models.adapter_files import write_origin
from prefloop.models.chat import Chat
from prefloop.models.load import save_adapters, save_model
from prefloop.models.lora import is_adapted
from prefloop.rundir import fsync_directory
from prefloop.train.checkpoint import restore
from prefloop.train.loop import TrainState

OUTPUTS = {"policy": "model", "reward": "model", "value": "value", "ema": "ema"}
"""What a run calls its result, by the name of the trained model; a refreshed reference is none."""
ADAPTER_OUTPUTS = {"policy": "adapter", "reward": "adapter", "value": "value_adapter", "ema": "ema_adapter"}


def result_of(state: TrainState, root: Path, chosen: Path) -> dict[str, str]:
    """The outputs of the run in `root` whose result is the checkpoint `chosen`: name -> directory, relative to `root`.

    Whole models stay where they are, in the checkpoint. Adapters are taken back to it, merged and written.
    """
    if not any(is_adapted(model) for model in state.models.values()):
        return {output: str(chosen / name) for name, output in OUTPUTS.items() if name in state.models}
    restore(state, root / chosen)
    return save_result(state, root)


def save_result(state: TrainState, root: Path, add: Callable[[Path], None] = lambda _: None) -> dict[str, str]:
    """Write the trained models as they are now as the outputs of the run in `root`, adapters also by themselves.

    `add` puts further files into the directory of a whole model before it appears.
    """
    outputs: dict[str, str] = {}
    for name in OUTPUTS.keys() & state.models.keys():
        model = state.models[name]
        made = {OUTPUTS[name]: partial(_save_whole, model, state.chat, add)}
        if is_adapted(model):
            made[ADAPTER_OUTPUTS[name]] = partial(_save_adapter_result, model, state.chat)
        for output, write in made.items():
            write_whole(root / output, write)
            outputs[output] = output
    return outputs


def _save_whole(model: PreTrainedModel, chat: Chat, add: Callable[[Path], None], directory: Path) -> None:
    save_model(model, chat, directory)
    add(directory)


def _save_adapter_result(model: PreTrainedModel, chat: Chat, directory: Path) -> None:
    save_adapters(model, chat, directory)
    write_origin(model, directory)


def write_whole(target: Path, write: Callable[[Path], None]) -> None:
    """Make the directory `target` of what `write` puts into an empty one: it appears whole and on disk, or not."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    for file in (file for file in temporary.rglob("*") if file.is_file()):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    fsync_directory(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    fsync_directory(target.parent)
