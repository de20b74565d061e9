"""The on-policy loop: sample, score, reward, advantage, update, record. Blind to the algorithm.

Differences from Ziegler et al. 2019: the exact KL over the vocabulary (kl/full) is logged beside the estimate, and a
hard budget on it can end the run. The first round of a run is checked: the sampler's logprobs must be the trainer's,
and the KL must be 0 where policy and reference are the same weights.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.console import say
from prefloop.data.read import read_prompts
from prefloop.functional.advantages import explained_variance, shape_rewards
from prefloop.functional.batch import Advantages, RolloutBatch
from prefloop.functional.kl import adapt_kl_coef, k1
from prefloop.functional.losses import loss_denominator
from prefloop.functional.masked import masked_mean, zero_outside
from prefloop.models.batching import TokenBatch, collate, micro_batches
from prefloop.models.chat import Encoded
from prefloop.models.forward import compare_to_reference, response_logprobs, token_values
from prefloop.models.load import default_device, load_policy, load_reward_model, new_reward_model
from prefloop.reward.scoring import Response, Scorer, load_scorer
from prefloop.reward.user_code import file_of, is_user_code
from prefloop.rollout.engine import Sampled, sample
from prefloop.rundir import RunDir, resolve_model
from prefloop.train.algorithms import Algorithm
from prefloop.train.checkpoint import save_checkpoint
from prefloop.train.config import OptimizerConfig, PolicyConfig
from prefloop.train.loop import (
    TrainState,
    add_metrics,
    fit,
    last_metrics,
    make_optimizer,
    optimizer_step,
    result_checkpoint,
    rows_of_step,
)
from prefloop.train.offline import input_files, length_limit, within_length
from prefloop.types import InputError, Prompt, Rollout, RunResult

BUDGET_WINDOW = 256
"""The budget is tested on the mean KL of at least this many of the newest responses."""
SAMPLER_GAP_LIMIT = 1e-4
"""Largest mean |log p(sampler) - log p(trainer)| of the first round, fp32. A correct one is near 4e-7."""
START_KL_LIMIT = 1e-5
"""Largest mean |KL| per token of the first round where policy and reference are the same weights."""


@dataclass(frozen=True, eq=False)
class Round:
    """One round of rollouts with what is logged about it."""

    batch: RolloutBatch
    prompts: list[Prompt]
    texts: list[str]
    finished: list[bool]
    full_kl: Tensor
    """[B] exact sequence KL of each response, in nats."""
    metrics: dict[str, float]


class PolicyTrainer:
    """The fixed parts of one run: models that are not trained, prompts, scorer, algorithm."""

    def __init__(self, config: PolicyConfig, run: RunDir, start: Path, reference_path: Path) -> None:
        self.config, self.run = config, run
        settings: Any = config
        self.algorithm: Algorithm = settings.settings
        device = default_device()
        self.policy, self.chat = load_policy(start, device=device)
        self.reference, reference_chat = load_policy(reference_path, field="reference", device=device)
        if not self.chat.same_tokens(reference_chat):
            raise InputError("model and reference have different tokenizers", field="reference", path=reference_path)
        self.same_start = start == reference_path
        self.scorer: Scorer = load_scorer(config.reward, device=device, token_budget=config.token_budget)
        if config.value is not None and not self.algorithm.needs_values:
            raise InputError(f"{config.algorithm} has no value model", field="value", remedy="leave it out")
        self.value = self._value_model(start, device) if self.algorithm.needs_values else None
        self.prompts, self.encoded = self._load_prompts()
        self.checked = False

    def _value_model(self, start: Path, device: torch.device) -> PreTrainedModel:
        config = self.config
        spec = config.value or config.reward
        if not is_user_code(spec):
            directory = resolve_model(spec, "value", output="value")
            model, chat = load_reward_model(directory, field="value", device=device)
            if chat.same_tokens(self.chat):
                return model
            if config.value:
                raise InputError("model and value model have different tokenizers", field="value", path=config.value)
            say("the reward model has another tokenizer: the value model starts from the policy's trunk")
        return new_reward_model(start, seed=config.seed, device=device)[0]

    def _load_prompts(self) -> tuple[list[Prompt], list[list[int]]]:
        config = self.config
        prompts = read_prompts(config.prompts, skip_bad=config.skip_bad).records
        if any(prompt.weight != 1 for prompt in prompts):
            raise InputError("weights have no effect on prompts", field="prompts", remedy="leave them out")
        return within_length(
            prompts,
            lambda prompt: self.chat.encode_prompt(prompt.messages),
            len,
            lambda prompt: prompt.place or prompt.prompt_id,
            limit=length_limit(
                config.max_prompt_length, "max_prompt_length", self.policy, reserved=config.max_new_tokens
            ),
            skip_bad=config.skip_bad,
            what="prompts",
        )

    def state(self) -> TrainState:
        """Fresh training state: policy (and value model) with optimisers."""
        models = {"policy": self.policy}
        optimizers = {"policy": make_optimizer(self.policy, self.config.optimizer)}
        if self.value is not None:
            models["value"] = self.value
            optimizers["value"] = make_optimizer(self.value, self.config.value_optimizer)
        return TrainState(models, self.chat, optimizers, kl_coef=self.config.kl_coef)

    def step(self, state: TrainState) -> Mapping[str, float] | str:
        """One round, or "kl_budget" if the policy has left the budget."""
        config = self.config
        started = time.perf_counter()
        rollouts = self.collect(state)
        self.check_first(rollouts, state)
        if self.leaves_budget(state, rollouts):
            return "kl_budget"
        if state.step == 0:
            save_checkpoint(state, self.run.path / "checkpoints")
        collected = time.perf_counter()
        advantages = self.algorithm.advantages(rollouts.batch)
        metrics = rollouts.metrics | self.update(state, rollouts.batch, advantages)
        self.record(state, rollouts)
        if config.kl_target is not None:
            num_episodes = len(rollouts.texts)
            state.kl_coef = adapt_kl_coef(
                state.kl_coef,
                kl=metrics["kl/sequence"],
                target=config.kl_target,
                num_episodes=num_episodes,
                horizon=config.kl_horizon * num_episodes,
            )
        metrics["time/rollout_seconds"] = collected - started
        metrics["time/update_seconds"] = time.perf_counter() - collected
        return metrics

    def collect(self, state: TrainState) -> Round:
        """Sample a response to each prompt of this step, score it, compare it to the reference, shape rewards."""
        config, chat = self.config, self.chat
        index = rows_of_step(
            state.step, num_rows=len(self.prompts), batch_size=config.prompts_per_step, seed=config.seed
        )
        index = [row for row in index for _ in range(self.algorithm.group_size)]
        prompts, encoded = [self.prompts[row] for row in index], [self.encoded[row] for row in index]
        sampled = sample(
            self.policy,
            encoded,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            stop_ids=chat.stop_ids,
            pad_id=chat.pad_id,
            seed=config.seed * 1_000_003 + state.step,
        )
        texts = [chat.decode(row.ids) for row in sampled]
        finished = [row.finish_reason == "stop" for row in sampled]
        raw = self.scorer.score(prompts, [Response(text, done) for text, done in zip(texts, finished, strict=True)])
        scores = torch.tensor(raw, device=self.policy.device).clamp(-config.score_clip, config.score_clip)
        if config.truncated_score is not None:
            scores[~torch.tensor(finished, device=scores.device)] = config.truncated_score
        rows = [
            Encoded(prompt + row.ids, [False] * len(prompt) + [True] * len(row.ids))
            for prompt, row in zip(encoded, sampled, strict=True)
        ]
        tokens = collate(rows, pad_id=chat.pad_id, device=self.policy.device)
        return self._assemble(state, prompts, texts, finished, sampled, tokens, scores, raw)

    def _assemble(
        self,
        state: TrainState,
        prompts: list[Prompt],
        texts: list[str],
        finished: list[bool],
        sampled: Sequence[Sampled],
        tokens: TokenBatch,
        scores: Tensor,
        raw: list[float],
    ) -> Round:
        config, mask = self.config, tokens.response_mask
        drawn = torch.zeros(mask.shape, device=mask.device)
        drawn[mask] = torch.tensor([value for row in sampled for value in row.logprobs], device=mask.device)
        old, reference, full, entropies, values = self._passes(tokens)
        estimate = k1(old, reference)
        group = torch.arange(len(texts), device=mask.device) // self.algorithm.group_size
        batch = RolloutBatch(
            input_ids=tokens.input_ids,
            lengths=tokens.lengths,
            response_mask=mask,
            sampler_logprobs=drawn,
            old_logprobs=old,
            ref_logprobs=reference,
            scores=scores,
            rewards=shape_rewards(scores, estimate, mask, kl_coef=state.kl_coef),
            group=group,
            values=values,
        )
        raw_scores = torch.tensor(raw)
        metrics = {
            "score/mean": float(raw_scores.mean()),
            "score/std": float(raw_scores.std(correction=0)),
            "score/clipped_fraction": float((raw_scores.abs() > config.score_clip).float().mean()),
            "reward/mean": float(batch.rewards.sum(1).mean()),
            "kl/sequence": float(estimate.sum(1).mean()),
            "kl/token": float(masked_mean(estimate, mask)),
            "kl/full": float(full.sum(1).mean()),
            "kl/coef": state.kl_coef,
            "policy/entropy": float(masked_mean(entropies, mask)),
            "policy/sampler_gap": float(masked_mean((drawn - old).abs(), mask)),
            "response/length": float(mask.sum(1).float().mean()),
            "response/truncated_fraction": 1 - sum(finished) / len(finished),
            "tokens/generated": float(mask.sum()),
        }
        return Round(batch, prompts, texts, finished, full.sum(1), metrics)

    @torch.no_grad()
    def _passes(self, tokens: TokenBatch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Policy and reference logprobs, exact KL, entropy and values, each [B, T], in micro-batches."""
        columns = [torch.zeros(tokens.response_mask.shape, device=tokens.input_ids.device) for _ in range(5)]
        for members in micro_batches(tokens.lengths.tolist(), token_budget=self.config.token_budget):
            index = torch.tensor(members, device=tokens.input_ids.device)
            part = tokens.rows(index)
            found = list(compare_to_reference(self.policy, self.reference, part, temperature=self.config.temperature))
            if self.value is not None:
                found.append(token_values(self.value, part))
            for column, values in zip(columns, found, strict=False):
                column[index, : values.shape[1]] = values
        old, reference, full, entropies, values = columns
        return old, reference, full, entropies, values if self.value is not None else None

    def check_first(self, rollouts: Round, state: TrainState) -> None:
        """Stop a run whose sampler and trainer disagree, or whose KL does not start at 0."""
        if self.checked:
            return
        self.checked = True
        gap = rollouts.metrics["policy/sampler_gap"]
        if gap > SAMPLER_GAP_LIMIT:
            raise InputError(
                f"start-up check: sampler and trainer logprobs differ by {gap:.2g} per token "
                f"(limit {SAMPLER_GAP_LIMIT:.0e})",
                field="model",
                remedy="likely a model whose cached forward differs from its full one, or dropout left on",
            )
        kl = float(
            masked_mean((rollouts.batch.old_logprobs - rollouts.batch.ref_logprobs).abs(), rollouts.batch.response_mask)
        )
        if self.same_start and state.step == 0 and kl > START_KL_LIMIT:
            raise InputError(
                f"start-up check: the KL to the reference starts at {kl:.2g} per token, not 0",
                field="reference",
                remedy="likely dropout left on, or weights that were not loaded",
            )

    def leaves_budget(self, state: TrainState, rollouts: Round) -> bool:
        """Test the running mean against the budget, if there is one; a checkpoint at each eighth of it.

        Raises InputError if the policy is outside before its first update.
        """
        budget, full_kl = self.config.kl_budget, rollouts.full_kl.tolist()
        if budget is None:
            return False
        recent_kl = (state.recent_kl + full_kl)[-max(BUDGET_WINDOW, len(full_kl)) :]
        measured = max(sum(recent_kl) / len(recent_kl), sum(full_kl) / len(full_kl))
        if measured > budget and state.step == 0:
            raise InputError(
                f"the policy starts {measured:.3g} nats per response from the reference, outside the budget",
                field="kl_budget",
                remedy="raise it, or give a reference that is nearer",
            )
        if measured > budget:
            say(
                f"KL {measured:.2f} is past the budget of {budget:g} nats: stopping at the last checkpoint inside it "
                "(a new run with a larger --kl-budget, or none, goes further)"
            )
            return True
        # A run resumed from this checkpoint measures this round again, so it must not hold the measurement yet.
        if int(8 * measured / budget) > state.budget_eighth:
            state.budget_eighth = int(8 * measured / budget)
            save_checkpoint(state, self.run.path / "checkpoints")
        state.recent_kl = recent_kl
        return False

    def update(self, state: TrainState, batch: RolloutBatch, advantages: Advantages) -> dict[str, float]:
        """Epochs of optimiser steps on one round. Losses divide by the whole optimiser step's denominator."""
        algorithm, size = self.algorithm, len(batch.scores)
        num_groups = size // algorithm.group_size
        num_minibatches = min(algorithm.num_minibatches, num_groups)
        total: dict[str, Tensor] = {}
        norms: dict[str, float] = {}
        for epoch in range(algorithm.num_epochs):
            shuffle = torch.Generator().manual_seed((self.config.seed * 1_000_003 + state.step) * 101 + epoch)
            for groups in torch.randperm(num_groups, generator=shuffle).tensor_split(num_minibatches):
                offsets = torch.arange(algorithm.group_size)
                index = (groups[:, None] * algorithm.group_size + offsets).flatten().to(batch.scores.device)
                part, part_advantages = select(batch, index), select(advantages, index)
                metrics = self._minibatch(part, part_advantages)
                for name, optimizer in state.optimizers.items():
                    field = "optimizer" if name == "policy" else "value_optimizer"
                    settings: OptimizerConfig = getattr(self.config, field)
                    norm, rate = optimizer_step(
                        optimizer, settings, step=state.step, num_steps=self.config.num_steps, field=field
                    )
                    norms[f"{name}/grad_norm"], norms[f"{name}/lr"] = norm, rate
                add_metrics(total, metrics)
        num_updates = algorithm.num_epochs * num_minibatches
        found = {name: float(value) / (1 if name.endswith("_max") else num_updates) for name, value in total.items()}
        found["value/explained_variance"] = 0.0
        if advantages.returns is not None and batch.values is not None:
            explained = explained_variance(batch.values, advantages.returns, batch.response_mask)
            found["value/explained_variance"] = float(explained)
        return found | norms

    def _minibatch(self, batch: RolloutBatch, advantages: Advantages) -> dict[str, Tensor]:
        """Backward over one optimiser step's rows, in micro-batches."""
        algorithm = self.algorithm
        mask = batch.response_mask
        denominator = loss_denominator(
            mask, reduction=algorithm.reduction, max_length=1 if algorithm.reduction == "constant" else None
        )
        token_denominator = loss_denominator(mask, reduction="token")
        total: dict[str, Tensor] = {}
        for members in micro_batches(batch.lengths.tolist(), token_budget=self.config.token_budget):
            index = torch.tensor(members, device=mask.device)
            part, part_advantages = select(batch, index), select(advantages, index)
            tokens = TokenBatch(part.input_ids, part.lengths, part.response_mask)
            logprobs = response_logprobs(self.policy, tokens, temperature=self.config.temperature)
            output = algorithm.policy_loss(logprobs, part, part_advantages.advantages, denominator=denominator)
            output.loss.backward()
            largest = zero_outside((logprobs.detach() - part.old_logprobs).exp(), part.response_mask).amax()
            clipped = torch.zeros_like(largest)
            add_metrics(total, {"policy/ratio_max": largest, "policy/clip_fraction": clipped, **output.metrics})
            if self.value is not None:
                assert part_advantages.returns is not None
                values = token_values(self.value, tokens)
                output = algorithm.value_loss(values, part, part_advantages.returns, denominator=token_denominator)
                output.loss.backward()
                add_metrics(total, output.metrics)
        return total

    def record(self, state: TrainState, rollouts: Round) -> None:
        """Append the first responses of the round to rollouts/rollouts.jsonl."""
        directory = self.run.path / "rollouts"
        directory.mkdir(exist_ok=True)
        kl = (rollouts.batch.old_logprobs - rollouts.batch.ref_logprobs).sum(1).tolist()
        scores = rollouts.batch.scores.tolist()
        with (directory / "rollouts.jsonl").open("a", encoding="utf-8") as file:
            for row in range(min(self.config.save_rollouts, len(rollouts.texts))):
                prompt = rollouts.prompts[row]
                record = Rollout(
                    rollout_id=f"{state.step:06d}-{row:04d}",
                    prompt_id=prompt.prompt_id,
                    prompt=prompt.messages[-1].content,
                    group=int(rollouts.batch.group[row]),
                    response=rollouts.texts[row],
                    score=scores[row],
                    score_spread=None,
                    kl=kl[row],
                    finish_reason="stop" if rollouts.finished[row] else "length",
                    policy_version=f"step-{state.step:06d}",
                    reward_version=self.scorer.version,
                    step=state.step + 1,
                )
                file.write(json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n")


def select(record: Any, index: Tensor) -> Any:
    """The rows `index` of a record of tensors."""
    columns = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return type(record)(**{name: None if value is None else value[index] for name, value in columns.items()})


def _model_or_file(spec: str, field: str) -> Path:
    """What is hashed as an input: the user's Python file, or the model's directory."""
    return file_of(spec) if is_user_code(spec) else resolve_model(spec, field)


def train(config: PolicyConfig) -> RunResult:
    """Run (or resume) on-policy optimisation. Raises InputError for what is wrong with the input."""
    start = resolve_model(config.model, "model")
    reference = resolve_model(config.reference, "reference") if config.reference else start
    inputs = {"model": start, "reference": reference, "reward": _model_or_file(config.reward, "reward")}
    if config.value is not None:
        inputs["value"] = resolve_model(config.value, "value", output="value")
    if is_user_code(config.algorithm):
        inputs["algorithm"] = _model_or_file(config.algorithm, "algorithm")
    with RunDir("train policy", config, inputs | input_files("prompts", config.prompts)) as run:
        if (finished := run.finished) is not None:
            return finished
        trainer = PolicyTrainer(config, run, start, reference)
        state = trainer.state()
        stopped = fit(run, config, state, trainer.step, num_steps=config.num_steps)
        # The last update's policy is what comes out of the run, so it is measured too.
        if stopped == "done" and config.kl_budget is not None and trainer.leaves_budget(state, trainer.collect(state)):
            stopped = "kl_budget"
        chosen = result_checkpoint(run, before=state.step if stopped == "kl_budget" else None)
        outputs = {"model": str(chosen / "policy")} | ({"value": str(chosen / "value")} if trainer.value else {})
        return run.finish(
            stopped=stopped,
            metrics=last_metrics(run),
            outputs=outputs,
            next_command=f"prefloop report {run.quoted}",
        )
