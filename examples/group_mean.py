"""A custom algorithm in one small file: REINFORCE with the group's mean as baseline (Williams 1992).

prefloop train policy --algorithm examples/group_mean.py:GroupMean --model runs/sft --reward ... --prompts ...
"""

from pydantic import Field
from torch import Tensor

from prefloop.functional.advantages import broadcast_to_tokens
from prefloop.functional.batch import Advantages, LossOutput, RolloutBatch
from prefloop.functional.losses import policy_gradient_loss
from prefloop.functional.masked import masked_sum
from prefloop.functional.reduction import Reduction
from prefloop.train.algorithms import Algorithm


class GroupMean(Algorithm):
    """Whole responses are the actions; the baseline is the mean over the responses to the same prompt."""

    loss_reduction: Reduction = "response"
    """What a step's loss is averaged over: each response counts whole."""
    group_size: int = Field(8, ge=2)
    """Responses sampled for each prompt."""

    def advantages(self, batch: RolloutBatch) -> Advantages:
        """Return of a response (score and KL penalty) minus its group's mean."""
        returns = masked_sum(batch.rewards, batch.response_mask, dim=1).view(-1, self.group_size)
        centred = (returns - returns.mean(dim=1, keepdim=True)).flatten()
        return Advantages(broadcast_to_tokens(centred, batch.response_mask))

    def policy_loss(
        self, logprobs: Tensor, batch: RolloutBatch, advantages: Tensor, *, denominator: Tensor
    ) -> LossOutput:
        """-advantage x log pi(response), summed over tokens, averaged over responses."""
        mask = batch.response_mask
        return policy_gradient_loss(logprobs, advantages, mask, denominator=denominator, reduction=self.loss_reduction)
