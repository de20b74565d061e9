"""The update of one round: epochs of optimiser steps over its rows, in micro-batches. Blind to the algorithm.

Losses divide by what the whole optimiser step has, so that neither the micro-batches nor their order change a gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from prefloop.functional.advantages import explained_variance
from prefloop.functional.batch import Advantages, LossOutput, RolloutBatch
from prefloop.functional.losses import kl_loss, loss_denominator, ratio_metrics
from prefloop.functional.masked import masked_sum
from prefloop.models.batching import TokenBatch
from prefloop.models.forward import logprobs_and_values, response_logprobs, shares_prompts, token_values
from prefloop.train.algorithms import Algorithm
from prefloop.train.config import OptimizerConfig, PolicyConfig
from prefloop.train.loop import TrainState, add_metrics, optimizer_step
from prefloop.train.ptx import Mixture
from prefloop.train.rollouts import Players, grouped_batches


class Updater:
    """What all updates of a run share."""

    def __init__(self, config: PolicyConfig, algorithm: Algorithm, players: Players, mixture: Mixture | None) -> None:
        self.config, self.algorithm, self.players, self.mixture = config, algorithm, players, mixture

    def update(self, state: TrainState, batch: RolloutBatch, advantages: Advantages) -> dict[str, float]:
        """Epochs of optimiser steps on one round. Losses divide by the whole optimiser step's denominator."""
        algorithm = self.algorithm
        total: dict[str, Tensor] = {}
        last: dict[str, float] = {}
        num_updates = 0
        for part, part_advantages in self._minibatches(state.step, batch, advantages):
            metrics = self.backward(state, part, part_advantages)
            gap = metrics.pop("policy/sampler_gap")
            # Later on the policy has moved away from the one that sampled.
            last.setdefault("policy/sampler_gap", float(gap))
            if algorithm.ends_update(float(metrics["policy/approx_kl"])):
                for optimizer in state.optimizers.values():
                    optimizer.zero_grad(set_to_none=True)
                break
            if self.mixture is not None and algorithm.trains_policy(state.step):
                place = state.step * algorithm.num_epochs * algorithm.num_minibatches + num_updates
                nll = self.mixture.backward(self.players.policy, update=place, seed=self.config.seed)
                metrics["ptx/loss"] = torch.tensor(nll)
            add_metrics(total, metrics)
            num_updates += 1
            last |= self._optimizer_steps(state)
        found = {
            name: float(value) / (1 if name.endswith("_max") else max(1, num_updates)) for name, value in total.items()
        }
        found["policy/num_updates"] = num_updates
        found["value/explained_variance"] = 0.0
        if advantages.returns is not None and batch.values is not None:
            explained = explained_variance(batch.values, advantages.returns, batch.response_mask)
            found["value/explained_variance"] = float(explained)
        return found | last

    def _minibatches(
        self, step: int, batch: RolloutBatch, advantages: Advantages
    ) -> Iterator[tuple[RolloutBatch, Advantages]]:
        """The rows of each optimiser step: every epoch deals the groups anew; a group is never split."""
        algorithm = self.algorithm
        num_groups = len(batch.scores) // algorithm.group_size
        offsets = torch.arange(algorithm.group_size)
        for epoch in range(algorithm.num_epochs):
            shuffle = torch.Generator().manual_seed((self.config.seed * 1_000_003 + step) * 101 + epoch)
            order = torch.randperm(num_groups, generator=shuffle)
            for groups in order.tensor_split(min(algorithm.num_minibatches, num_groups)):
                index = (groups[:, None] * algorithm.group_size + offsets).flatten().to(batch.scores.device)
                yield select(batch, index), select(advantages, index)

    def _optimizer_steps(self, state: TrainState) -> dict[str, float]:
        """Step every optimiser that has gradients; gradient norms and learning rates."""
        found: dict[str, float] = {}
        for name, optimizer in state.optimizers.items():
            if all(weight.grad is None for group in optimizer.param_groups for weight in group["params"]):
                continue
            field = "value_optimizer" if name == "value" else "optimizer"
            settings: OptimizerConfig = getattr(self.config, field)
            norm, rate = optimizer_step(
                optimizer, settings, step=state.step, num_steps=self.config.num_steps, field=field
            )
            found[f"{name}/grad_norm"], found[f"{name}/lr"] = norm, rate
        return found

    def backward(self, state: TrainState, batch: RolloutBatch, advantages: Advantages) -> dict[str, Tensor]:
        """Backward over one optimiser step's rows, in micro-batches."""
        config, algorithm, mask = self.config, self.algorithm, batch.response_mask
        denominator = loss_denominator(mask, reduction=algorithm.loss_reduction, max_length=config.max_new_tokens)
        num_tokens = loss_denominator(mask, reduction="token")
        total: dict[str, Tensor] = {}
        for members in grouped_batches(
            batch.lengths,
            batch.response_mask,
            group_size=algorithm.group_size,
            token_budget=config.token_budget,
            shares=shares_prompts(self.players.policy),
            keep_groups=algorithm.keeps_groups,
        ):
            index = torch.tensor(members, device=mask.device)
            width = int(batch.lengths[index].max())
            part, part_advantages = (select(record, index, width=width) for record in (batch, advantages))
            logprobs, values = self._forward(state.step, part)
            outputs = self._policy_losses(state, logprobs, part, part_advantages, denominator)
            weights = [1.0, state.kl_coef][: len(outputs)]
            if values is not None:
                assert part_advantages.returns is not None
                outputs.append(algorithm.value_loss(values, part, part_advantages.returns, denominator=num_tokens))
                weights.append(algorithm.value_on_trunk() or 1.0)
            losses = [weight * output.loss for weight, output in zip(weights, outputs, strict=True)]
            torch.autograd.backward([loss for loss in losses if loss.requires_grad])
            largest, token_sums = ratio_metrics(logprobs.detach(), part.old_logprobs, part.response_mask)
            token_sums["policy/clip_fraction"] = torch.zeros_like(largest)
            gap = masked_sum((logprobs.detach() - part.sampler_logprobs).abs(), part.response_mask)
            token_sums["policy/sampler_gap"] = gap
            metrics = {"policy/ratio_max": largest}
            for output in outputs:
                metrics |= output.metrics
                token_sums |= output.token_sums
            metrics |= {name: value / num_tokens.clamp(min=1) for name, value in token_sums.items()}
            add_metrics(total, metrics)
        return total

    def _policy_losses(
        self, state: TrainState, logprobs: Tensor, part: RolloutBatch, advantages: Advantages, denominator: Tensor
    ) -> list[LossOutput]:
        """The algorithm's loss of a micro-batch, and the KL loss where the penalty is one."""
        config, algorithm = self.config, self.algorithm
        if not algorithm.trains_policy(state.step):
            logprobs = logprobs.detach()
        outputs = [algorithm.policy_loss(logprobs, part, advantages.advantages, denominator=denominator)]
        if config.kl_penalty != "reward":
            outputs.append(
                kl_loss(
                    logprobs,
                    part.old_logprobs,
                    part.ref_logprobs,
                    part.response_mask,
                    estimator="k2" if config.kl_penalty == "loss_k2" else "k3",
                    denominator=denominator,
                    reduction=algorithm.loss_reduction,
                )
            )
        return outputs

    def _forward(self, step: int, part: RolloutBatch) -> tuple[Tensor, Tensor | None]:
        """Logprobs of a micro-batch, and values if there is a value model, [B, T] each."""
        players, temperature = self.players, self.config.temperature
        tokens = TokenBatch(part.input_ids, part.lengths, part.response_mask)
        if isinstance(players.value, nn.Linear):
            trains = self.algorithm.trains_policy(step)
            return logprobs_and_values(
                players.policy, players.value, tokens, temperature=temperature, trains_trunk=trains
            )
        logprobs = response_logprobs(players.policy, tokens, temperature=temperature)
        return logprobs, None if players.value is None else token_values(players.value, tokens)


def select(record: Any, index: Tensor, *, width: int | None = None) -> Any:
    """The rows `index` of a record of tensors [B] and [B, T], the latter cut to `width`."""
    columns = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    rows = {name: None if value is None else value[index] for name, value in columns.items()}
    return type(record)(**{name: x[:, :width] if x is not None and x.ndim == 2 else x for name, x in rows.items()})
