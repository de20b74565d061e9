"""The global random generators of Python, numpy and torch as tensors that a checkpoint can hold.

prefloop draws nothing from them while it trains: what it needs is derived from the seed and the step number. A reward
function or an algorithm of a user may.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_all(seed: int) -> None:
    """Seed all global generators, those of every GPU included. `seed` is at least 0."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Tensor]:
    """Where all global generators are."""
    _, words, gauss = random.getstate()
    legacy: dict[str, Any] = np.random.get_state(legacy=False)
    assert legacy["bit_generator"] == "MT19937", "numpy's global generator was replaced"
    found = {
        "python.words": torch.tensor(words, dtype=torch.int64),
        # Both generators draw normal numbers in pairs and keep the second one for the next call.
        "python.gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy.words": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
        "numpy.place": torch.tensor([legacy["state"]["pos"], legacy["has_gauss"]], dtype=torch.int64),
        "numpy.gauss": torch.tensor([legacy["gauss"]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        found |= {f"cuda.{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    return found


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Bring all global generators to where `random_state` found them; GPUs that it did not see are left alone."""
    words, gauss = state["python.words"].tolist(), state["python.gauss"].tolist()
    random.setstate((3, tuple(words), gauss[0] if gauss else None))
    place, has_gauss = state["numpy.place"].tolist()
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": state["numpy.words"].numpy().astype(np.uint32), "pos": place},
            "has_gauss": has_gauss,
            "gauss": float(state["numpy.gauss"]),
        }
    )
    torch.set_rng_state(state["torch"])
    for number in range(torch.cuda.device_count()):
        if f"cuda.{number}" in state:
            torch.cuda.set_rng_state(state[f"cuda.{number}"], number)
