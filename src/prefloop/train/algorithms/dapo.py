"""DAPO (Yu et al. 2025): GRPO with a higher upper clip, token-level averaging, and groups without spread sampled anew.

Its overlong filtering and soft overlong punishment are settings of the loop (`shaping`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import NonNegativeInt, PositiveFloat

from prefloop.functional.reduction import Reduction
from prefloop.train.algorithms.grpo import GRPO

if TYPE_CHECKING:
    from torch import Tensor

    from prefloop.functional.batch import LossOutput, RolloutBatch


class DAPO(GRPO):
    """GRPO with an asymmetric clip and dynamic sampling, and no KL penalty."""

    loop_defaults: ClassVar[Mapping[str, Any]] = {"kl_coef": 0.0}

    loss_reduction: Reduction = "token"
    """What a step's loss is averaged over (see Algorithm)."""
    clip_range_high: PositiveFloat = 0.28
    """Upper side of the clip; clip_range is the lower one."""
    num_resamples: NonNegativeInt = 3
    """How often further prompts are sampled in place of groups without spread, before a step goes on without them."""

    def resamples(self) -> int:
        """`num_resamples`."""
        return self.num_resamples

    def policy_loss(
        self, logprobs: Tensor, batch: RolloutBatch, advantages: Tensor, *, denominator: Tensor
    ) -> LossOutput:
        """Equation 8 of the paper."""
        from prefloop.functional.losses import clipped_policy_loss

        return clipped_policy_loss(
            logprobs,
            batch.old_logprobs,
            advantages,
            batch.response_mask,
            clip_range=self.clip_range,
            clip_range_high=self.clip_range_high,
            denominator=denominator,
            reduction=self.loss_reduction,
        )
