"""Group relative policy optimisation (Shao et al. 2024): the group's mean is the baseline, its deviation the scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveFloat

from prefloop.functional.reduction import Reduction
from prefloop.train.algorithms import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from prefloop.functional.batch import Advantages, LossOutput, RolloutBatch


class GRPO(Algorithm):
    """No value model; PPO's clipped ratio; the KL is a loss (k3) beside it, not part of the reward."""

    loop_defaults: ClassVar[Mapping[str, Any]] = {"kl_penalty": "loss_k3", "kl_coef": 0.04}
    scales: ClassVar[bool] = True
    """Whether advantages are divided by the deviation of their group."""

    loss_reduction: Reduction = "sequence"
    """What a step's loss is averaged over (see Algorithm); as published, the mean of each response's tokens."""
    group_size: int = Field(8, ge=2)
    """Responses sampled for each prompt; they are compared with one another."""
    clip_range: PositiveFloat = 0.2
    """The ratio's gain is cut off beyond 1 +- this."""

    def advantages(self, batch: RolloutBatch) -> Advantages:
        """Return against the group's, the same on every token; 0 in a group without spread."""
        from prefloop.functional.advantages import broadcast_to_tokens, group_normalise
        from prefloop.functional.batch import Advantages
        from prefloop.functional.masked import masked_sum

        returns = masked_sum(batch.rewards, batch.response_mask, dim=1)
        normalised = group_normalise(returns, group_size=self.group_size, scale=self.scales)
        return Advantages(broadcast_to_tokens(normalised, batch.response_mask))

    def policy_loss(
        self, logprobs: Tensor, batch: RolloutBatch, advantages: Tensor, *, denominator: Tensor
    ) -> LossOutput:
        """Equation 3 of the paper without its KL term, which the loop adds."""
        from prefloop.functional.losses import clipped_policy_loss

        return clipped_policy_loss(
            logprobs,
            batch.old_logprobs,
            advantages,
            batch.response_mask,
            clip_range=self.clip_range,
            denominator=denominator,
            reduction=self.loss_reduction,
        )
