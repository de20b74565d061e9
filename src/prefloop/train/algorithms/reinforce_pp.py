"""REINFORCE++ (Hu et al. 2025): PPO's clipped loss without a value model, advantages whitened over the round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import PositiveFloat

from prefloop.train.algorithms import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from prefloop.functional.batch import Advantages, LossOutput, RolloutBatch


class REINFORCEPlusPlus(Algorithm):
    """Reward to go with the KL in it, whitened over all tokens of the round; clipped ratio."""

    clip_range: PositiveFloat = 0.2
    """The ratio's gain is cut off beyond 1 +- this."""

    def advantages(self, batch: RolloutBatch) -> Advantages:
        """Undiscounted sum of the shaped rewards from each token on, then whitening (mean removed)."""
        from prefloop.functional.advantages import reward_to_go
        from prefloop.functional.batch import Advantages
        from prefloop.functional.masked import whiten

        return Advantages(whiten(reward_to_go(batch.rewards, batch.response_mask), batch.response_mask))

    def policy_loss(
        self, logprobs: Tensor, batch: RolloutBatch, advantages: Tensor, *, denominator: Tensor
    ) -> LossOutput:
        """PPO's clipped surrogate."""
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
