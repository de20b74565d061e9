"""Preference optimisation without rollouts: DPO (Rafailov et al. 2023, eq. 7).

Reference logprobs are computed once, before the first step, with the same forward as the policy's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.functional.losses import dpo_loss
from prefloop.models.chat import Chat
from prefloop.models.forward import response_logprobs
from prefloop.models.load import load_policy
from prefloop.rundir import RunDir, resolve_model
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
from prefloop.train.offline import input_files
from prefloop.train.pairs import EncodedPair, encode_pairs, load_pairs, paired_batches
from prefloop.types import InputError, RunResult


def train(config: PreferenceConfig) -> RunResult:
    """Run (or resume) DPO. Raises InputError for what is wrong with the input."""
    start = resolve_model(config.model, "model")
    reference_path = resolve_model(config.reference, "reference") if config.reference else start
    files = input_files("data", config.data) | input_files("eval_data", config.eval_data)
    with RunDir("train preference", config, {"model": start, "reference": reference_path, **files}) as run:
        if (finished := run.finished) is not None:
            return finished
        pairs, held_out = load_pairs(config)
        model, chat = load_policy(start)
        reference, reference_chat = load_policy(reference_path, field="reference")
        if not chat.same_tokens(reference_chat):
            raise InputError("model and reference have different tokenizers", field="reference", path=reference_path)
        pairs, rows = encode_pairs(config, model, chat, pairs)
        # A share of the prompts may hold long rows only; files named for evaluation must not.
        eval_rows = encode_pairs(config, model, chat, held_out, may_be_none=not config.eval_data)[1]
        reference_sums = pair_logprobs(reference, chat, rows, token_budget=config.token_budget)
        eval_sums = pair_logprobs(reference, chat, eval_rows, token_budget=config.token_budget)
        del reference
        weights = torch.tensor([pair.weight for pair in pairs], device=model.device)
        state = TrainState({"policy": model}, chat, {"policy": make_optimizer(model, config.optimizer)})
        num_steps = math.ceil(len(rows) / config.batch_size) * config.num_epochs

        def loss_of(
            rows: Sequence[EncodedPair], index: Sequence[int], sums: Tensor, weights: Tensor
        ) -> dict[str, Tensor]:
            total: dict[str, Tensor] = {}
            denominator = weights[list(index)].sum()
            for chosen, rejected, members in paired_batches(rows, index, chat, model, config.token_budget):
                output = dpo_loss(
                    response_logprobs(model, chosen).sum(1),
                    response_logprobs(model, rejected).sum(1),
                    sums[members, 0],
                    sums[members, 1],
                    beta=config.beta,
                    label_smoothing=config.label_smoothing,
                    weights=weights[members],
                    denominator=denominator,
                )
                if torch.is_grad_enabled():
                    output.loss.backward()
                add_metrics(total, output.metrics)
            return total

        def step(state: TrainState) -> Mapping[str, float]:
            index = rows_of_step(state.step, num_rows=len(rows), batch_size=config.batch_size, seed=config.seed)
            total = loss_of(rows, index, reference_sums, weights)
            norm, rate = optimizer_step(
                state.optimizers["policy"], config.optimizer, step=state.step, num_steps=num_steps
            )
            return {**{name: float(value) for name, value in total.items()}, "optim/grad_norm": norm, "optim/lr": rate}

        @torch.no_grad()
        def evaluate(_: TrainState) -> Mapping[str, float]:
            total = loss_of(
                eval_rows, range(len(eval_rows)), eval_sums, torch.ones(len(eval_rows), device=model.device)
            )
            return {name.removeprefix("preference/"): float(value) for name, value in total.items()}

        stopped = fit(
            run,
            config,
            state,
            step,
            num_steps=num_steps,
            evaluate=evaluate if eval_rows else None,
            eval_every=config.eval_every,
            patience=config.patience,
        )
        chosen = result_checkpoint(run, state.best_step if eval_rows else None)
        return run.finish(
            stopped=stopped,
            metrics=last_metrics(run),
            outputs={"model": str(chosen / "policy")},
            next_command=f"prefloop report {run.quoted}",
        )


@torch.no_grad()
def pair_logprobs(model: PreTrainedModel, chat: Chat, rows: Sequence[EncodedPair], *, token_budget: int) -> Tensor:
    """[N, 2] log p of each chosen and each rejected response, summed over its tokens."""
    sums = torch.zeros(len(rows), 2, device=model.device)
    for chosen, rejected, members in paired_batches(rows, range(len(rows)), chat, model, token_budget):
        sums[members, 0] = response_logprobs(model, chosen).sum(1)
        sums[members, 1] = response_logprobs(model, rejected).sum(1)
    return sums
