"""Proximal policy optimisation (Schulman et al. 2017) with a value model and GAE (Schulman et al. 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from prefloop.train.algorithms import Algorithm

if TYPE_CHECKING:
    from torch import Tensor

    from prefloop.functional.batch import Advantages, LossOutput, RolloutBatch


class PPO(Algorithm):
    """Clipped policy ratio, clipped value, advantages from GAE, whitened over the whole batch."""

    needs_values: ClassVar[bool] = True

    group_size: PositiveInt = 1
    """Responses sampled for each prompt."""
    num_epochs: PositiveInt = 4
    """Passes over one round of rollouts."""
    num_minibatches: PositiveInt = 1
    """Optimiser steps of one pass."""
    clip_range: PositiveFloat = 0.2
    """The ratio's gain is cut off beyond 1 +- this."""
    dual_clip: float | None = Field(None, gt=1)
    """Where the advantage is negative, the loss is cut off beyond this times it; none: not at all."""
    max_update_kl: PositiveFloat | None = None
    """Leave the rest of a round's passes out once the policy has moved so far from the one that sampled (nats per
    token); none: never."""
    value_clip_range: PositiveFloat = 0.2
    """How far the value may move from the rollout's before its gain is cut off."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount per token."""
    gae_lambda: float = Field(0.95, ge=0, le=1)
    """Decay of GAE: 1 is Monte Carlo, 0 one-step."""
    value_head: bool = False
    """A head on the policy's own trunk, zero at first, instead of a value model of its own weights."""
    vf_coef: PositiveFloat = 0.1
    """Weight of the value loss against the policy loss, with value_head."""
    value_warmup_steps: NonNegativeInt = 0
    """First so many rounds train the value model only."""

    @model_validator(mode="after")
    def _effective(self) -> PPO:
        if "vf_coef" in self.model_fields_set and self.vf_coef != 0.1 and not self.value_head:
            raise ValueError("vf_coef has no effect without value_head: a value model has an optimiser of its own")
        return self

    def value_on_trunk(self) -> float | None:
        """`vf_coef` with `value_head`."""
        return self.vf_coef if self.value_head else None

    def trains_policy(self, step: int) -> bool:
        """Not in the rounds of the value model's warm-up."""
        return step >= self.value_warmup_steps

    def ends_update(self, approx_kl: float) -> bool:
        """Beyond `max_update_kl`."""
        return self.max_update_kl is not None and approx_kl > self.max_update_kl

    def advantages(self, batch: RolloutBatch) -> Advantages:
        """GAE over the shaped rewards, then whitening (mean removed) over all response tokens."""
        from prefloop.functional.advantages import gae
        from prefloop.functional.batch import Advantages
        from prefloop.functional.masked import whiten

        assert batch.values is not None
        raw, returns = gae(
            batch.rewards, batch.values, batch.response_mask, gamma=self.gamma, gae_lambda=self.gae_lambda
        )
        return Advantages(whiten(raw, batch.response_mask), returns)

    def policy_loss(
        self, logprobs: Tensor, batch: RolloutBatch, advantages: Tensor, *, denominator: Tensor
    ) -> LossOutput:
        """Equation 7 of the PPO paper."""
        from prefloop.functional.losses import clipped_policy_loss

        return clipped_policy_loss(
            logprobs,
            batch.old_logprobs,
            advantages,
            batch.response_mask,
            clip_range=self.clip_range,
            dual_clip=self.dual_clip,
            denominator=denominator,
            reduction=self.loss_reduction,
        )

    def value_loss(self, values: Tensor, batch: RolloutBatch, returns: Tensor, *, denominator: Tensor) -> LossOutput:
        """Squared error to the returns, the larger of the clipped and the unclipped."""
        from prefloop.functional.losses import clipped_value_loss

        assert batch.values is not None
        return clipped_value_loss(
            values,
            batch.values,
            returns,
            batch.response_mask,
            clip_range=self.value_clip_range,
            denominator=denominator,
        )
