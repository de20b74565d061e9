"""In which numbers a pass computes. Weights, optimisers, norms and scores stay fp32; linear layers and attention need
not.

`computing_in("bf16")` is torch's autocast: the linear layers' weights are cast once in it, however often they are used.
"""

from __future__ import annotations

import time

import torch
from torch import nn

from prefloop.models.config import Precision


def computing_in(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which the passes of training and the sampler compute in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def full_precision(device: torch.device) -> torch.autocast:
    """A context in which nothing is computed in less than its inputs have."""
    return torch.autocast(device.type, enabled=False)


def compute_dtype(device: torch.device, otherwise: torch.dtype = torch.float32) -> torch.dtype:
    """What linear layers on `device` compute in: what the context says, if it says anything."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else otherwise


@torch.no_grad()
def store_in(precision: Precision, model: nn.Module) -> None:
    """Keep the linear layers of a model that is not trained in the numbers that it computes in: half the memory.

    The head, a module of the model itself, stays as it is: it may be the embedding's weight, or give scores.
    """
    if precision == "bf16":
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear) and "." in name:
                layer.weight.data = layer.weight.data.to(torch.bfloat16)


def bf16_over_fp32(device: torch.device) -> float:
    """How many times as long a matrix product takes in bf16 as in fp32: far above 1 on a CPU without units for it."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        factor, tries = torch.ones(256, 256, dtype=dtype, device=device), []
        for _ in range(4):
            started = time.perf_counter()
            float((factor @ factor)[0, 0])
            tries.append(time.perf_counter() - started)
        seconds[dtype] = min(tries[1:])
    return seconds[torch.bfloat16] / seconds[torch.float32]
