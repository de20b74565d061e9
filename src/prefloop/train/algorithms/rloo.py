"""REINFORCE leave-one-out (Kool et al. 2019; Ahmadian et al. 2024): the baseline is the mean of the group's others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prefloop.functional.reduction import Reduction
from prefloop.train.algorithms import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from prefloop.functional.batch import Advantages, LossOutput, RolloutBatch


class RLOO(Algorithm):
    """Whole responses are the actions: one advantage a response, no value model, no clipping."""

    loss_reduction: Reduction = "response"
    """What a step's loss is averaged over (see Algorithm); as published, each response counts whole."""
    group_size: int = Field(4, ge=2)
    """Responses sampled for each prompt; each one's baseline is the mean of the others."""

    def advantages(self, batch: RolloutBatch) -> Advantages:
        """Sum of the shaped rewards minus the mean of the other responses to the same prompt."""
        from prefloop.functional.advantages import broadcast_to_tokens, leave_one_out
        from prefloop.functional.batch import Advantages
        from prefloop.functional.masked import masked_sum

        returns = masked_sum(batch.rewards, batch.response_mask, dim=1)
        return Advantages(broadcast_to_tokens(leave_one_out(returns, group_size=self.group_size), batch.response_mask))

    def policy_loss(
        self, logprobs: Tensor, batch: RolloutBatch, advantages: Tensor, *, denominator: Tensor
    ) -> LossOutput:
        """-advantage x log pi(response)."""
        from prefloop.functional.losses import policy_gradient_loss

        return policy_gradient_loss(
            logprobs, advantages, batch.response_mask, denominator=denominator, reduction=self.loss_reduction
        )
