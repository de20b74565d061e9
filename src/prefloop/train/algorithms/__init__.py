"""Policy-optimisation algorithms: advantages + loss, nothing else. Adding one = one file and one line in ALGORITHMS.

An algorithm is a config section with methods, so that its settings, defaults and maths stand in one small file. Its
module must import without torch (help and validation do); it imports `functional` inside its methods.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, PositiveInt

from prefloop.config import Section
from prefloop.functional.reduction import Reduction
from prefloop.reward.user_code import is_user_code, load_user_object
from prefloop.types import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from prefloop.functional.batch import Advantages, LossOutput, RolloutBatch

ALGORITHMS = {
    "ppo": "prefloop.train.algorithms.ppo:PPO",
    "reinforce": "prefloop.train.algorithms.reinforce:REINFORCE",
    "rloo": "prefloop.train.algorithms.rloo:RLOO",
    "reinforce_pp": "prefloop.train.algorithms.reinforce_pp:REINFORCEPlusPlus",
    "grpo": "prefloop.train.algorithms.grpo:GRPO",
    "dr_grpo": "prefloop.train.algorithms.dr_grpo:DrGRPO",
    "dapo": "prefloop.train.algorithms.dapo:DAPO",
    "gspo": "prefloop.train.algorithms.gspo:GSPO",
    "raft": "prefloop.train.algorithms.raft:RAFT",
    "online_dpo": "prefloop.train.algorithms.online_dpo:OnlineDPO",
}


class Algorithm(Section):
    """What the on-policy loop asks of an algorithm."""

    model_config = ConfigDict(allow_inf_nan=False)

    needs_values: ClassVar[bool] = False
    """Whether a value model is trained beside the policy."""
    keeps_groups: ClassVar[bool] = False
    """Whether the loss compares the responses to one prompt, so that a micro-batch must hold them together."""
    loop_defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings of the loop that the paper has otherwise than the loop's own defaults."""

    group_size: PositiveInt = 1
    """Responses sampled for each prompt."""
    num_epochs: PositiveInt = 1
    """Passes over one round of rollouts."""
    num_minibatches: PositiveInt = 1
    """Optimiser steps of one pass."""
    loss_reduction: Reduction = "token"
    """What a step's loss is averaged over: its tokens; its responses, each the mean of its tokens (sequence) or their
    sum (response); or responses x max_new_tokens (constant)."""

    def advantages(self, batch: RolloutBatch) -> Advantages:
        """Per-token advantages of a whole round (and returns, if there is a value model)."""
        raise NotImplementedError

    def policy_loss(
        self, logprobs: Tensor, batch: RolloutBatch, advantages: Tensor, *, denominator: Tensor
    ) -> LossOutput:
        """Loss of a micro-batch; `denominator` is the whole optimiser step's, so that micro-batches add up."""
        raise NotImplementedError

    def value_loss(self, values: Tensor, batch: RolloutBatch, returns: Tensor, *, denominator: Tensor) -> LossOutput:
        """Loss of the value model; only asked for if `needs_values`."""
        raise NotImplementedError

    def value_on_trunk(self) -> float | None:
        """Weight of the value loss where the value is a head on the policy's trunk; None: a model of its own."""
        return None

    def trains_policy(self, step: int) -> bool:
        """Whether the policy is updated in this step (0, 1, ...), not the value model alone."""
        return True

    def ends_update(self, approx_kl: float) -> bool:
        """Whether to leave the rest of a round's passes out, the policy having moved so far (nats per token)."""
        return False

    def resamples(self) -> int:
        """How often further prompts are sampled in place of groups without spread."""
        return 0


def algorithm_settings(name: str) -> type[Algorithm]:
    """The class of a built-in algorithm, or of `file.py:Class`. Raises InputError for an unknown name."""
    target = ALGORITHMS.get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        found = vars(importlib.import_module(module))[attribute]
    elif is_user_code(name):
        found = load_user_object(name, field="algorithm")
    else:
        raise InputError(
            f"unknown algorithm {name!r}", field="algorithm", remedy=f"known: {', '.join(ALGORITHMS)}, or file.py:Class"
        )
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise InputError(
            f"{name} is no Algorithm class", field="algorithm", remedy="subclass prefloop.train.algorithms.Algorithm"
        )
    return found
