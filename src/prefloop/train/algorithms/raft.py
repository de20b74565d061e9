"""RAFT (Dong et al. 2023): sample several, keep the best of each group, fine-tune on it, iterate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from prefloop.functional.reduction import Reduction
from prefloop.train.algorithms import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from prefloop.functional.batch import Advantages, LossOutput, RolloutBatch


class RAFT(Algorithm):
    """Supervised fine-tuning on the best of each group: no ratio, no baseline, nothing learned from the others."""

    loss_reduction: Reduction = "sequence"
    """What a step's loss is averaged over (see Algorithm); the best responses weigh the same, however long."""
    group_size: int = Field(8, ge=2)
    """Responses sampled for each prompt; the best one is learned."""

    def advantages(self, batch: RolloutBatch) -> Advantages:
        """group_size for the best response of a group, so that the mean over all is that over the best; else 0."""
        from prefloop.functional.advantages import best_of_group, broadcast_to_tokens
        from prefloop.functional.batch import Advantages
        from prefloop.functional.masked import masked_sum

        returns = masked_sum(batch.rewards, batch.response_mask, dim=1)
        best = best_of_group(returns, group_size=self.group_size).to(returns.dtype)
        return Advantages(broadcast_to_tokens(self.group_size * best, batch.response_mask))

    def policy_loss(
        self, logprobs: Tensor, batch: RolloutBatch, advantages: Tensor, *, denominator: Tensor
    ) -> LossOutput:
        """Negative log-likelihood of the best responses."""
        from prefloop.functional.losses import policy_gradient_loss

        return policy_gradient_loss(
            logprobs, advantages, batch.response_mask, denominator=denominator, reduction=self.loss_reduction
        )
