"""A model between two: WiSE-FT's linear interpolation of weights (Wortsman et al. 2022), with no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from prefloop.models.load import load_policy, save_model
from prefloop.rundir import resolve_model
from prefloop.train.config import InterpolateConfig
from prefloop.train.result import write_whole
from prefloop.types import InputError


def run(config: InterpolateConfig) -> dict[str, Any]:
    """The command `model interpolate`: (1 - weight) base + weight tuned, weight by weight.

    Raises InputError where the two have other shapes or tokenizers, and where `out` exists.
    """
    target = Path(config.out)
    if target.exists():
        raise InputError("exists already", path=target, field="out", remedy="give a directory to make")
    if not target.parent.is_dir():
        raise InputError("no such directory", path=target.parent, field="out", remedy="make it first")
    base_path, tuned_path = resolve_model(config.base, "base"), resolve_model(config.tuned, "tuned")
    base, chat = load_policy(base_path, field="base")
    tuned, tuned_chat = load_policy(tuned_path, field="tuned")
    if not chat.same_tokens(tuned_chat):
        raise InputError("base and tuned have different tokenizers", path=tuned_path, field="tuned")
    others = dict(tuned.named_parameters())
    for name, weight in base.named_parameters():
        if name not in others or others[name].shape != weight.shape:
            raise InputError(f"has no weight {name} of the shape it has in base", path=tuned_path, field="tuned")
        with torch.no_grad():
            weight.lerp_(others[name], config.weight)
    write_whole(target, lambda directory: save_model(base, chat, directory))
    return {"out": str(target), "weight": config.weight}
