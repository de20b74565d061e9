"""Dr. GRPO (Liu et al. 2025): GRPO without its two biases, of length and of difficulty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from prefloop.functional.reduction import Reduction
from prefloop.train.algorithms.grpo import GRPO


class DrGRPO(GRPO):
    """GRPO with neither the group's deviation nor the response's length as a divisor, and no KL penalty."""

    loop_defaults: ClassVar[Mapping[str, Any]] = {"kl_coef": 0.0}
    scales: ClassVar[bool] = False

    loss_reduction: Reduction = "constant"
    """What a step's loss is averaged over (see Algorithm); as published, responses x max_new_tokens."""
