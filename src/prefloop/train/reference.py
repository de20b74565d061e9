"""Log-probabilities of the reference, computed once and kept in the run directory.

    .reference/logprobs.safetensors   summed log-probabilities, one row a training (or held-out) example
    .reference/identity.json          what they were computed from, and the checksum of the file; written last

They are used again only by a run on the same reference, tokenizer and rows. The directory is hidden because it is no
result: a run that stopped before its first step still belongs to nobody (see `rundir`), and the next one may find other
settings or another reference.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from prefloop.console import say
from prefloop.models.chat import Chat, Encoded
from prefloop.models.config import Precision
from prefloop.rundir import RunDir, fsync_directory, write_json

FOLDER = ".reference"


def identity_of(
    run: RunDir, chat: Chat, rows: Mapping[str, Sequence[Sequence[Encoded]]], *, precision: Precision
) -> dict[str, str]:
    """The precision that they are computed in; sha256 of the reference (its directory, as the run recorded it), of the
    tokenizer with its chat template, and of the data: the token rows of each part of it, in order."""
    inputs = json.loads((run.path / "inputs.json").read_text(encoding="utf-8"))["inputs"]
    tokenizer = f"{chat.tokenizer.chat_template}\0{chat.tokenizer.backend_tokenizer.to_str()}"
    data = hashlib.sha256()
    for part, examples in rows.items():
        data.update(f"{part}:{len(examples)}".encode())
        for row in (side for example in examples for side in example):
            data.update(np.array([len(row.ids), *row.ids]).tobytes())
            data.update(np.array(row.mask).tobytes())
    return {
        "reference": inputs["reference"]["sha256"],
        "tokenizer": hashlib.sha256(tokenizer.encode()).hexdigest(),
        "data": data.hexdigest(),
        "precision": precision,
    }


def cached(
    run: Path, identity: Mapping[str, str], compute: Callable[[], dict[str, Tensor]], *, device: torch.device | str
) -> dict[str, Tensor]:
    """The tensors that `compute` gives, from an earlier run of it if one with the same identity is whole."""
    tensors, problem = _stored(run / FOLDER, identity)
    if tensors is not None:
        say(f"log-probabilities of the reference: those of {run / FOLDER}")
    else:
        if problem:
            say(f"warning: {run / FOLDER} is not used: {problem}; computing the reference's log-probabilities again")
        tensors = compute()
        _store(run / FOLDER, identity, tensors)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _stored(folder: Path, identity: Mapping[str, str]) -> tuple[dict[str, Tensor] | None, str]:
    """What is stored, or None and why it does not serve; the reason is empty where nothing is stored."""
    path = folder / "identity.json"
    if not path.exists():
        return None, ""
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in identity if record[name] != identity[name]]
        checksum = record["logprobs"]
    except (ValueError, KeyError, TypeError):
        return None, "identity.json is damaged"
    if differing:
        return None, f"it is of another {', another '.join(differing)}"
    logprobs = folder / "logprobs.safetensors"
    content = logprobs.read_bytes() if logprobs.exists() else b""
    if hashlib.sha256(content).hexdigest() != checksum:
        return None, "logprobs.safetensors is damaged"
    return load(content), ""


def _store(folder: Path, identity: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    folder.mkdir(exist_ok=True)
    # From here on the old record, if there is one, does not match what is stored.
    (folder / "identity.json").unlink(missing_ok=True)
    content = save({name: tensor.cpu() for name, tensor in tensors.items()})
    temporary = folder / "logprobs.safetensors.tmp"
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / "logprobs.safetensors")
    fsync_directory(folder)
    write_json(folder / "identity.json", {**identity, "logprobs": hashlib.sha256(content).hexdigest()})
