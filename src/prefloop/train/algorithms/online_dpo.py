"""Online DPO (Guo et al. 2024): the DPO loss on two responses of the current policy, ordered by their scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveFloat

from prefloop.train.algorithms import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from prefloop.functional.batch import Advantages, LossOutput, RolloutBatch


class OnlineDPO(Algorithm):
    """Only the order of the two scores counts; the pull to the reference is in the loss, so no KL penalty is added."""

    keeps_groups: ClassVar[bool] = True
    loop_defaults: ClassVar[Mapping[str, Any]] = {"kl_coef": 0.0}

    loss_reduction: Literal["response"] = "response"
    """What a step's loss is averaged over: pairs of responses."""
    group_size: Literal[2] = 2
    """Responses sampled for each prompt: a pair."""
    beta: PositiveFloat = 0.1
    """Strength of the pull towards the reference."""

    def advantages(self, batch: RolloutBatch) -> Advantages:
        """1 for the better response of a pair, -1 for the other, 0 for both where they are equal."""
        from prefloop.functional.advantages import broadcast_to_tokens, leave_one_out
        from prefloop.functional.batch import Advantages
        from prefloop.functional.masked import masked_sum

        returns = masked_sum(batch.rewards, batch.response_mask, dim=1)
        return Advantages(broadcast_to_tokens(leave_one_out(returns, group_size=2).sign(), batch.response_mask))

    def policy_loss(
        self, logprobs: Tensor, batch: RolloutBatch, advantages: Tensor, *, denominator: Tensor
    ) -> LossOutput:
        """The DPO loss of the pairs that have an order, averaged over all pairs."""
        import torch

        from prefloop.functional.masked import masked_mean, masked_sum
        from prefloop.functional.preference import dpo_loss, log_ratio

        mask = batch.response_mask
        sums, ref_sums = (masked_sum(x, mask, dim=1) for x in (logprobs, batch.ref_logprobs))
        first, second = log_ratio(sums, ref_sums).view(-1, 2).unbind(dim=1)
        order = masked_mean(advantages, mask, dim=1).view(-1, 2)[:, 0]
        return dpo_loss(
            torch.where(order > 0, first, second),
            torch.where(order > 0, second, first),
            beta=self.beta,
            # A response that is masked out leaves nothing to compare.
            weights=order.abs() * mask.any(dim=1).view(-1, 2).all(dim=1),
            # Where no pair is left there is nothing to divide.
            denominator=(denominator / 2).clamp(min=1),
        )
