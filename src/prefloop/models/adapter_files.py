"""Adapter directories: what peft writes and reads, and nothing that its own `PeftModel.from_pretrained` does not load.

    adapter_config.json        peft's settings; base_model_name_or_path is the directory of the frozen weights
    adapter_model.safetensors  A and B of every adapted layer, and a reward model's scalar head
    prefloop.json              in a run's result: sha256 of the base's weights, and a reward model's score statistics

A directory that is given as a model is its base with the adapters merged in. Adapters of other tools are read too.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from prefloop.models.chat import unreadable
from prefloop.models.lora import ADAPTER, HEAD, adapter_tensors, has_head
from prefloop.rundir import sha256_of, write_json
from prefloop.types import InputError

CONFIG_FILE, WEIGHTS_FILE, ORIGIN_FILE = "adapter_config.json", "adapter_model.safetensors", "prefloop.json"


def write_adapters(model: PreTrainedModel, directory: Path) -> None:
    """Write adapters as peft does, for `peft.PeftModel.from_pretrained(base, directory)`. Same adapters, same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in adapter_tensors(model).items()}
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    # peft's own writer stores sets in the order of the process's hash seed.
    values = {name: sorted(value) if isinstance(value, set) else value for name, value in _config(model).items()}
    head = [HEAD] if has_head(model) else None
    write_json(directory / CONFIG_FILE, values | {"inference_mode": True, "modules_to_save": head})


def write_origin(model: PreTrainedModel, directory: Path) -> None:
    """Write beside the adapters what tells a reader that the base is the right one, and how scores are normalised."""
    origin: dict[str, Any] = {"base_sha256": weights_sha256(Path(_config(model)["base_model_name_or_path"]))}
    if has_head(model):
        said = ("reward_mean", "reward_std", "reward_temperature")
        origin |= {name: getattr(model.config, name) for name in said}
    write_json(directory / ORIGIN_FILE, origin)


def _config(model: PreTrainedModel) -> dict[str, Any]:
    config = model.peft_config[ADAPTER]
    assert isinstance(config, peft.LoraConfig)
    return dict(sorted(config.to_dict().items()))


def load_adapters(model: PreTrainedModel, directory: Path) -> None:
    """Put stored adapters (and head) into a model that has adapters of the same shapes."""
    stored, wanted = load_file(directory / WEIGHTS_FILE), adapter_tensors(model)
    shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in (stored, wanted)]
    assert shapes[0] == shapes[1], directory
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(stored[name])


def weights_sha256(directory: Path) -> str:
    """sha256 (hex) of the names and hashes of a directory's safetensors files."""
    files = sorted(directory.glob("*.safetensors"))
    assert files, directory
    listed = "".join(f"{file.name} {sha256_of(file)}\n" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def is_adapter(directory: Path) -> bool:
    """Whether this is an adapter directory rather than a whole model."""
    return (directory / CONFIG_FILE).exists()


def adapter_settings(directory: Path, field: str) -> dict[str, Any]:
    """adapter_config.json. Raises InputError for adapters that cannot be merged, or without safetensors."""
    path = directory / CONFIG_FILE
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = settings["peft_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("broken JSON, or no peft_type", path=path, field=field) from error
    if kind != "LORA":
        raise InputError(f"adapters of type {kind} cannot be merged into a model; LORA can", path=path, field=field)
    if not (directory / WEIGHTS_FILE).exists():
        raise InputError(f"no {WEIGHTS_FILE} in this adapter directory", path=directory, field=field)
    return settings


def base_of(directory: Path, field: str) -> Path:
    """The directory of the weights that an adapter belongs to. Raises InputError, naming it, if it is not there."""
    name = str(adapter_settings(directory, field).get("base_model_name_or_path") or "")
    base = Path(name)
    if not name or not base.is_dir():
        raise InputError(
            f"the base model of this adapter is not a directory here: {name or 'none is named'}",
            path=directory / CONFIG_FILE,
            field=field,
            remedy="put the base model on this machine and its directory into base_model_name_or_path",
        )
    return base


def read_origin(directory: Path) -> dict[str, Any]:
    """What `write_origin` wrote; empty for adapters of other tools."""
    path = directory / ORIGIN_FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def merge_directory(model: PreTrainedModel, directory: Path, field: str) -> PreTrainedModel:
    """The base `model` with an adapter directory's weights merged in, by peft.

    Raises InputError if the adapter was trained on other weights, or if peft cannot put all of it into the model.
    """
    origin, base = read_origin(directory), base_of(directory, field)
    if origin and origin["base_sha256"] != weights_sha256(base):
        raise InputError(
            f"the weights in {base} are not those that this adapter was trained on", path=directory, field=field
        )
    try:
        with warnings.catch_warnings():
            # peft only warns where it leaves a setting of the file aside.
            warnings.simplefilter("error", UserWarning)
            # It asks transformers by a name that will go.
            warnings.simplefilter("ignore", FutureWarning)
            config: Any = peft.PeftConfig.from_pretrained(str(directory))
            # A classifier can take the adapters of a language model: only the names of the layers matter.
            config.task_type, config.inference_mode = None, True
            adapted = peft.PeftModel(model, config)
            outcome = adapted.load_adapter(str(directory), ADAPTER)
    except Exception as error:
        raise unreadable("peft cannot load this adapter", error, directory, field) from error
    for names, problem in (
        (outcome.missing_keys, "lacks weights of the model"),
        (outcome.unexpected_keys, "has weights that the model has not"),
    ):
        if names:
            raise InputError(f"the adapter {problem}: {', '.join(sorted(names)[:3])}", path=directory, field=field)
    whole = adapted.merge_and_unload()
    assert isinstance(whole, PreTrainedModel)
    return whole
