"""The on-policy loop: sample, score, reward, advantage, update, record. Blind to the algorithm.

Differences from Ziegler et al. 2019: the exact KL over the vocabulary (kl/full) is logged beside the estimate, a hard
budget on it can end the run, and a run's first round is checked (`checks.py`). The round itself: `rollouts.py`.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prefloop.audits import audit_lookup
from prefloop.console import say
from prefloop.data.read import read_prompts
from prefloop.functional.advantages import importance_weights
from prefloop.functional.batch import Advantages, RolloutBatch
from prefloop.functional.kl import adapt_kl_coef
from prefloop.models.load import default_device, load_policy, load_reward_model, new_reward_model
from prefloop.models.lora import add_adapters, merged
from prefloop.models.precision import computing_in, store_in
from prefloop.reward.scorer import Response, Scorer
from prefloop.reward.scoring import (
    first_reward_model,
    load_scorer,
    reward_audit_commands,
    reward_inputs,
    reward_models,
)
from prefloop.reward.shaping import rows_in_loss
from prefloop.reward.user_code import file_of, is_user_code
from prefloop.rollout.respond import respond
from prefloop.rundir import RunDir, resolve_model
from prefloop.train.algorithms import Algorithm
from prefloop.train.budget import leaves_budget, reaches_an_eighth, remember
from prefloop.train.checkpoint import checkpoints, step_of
from prefloop.train.checks import check_first_round
from prefloop.train.config import PolicyConfig
from prefloop.train.examiner import Examined, Examiner, known_files
from prefloop.train.loop import (
    TrainState,
    fit,
    last_metrics,
    make_optimizer,
    result_checkpoint,
    write_checkpoint,
)
from prefloop.train.offline import input_files, length_limit, within_length
from prefloop.train.ptx import Mixture, read_mixture
from prefloop.train.result import result_of
from prefloop.train.rollouts import Collector, Observe, Players, Round
from prefloop.train.update import Updater
from prefloop.types import InputError, Prompt, RunResult


class PolicyTrainer:
    """The fixed parts of one run: models, prompts, scorer, algorithm; and the step."""

    def __init__(
        self, config: PolicyConfig, run: RunDir, start: Path, reference_path: Path, observe: Observe | None = None
    ) -> None:
        self.config, self.run, self.observe = config, run, observe
        self.rewind: int | None = None
        """The step before which an observer wants the result to be."""
        settings: Any = config
        self.algorithm: Algorithm = settings.settings
        device = default_device()
        self.same_start = start == reference_path
        policy, chat = load_policy(start, device=device)
        if config.lora is not None:
            add_adapters(policy, config.lora, base=start, seed=config.seed)
        reference = policy
        if config.lora is None or not self.same_start:
            reference, reference_chat = load_policy(reference_path, field="reference", device=device)
            if not chat.same_tokens(reference_chat):
                problem = "model and reference have different tokenizers"
                raise InputError(problem, field="reference", path=reference_path)
        scorer = load_scorer(config.reward, device=device, token_budget=config.token_budget, settings=config.scoring)
        for frozen in [*([] if reference is policy else [reference]), *(each.model for each in reward_models(scorer))]:
            store_in(config.precision, frozen)
        self.players = Players(policy, reference, None, scorer, chat)
        if config.value is not None and (not self.algorithm.needs_values or self.algorithm.value_on_trunk()):
            raise InputError(f"{config.algorithm} has no value model", field="value", remedy="leave it out")
        if self.algorithm.num_minibatches > config.prompts_per_step:
            raise InputError(
                f"{self.algorithm.num_minibatches} minibatches of {config.prompts_per_step} prompts",
                field="settings.num_minibatches",
                remedy="give at most prompts_per_step: the responses to a prompt stay together",
            )
        if self.algorithm.needs_values:
            self.players.value = self._value_model(start, device)
        with computing_in(config.precision, device):
            self.collector = Collector(config, self.algorithm, self.players, *self._load_prompts(config.prompts))
        mixture = self._mixture() if config.ptx_data else None
        self.updater = Updater(config, self.algorithm, self.players, mixture)
        self.eval_scorer: Scorer | None = None
        if config.eval_reward:
            self.eval_scorer = load_scorer(
                config.eval_reward,
                device=device,
                token_budget=config.token_budget,
                settings=config.scoring,
                refuse_idle=False,
            )
            self.eval_prompts = self._load_prompts(config.eval_prompts, "eval_prompts")[0]
        self.examiner = Examiner(config, scorer, self.eval_scorer)
        self.checked = self.off_policy = False

    def _value_model(self, start: Path, device: torch.device) -> PreTrainedModel | nn.Linear:
        config = self.config
        if self.algorithm.value_on_trunk():
            head = nn.Linear(self.players.policy.config.hidden_size, 1, bias=False, device=device)
            nn.init.zeros_(head.weight)
            return head
        directory = (
            resolve_model(config.value, "value", output="value") if config.value else first_reward_model(config.reward)
        )
        if directory is not None:
            model, chat = load_reward_model(directory, field="value", device=device)
            if chat.same_tokens(self.players.chat):
                return self._adapted(model, directory)
            if config.value:
                raise InputError("model and value model have different tokenizers", field="value", path=config.value)
            say("the reward model has another tokenizer: the value model starts from the policy's trunk")
        return self._adapted(new_reward_model(start, seed=config.seed, device=device)[0], start)

    def _adapted(self, value: PreTrainedModel, base: Path) -> PreTrainedModel:
        """A value model, with adapters where the policy has some."""
        if self.config.lora is not None:
            add_adapters(value, self.config.lora, base=base, seed=self.config.seed)
        return value

    def _load_prompts(self, sources: tuple[str, ...], field: str = "prompts") -> tuple[list[Prompt], list[list[int]]]:
        config = self.config
        prompts = read_prompts(sources, skip_bad=config.skip_bad).records
        if any(prompt.weight != 1 for prompt in prompts):
            raise InputError("weights have no effect on prompts", field=field, remedy="leave them out")
        return within_length(
            prompts,
            lambda prompt: self.players.chat.encode_prompt(prompt.messages),
            len,
            lambda prompt: prompt.place or prompt.prompt_id,
            limit=length_limit(
                config.max_prompt_length, "max_prompt_length", self.players.policy, reserved=config.max_new_tokens
            ),
            skip_bad=config.skip_bad,
            what="prompts",
        )

    def _mixture(self) -> Mixture:
        config, chat = self.config, self.players.chat
        limit = length_limit(config.max_prompt_length + config.max_new_tokens, "ptx_data", self.players.policy)
        rows = read_mixture(config.ptx_data, chat, max_length=limit.num_tokens, skip_bad=config.skip_bad)
        return Mixture(
            rows, chat, batch_size=config.ptx_batch_size, coef=config.ptx_coef, token_budget=config.token_budget
        )

    def state(self) -> TrainState:
        """Fresh training state: policy (and value model) with optimisers, and the copies that move with them."""
        config, players = self.config, self.players
        state = TrainState({"policy": players.policy}, players.chat, {}, kl_coef=config.kl_coef)
        if isinstance(players.value, nn.Linear):
            state.tensors["value_head"] = {"weight": players.value.weight.data}
        elif players.value is not None:
            state.models["value"] = players.value
            state.optimizers["value"] = make_optimizer(players.value, config.value_optimizer)
        trained = [players.policy, players.value] if isinstance(players.value, nn.Linear) else [players.policy]
        state.optimizers["policy"] = make_optimizer(nn.ModuleList(trained), config.optimizer)
        if config.ema_decay is not None:
            state.models["ema"] = copy.deepcopy(players.policy)
        if config.reference_refresh_every is not None:
            state.models["reference"] = players.reference
        return state

    def step(self, state: TrainState) -> Mapping[str, float] | str:
        """One round; "kl_budget" if the policy has left the budget, "monitor" if the observer ends the run."""
        config = self.config
        started = time.perf_counter()
        rollouts = self.collector.collect(state)
        if not self.checked:
            same_start = self.same_start and state.step == 0
            self.off_policy = check_first_round(self.players, rollouts, config, same_start=same_start)
            self.checked = True
            if self.off_policy and self.collector.keeps_hidden:
                # What the trainer computes is not what the sampler did: it has to run the round itself.
                self.collector.keeps_hidden = False
                rollouts = self.collector.collect(state)
        collected = time.perf_counter()
        # Before anything of the state changes: a held-out scorer may be a server that stays away.
        examined = self._examine(rollouts)
        examined_at = time.perf_counter()
        full_kl = rollouts.full_kl.tolist()
        if config.kl_budget is not None:
            if leaves_budget(state, full_kl, config.kl_budget):
                return "kl_budget"
            # A run resumed from this checkpoint measures this round again, so it must not hold the measurement yet.
            if reaches_an_eighth(state, full_kl, config.kl_budget):
                write_checkpoint(self.run, state)
            remember(state, full_kl)
            rollouts.metrics["kl/budget_left"] = config.kl_budget - sum(state.recent_kl) / len(state.recent_kl)
        if state.step == 0:
            # Every curve starts at the policy that the run started from.
            write_checkpoint(self.run, state)
        metrics = rollouts.metrics | examined.metrics
        log = self.run.path / "rollouts" / "rollouts.jsonl"
        self.collector.record(state, rollouts, examined, log)
        if self.observe is not None:
            seen = self.observe(log, state.step + 1)
            metrics |= seen.metrics
            if seen.rewind is not None:
                self.rewind = seen.rewind
                return "monitor"
        observed_at = time.perf_counter()
        advantages = self.algorithm.advantages(rollouts.batch)
        if self.off_policy:
            advantages = _weighted(advantages, rollouts.batch)
        # Baselines take in what the loss leaves out.
        in_loss = rows_in_loss(torch.tensor(rollouts.finished), config=config.shaping).to(advantages.advantages.device)
        batch = dataclasses.replace(rollouts.batch, response_mask=rollouts.batch.response_mask & in_loss.unsqueeze(1))
        metrics |= self.updater.update(state, batch, advantages)
        if config.kl_target is not None:
            num_episodes = len(rollouts.texts)
            state.kl_coef = adapt_kl_coef(
                state.kl_coef,
                kl=metrics["kl/sequence"],
                target=config.kl_target,
                num_episodes=num_episodes,
                horizon=config.kl_horizon * num_episodes,
            )
        self._move_copies(state)
        metrics["time/rollout_seconds"] = collected - started
        metrics["time/examine_seconds"] = examined_at - collected
        metrics["time/update_seconds"] = time.perf_counter() - observed_at
        return metrics

    def _examine(self, rollouts: Round) -> Examined:
        """What is measured of the first responses of a round, which are stored."""
        few = slice(self.config.save_rollouts)
        texts = zip(rollouts.texts[few], rollouts.finished[few], strict=True)
        return self.examiner.examine(rollouts.prompts[few], [Response(*each) for each in texts])

    @torch.no_grad()
    def _move_copies(self, state: TrainState) -> None:
        """After an update: the moving average follows the policy, and a refreshed reference becomes it."""
        config, weights = self.config, list(self.players.policy.parameters())
        if config.ema_decay is not None:
            for average, weight in zip(state.models["ema"].parameters(), weights, strict=True):
                average.lerp_(weight, 1 - config.ema_decay)
        if config.reference_refresh_every is not None and (state.step + 1) % config.reference_refresh_every == 0:
            for kept, weight in zip(self.players.reference.parameters(), weights, strict=True):
                kept.copy_(weight)

    @torch.no_grad()
    def evaluate(self, state: TrainState) -> Mapping[str, float]:
        """Mean held-out score of fresh responses to the evaluation prompts."""
        players, config = self.players, self.config
        with merged(players.policy):
            responses = respond(
                players.policy,
                players.chat,
                self.eval_prompts,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                seed=config.seed,
            )
        answers = [Response(each.text, each.finish_reason == "stop") for each in responses]
        assert self.eval_scorer is not None
        return {"score": fmean(self.eval_scorer.score(self.eval_prompts, answers))}


def _weighted(advantages: Advantages, batch: RolloutBatch) -> Advantages:
    """Advantages with importance weights for what the sampler's probabilities are off the trainer's."""
    weights = importance_weights(batch.old_logprobs, batch.sampler_logprobs, batch.response_mask)
    return dataclasses.replace(advantages, advantages=weights * advantages.advantages)


def _inputs(config: PolicyConfig, start: Path, reference: Path) -> dict[str, Path]:
    """Everything that a run reads, by the names that it is recorded under."""
    inputs = {"model": start, "reference": reference, **reward_inputs(config.reward)}
    if config.value is not None:
        inputs["value"] = resolve_model(config.value, "value", output="value")
    if config.eval_reward:
        inputs |= reward_inputs(config.eval_reward, "eval_reward")
    if is_user_code(config.algorithm):
        inputs["algorithm"] = file_of(config.algorithm)
    for field in ("prompts", "eval_prompts", "ptx_data"):
        inputs |= input_files(field, getattr(config, field))
    known = config.examine.known_data or [str(path) for path in known_files(config)]
    inputs |= input_files("known_data", known)
    return inputs


def train(config: PolicyConfig, *, look_up_audits: bool = True, observe: Observe | None = None) -> RunResult:
    """Run (or resume) on-policy optimisation, obeying the audit of the reward model (`look_up_audits`).

    `observe` is told after each round where its responses were written; a run that goes on reads them again from there.

    Raises InputError for what is wrong with the input, Refusal where an audit forbids the run.
    """
    start = resolve_model(config.model, "model")
    reference = resolve_model(config.reference, "reference") if config.reference else start
    lookup = audit_lookup(reward_audit_commands(config.reward), accepted=config.accept_findings)
    with RunDir("train policy", config, _inputs(config, start, reference), lookup if look_up_audits else None) as run:
        if (finished := run.finished) is not None:
            return finished
        trainer = PolicyTrainer(config, run, start, reference, observe)
        state = trainer.state()
        stopped = fit(
            run,
            config,
            state,
            trainer.step,
            num_steps=config.num_steps,
            evaluate=trainer.evaluate if config.eval_reward else None,
            eval_every=config.eval_every,
            patience=config.patience,
            best_metric="score",
            higher_is_better=True,
        )
        # The last update's policy is what comes out of the run, so it is measured too.
        if stopped not in ("kl_budget", "monitor") and config.kl_budget is not None:
            with computing_in(config.precision, trainer.players.policy.device):
                full_kl = trainer.collector.collect(state).full_kl.tolist()
            stopped = "kl_budget" if leaves_budget(state, full_kl, config.kl_budget) else stopped
        chosen = _result(run, state, trainer.rewind if stopped == "monitor" else state.step, stopped)
        return run.finish(
            stopped=stopped,
            metrics=last_metrics(run),
            outputs=result_of(state, run.path, chosen),
            next_command=f"prefloop report {run.quoted}",
        )


def _result(run: RunDir, state: TrainState, last: int | None, stopped: str) -> Path:
    """The checkpoint that is the result: the best by held-out evaluation, else the newest; before the step `last` where
    the budget or the monitor ended the run."""
    before = last if stopped in ("kl_budget", "monitor") else None
    if state.best_value is not None and (before is None or state.best_step < before):
        return result_checkpoint(run, state.best_step)
    kept = [step_of(directory) for directory in checkpoints(run.path / "checkpoints")]
    if before is not None and min(kept) >= before:
        say(f"warning: no checkpoint before step {before} was kept; the oldest one is the result (keep_checkpoints)")
        return result_checkpoint(run, min(kept))
    return result_checkpoint(run, before=before)
