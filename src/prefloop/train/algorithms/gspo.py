"""Group sequence policy optimisation (Zheng et al. 2025): GRPO's advantages, one ratio and one clip a response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveFloat

from prefloop.train.algorithms.grpo import GRPO

if TYPE_CHECKING:
    from torch import Tensor

    from prefloop.functional.batch import LossOutput, RolloutBatch


class GSPO(GRPO):
    """Sequence-level ratios, clipped to a far narrower range than a token's, and no KL penalty."""

    loop_defaults: ClassVar[Mapping[str, Any]] = {"kl_coef": 0.0}

    loss_reduction: Literal["sequence"] = "sequence"
    """What a step's loss is averaged over: responses, whose ratio is one number."""
    clip_range: PositiveFloat = 3e-4
    """Lower side of the clip of a response's ratio."""
    clip_range_high: PositiveFloat = 4e-4
    """Upper side of the clip of a response's ratio."""

    def policy_loss(
        self, logprobs: Tensor, batch: RolloutBatch, advantages: Tensor, *, denominator: Tensor
    ) -> LossOutput:
        """Equation 5 of the paper."""
        from prefloop.functional.losses import sequence_ratio_loss

        return sequence_ratio_loss(
            logprobs,
            batch.old_logprobs,
            advantages,
            batch.response_mask,
            clip_range=self.clip_range,
            clip_range_high=self.clip_range_high,
            denominator=denominator,
        )
