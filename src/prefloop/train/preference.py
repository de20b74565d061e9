"""Preference optimisation without rollouts: DPO, IPO and robust DPO on pairs, KTO on labelled responses.

The losses and their settings stand in `preference_losses`. Log-probabilities of the reference are computed once, before
the first step, with the same forward as the policy's. Differences from the papers: a response to another prompt, for
KTO's reference point, is drawn once for each row, not in every batch anew; the point itself is that of a whole step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.functional.preference import kto_reference_point, log_ratio
from prefloop.models.chat import Chat, load_chat
from prefloop.models.forward import response_logprobs
from prefloop.models.load import load_policy
from prefloop.models.lora import add_adapters
from prefloop.models.precision import computing_in
from prefloop.rundir import RunDir, resolve_model
from prefloop.train.checks import NUM_ROWS, check_reference_sums, check_rows
from prefloop.train.config import PreferenceConfig
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
from prefloop.train.offline import data_audits, input_files
from prefloop.train.pairs import EncodedPair, encode_pairs, load_pairs, paired_batches
from prefloop.train.preference_losses import KTO, PairLoss
from prefloop.train.reference import cached, identity_of
from prefloop.train.result import result_of
from prefloop.train.unpaired import batches_of, check_labels, encode_responses, load_responses
from prefloop.types import InputError, RunResult


@dataclass(frozen=True, eq=False)
class Examples:
    """Encoded examples of one part of the data."""

    rows: list[EncodedPair]
    """Chosen and rejected response; for KTO a response, and the same prompt with a response to another one."""
    weights: list[float]
    desirable: list[bool]
    """For KTO, the labels; else empty."""


@dataclass(frozen=True, eq=False)
class Objective:
    """A loss with all that it is computed from."""

    loss: PairLoss | KTO
    model: PreTrainedModel
    chat: Chat
    token_budget: int

    def total(self, examples: Examples, index: Sequence[int], reference: Tensor) -> dict[str, Tensor]:
        """Metrics of one step on the examples `index`; `reference` [N, 2] is of all of them. Adds to the gradients of
        the model, unless gradients are switched off."""
        if isinstance(self.loss, KTO):
            return self._of_responses(self.loss, examples, index, reference[list(index)])
        return self._of_pairs(self.loss, examples, index, reference)

    def _of_pairs(
        self, loss: PairLoss, examples: Examples, index: Sequence[int], reference: Tensor
    ) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        weights = torch.tensor(examples.weights, device=self.model.device)
        denominator = weights[list(index)].sum()
        for batch, members in paired_batches(examples.rows, index, self.chat, self.model, self.token_budget):
            ratios = log_ratio(
                response_logprobs(self.model, batch).sum(1),
                reference[members].flatten(),
                batch.response_mask.sum(1) if loss.per_token else None,
            )
            output = loss.loss(*ratios.view(-1, 2).unbind(1), weights=weights[members], denominator=denominator)
            if torch.is_grad_enabled():
                output.loss.backward()
            add_metrics(total, output.metrics)
        return total

    def _of_responses(
        self, loss: KTO, examples: Examples, index: Sequence[int], reference: Tensor
    ) -> dict[str, Tensor]:
        weights = torch.tensor([examples.weights[row] for row in index], device=self.model.device)
        desirable = torch.tensor([examples.desirable[row] for row in index], device=self.model.device)
        mismatched = torch.zeros_like(weights)
        with torch.no_grad():
            sides = [examples.rows[row][1] for row in index]
            for batch, members in batches_of(sides, self.chat, self.model, self.token_budget):
                mismatched[members] = log_ratio(response_logprobs(self.model, batch).sum(1), reference[members, 1])
        reference_point = kto_reference_point(mismatched, weights)
        denominators = float(weights[desirable].sum()), float(weights[~desirable].sum())
        total: dict[str, Tensor] = {}
        for batch, members in batches_of(
            [examples.rows[row][0] for row in index], self.chat, self.model, self.token_budget
        ):
            output = loss.loss(
                log_ratio(response_logprobs(self.model, batch).sum(1), reference[members, 0]),
                desirable[members],
                reference_point=reference_point,
                weights=weights[members],
                denominators=denominators,
            )
            if torch.is_grad_enabled():
                output.loss.backward()
            add_metrics(total, output.metrics)
        return total


def train(config: PreferenceConfig) -> RunResult:
    """Run (or resume) preference training. Raises InputError for what is wrong with the input."""
    start = resolve_model(config.model, "model")
    reference_path = resolve_model(config.reference, "reference") if config.reference else start
    files = input_files("data", config.data) | input_files("eval_data", config.eval_data)
    audits = data_audits(config.data, config.accept_findings)
    with RunDir("train preference", config, {"model": start, "reference": reference_path, **files}, audits) as run:
        if (finished := run.finished) is not None:
            return finished
        settings: Any = config
        loss: PairLoss | KTO = settings.settings
        model, chat = load_policy(start)
        if config.lora is not None:
            add_adapters(model, config.lora, base=start, seed=config.seed)
        _check_tokens(chat, reference_path)
        if isinstance(loss, KTO):
            examples, held_out = _load_labelled(config, model, chat)
        else:
            examples, held_out = _load_paired(config, model, chat)
        parts = {"train": examples.rows, "held_out": held_out.rows}

        def compute() -> dict[str, Tensor]:
            # Before the first step the policy holds the starting weights.
            same = reference_path == start
            reference = model if same else load_policy(reference_path, field="reference")[0]
            with computing_in(config.precision, reference.device):
                return _reference_sums(config, reference, chat, parts)

        # First: weights that are no numbers are told by their name here, as a check's excess there.
        identity = identity_of(run, chat, parts, precision=config.precision)
        sums = cached(run.path, identity, compute, device=model.device)
        first = [row[0] for row in examples.rows[:NUM_ROWS]]
        check_rows(model, chat, first)
        if reference_path == start:
            # Before the first step, and before a resumed run takes its weights over.
            with computing_in(config.precision, model.device):
                check_reference_sums(model, chat, first, sums["train"][:, 0])
        objective = Objective(loss, model, chat, config.token_budget)
        state = TrainState({"policy": model}, chat, {"policy": make_optimizer(model, config.optimizer)})
        num_rows = len(examples.rows)
        num_steps = math.ceil(num_rows / config.batch_size) * config.num_epochs

        def step(state: TrainState) -> Mapping[str, float]:
            index = rows_of_step(state.step, num_rows=num_rows, batch_size=config.batch_size, seed=config.seed)
            total = objective.total(examples, index, sums["train"])
            norm, rate = optimizer_step(
                state.optimizers["policy"], config.optimizer, step=state.step, num_steps=num_steps
            )
            return {**{name: float(value) for name, value in total.items()}, "optim/grad_norm": norm, "optim/lr": rate}

        @torch.no_grad()
        def evaluate(_: TrainState) -> Mapping[str, float]:
            total = objective.total(held_out, range(len(held_out.rows)), sums["held_out"])
            return {name.removeprefix("preference/"): float(value) for name, value in total.items()}

        stopped = fit(
            run,
            config,
            state,
            step,
            num_steps=num_steps,
            evaluate=evaluate if held_out.rows else None,
            eval_every=config.eval_every,
            patience=config.patience,
        )
        chosen = result_checkpoint(run, state.best_step if held_out.rows else None)
        return run.finish(
            stopped=stopped,
            metrics=last_metrics(run),
            outputs=result_of(state, run.path, chosen),
            next_command=f"prefloop report {run.quoted}",
        )


def _load_paired(config: PreferenceConfig, model: PreTrainedModel, chat: Chat) -> tuple[Examples, Examples]:
    """Training and held-out pairs."""
    pairs, held_out = load_pairs(config)
    pairs, rows = encode_pairs(config, model, chat, pairs)
    # A share of the prompts may hold long rows only; files named for evaluation must not.
    eval_rows = encode_pairs(config, model, chat, held_out, may_be_none=not config.eval_data)[1]
    return Examples(rows, [pair.weight for pair in pairs], []), Examples(eval_rows, [1.0] * len(eval_rows), [])


def _load_labelled(config: PreferenceConfig, model: PreTrainedModel, chat: Chat) -> tuple[Examples, Examples]:
    """Training and held-out responses with their labels."""
    responses, held_out = load_responses(config)
    responses, rows = encode_responses(config, model, chat, responses)
    check_labels(config, responses)
    held_out, eval_rows = encode_responses(config, model, chat, held_out, may_be_none=not config.eval_data)
    return (
        Examples(rows, [row.weight for row in responses], [row.label for row in responses]),
        Examples(eval_rows, [1.0] * len(eval_rows), [row.label for row in held_out]),
    )


def _check_tokens(chat: Chat, reference_path: Path) -> None:
    if not chat.same_tokens(load_chat(reference_path, "reference")):
        raise InputError("model and reference have different tokenizers", field="reference", path=reference_path)


def _reference_sums(
    config: PreferenceConfig, reference: PreTrainedModel, chat: Chat, parts: Mapping[str, Sequence[EncodedPair]]
) -> dict[str, Tensor]:
    """[N, 2] log p of the reference for both responses of each example, by part of the data."""
    sums = {
        name: pair_logprobs(reference, chat, rows, token_budget=config.token_budget) for name, rows in parts.items()
    }
    if not all(bool(values.isfinite().all()) for values in sums.values()):
        raise InputError(
            "this model gives log-probabilities that are no numbers",
            path=config.reference or config.model,
            field="reference" if config.reference else "model",
            remedy="train it again",
        )
    return sums


@torch.no_grad()
def pair_logprobs(model: PreTrainedModel, chat: Chat, rows: Sequence[EncodedPair], *, token_budget: int) -> Tensor:
    """[N, 2] log p of both responses of each example, summed over their tokens."""
    sums = torch.zeros(len(rows), 2, device=model.device)
    for batch, members in paired_batches(rows, range(len(rows)), chat, model, token_budget):
        sums[members] = response_logprobs(model, batch).sum(1).view(-1, 2)
    return sums
