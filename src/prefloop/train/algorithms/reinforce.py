"""REINFORCE (Williams 1992) on whole responses, with the mean of the round's other responses as baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from prefloop.functional.reduction import Reduction
from prefloop.train.algorithms import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from prefloop.functional.batch import Advantages, LossOutput, RolloutBatch


class REINFORCE(Algorithm):
    """One response a prompt, one pass, one step: the plainest policy gradient."""

    loss_reduction: Reduction = "response"
    """What a step's loss is averaged over (see Algorithm); as published, each response counts whole."""
    baseline: Literal["batch_mean", "none"] = "batch_mean"
    """What is taken off a response's return: the mean of all others of the round, or nothing."""

    def advantages(self, batch: RolloutBatch) -> Advantages:
        """Sum of the shaped rewards minus the baseline. Leaving the response itself out keeps the gradient unbiased."""
        from prefloop.functional.advantages import broadcast_to_tokens, leave_one_out
        from prefloop.functional.batch import Advantages
        from prefloop.functional.masked import masked_sum

        returns = masked_sum(batch.rewards, batch.response_mask, dim=1)
        if self.baseline == "batch_mean" and len(returns) > 1:
            returns = leave_one_out(returns, group_size=len(returns))
        return Advantages(broadcast_to_tokens(returns, batch.response_mask))

    def policy_loss(
        self, logprobs: Tensor, batch: RolloutBatch, advantages: Tensor, *, denominator: Tensor
    ) -> LossOutput:
        """-advantage x log pi(response)."""
        from prefloop.functional.losses import policy_gradient_loss

        return policy_gradient_loss(
            logprobs, advantages, batch.response_mask, denominator=denominator, reduction=self.loss_reduction
        )
