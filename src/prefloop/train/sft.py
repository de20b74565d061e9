"""Supervised fine-tuning: next-token loss on assistant turns, end-of-turn included, context never.

Without a model to start from, a byte-level BPE tokenizer and a small model are made from the demonstrations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from prefloop.data.read import read_demonstrations
from prefloop.data.split import conversation_key
from prefloop.functional.losses import nll_loss
from prefloop.models.batching import collate, micro_batches
from prefloop.models.chat import Chat, Encoded, train_chat
from prefloop.models.forward import response_logprobs
from prefloop.models.load import load_policy, new_policy
from prefloop.models.lora import add_adapters
from prefloop.rundir import RunDir, resolve_model
from prefloop.train.checks import check_rows
from prefloop.train.config import SFTConfig
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
from prefloop.train.offline import (
    LengthLimit,
    hold_out,
    input_files,
    length_limit,
    pair_files,
    shell_words,
    within_length,
)
from prefloop.train.result import result_of
from prefloop.types import Demonstration, RunResult


def train(config: SFTConfig) -> RunResult:
    """Run (or resume) supervised fine-tuning. Raises InputError for what is wrong with the input."""
    start = resolve_model(config.model, "model") if config.model is not None else None
    inputs = input_files("data", config.data) | input_files("eval_data", config.eval_data)
    with RunDir("train sft", config, inputs | ({"model": start} if start else {})) as run:
        if (finished := run.finished) is not None:
            return finished
        demonstrations = read_demonstrations(config.data, skip_bad=config.skip_bad).records
        if config.eval_data:
            held_out = read_demonstrations(config.eval_data, skip_bad=config.skip_bad).records
        else:
            demonstrations, held_out = hold_out(
                demonstrations, conversation_key, eval_fraction=config.eval_fraction, seed=config.seed
            )
        model, chat = _start(config, start, demonstrations)
        if config.lora is not None and start is not None:
            add_adapters(model, config.lora, base=start, seed=config.seed)
        demonstrations, rows = _encode(config, model, chat, demonstrations)
        # A share of the prompts may hold long rows only; files named for evaluation must not.
        eval_rows = _encode(config, model, chat, held_out, may_be_none=not config.eval_data)[1]
        check_rows(model, chat, rows)
        weights = torch.tensor([row.weight for row in demonstrations], device=model.device)
        state = TrainState({"policy": model}, chat, {"policy": make_optimizer(model, config.optimizer)})
        per_epoch = math.ceil(len(rows) / config.batch_size)
        num_steps = per_epoch * config.num_epochs

        def step(state: TrainState) -> Mapping[str, float]:
            index = rows_of_step(state.step, num_rows=len(rows), batch_size=config.batch_size, seed=config.seed)
            loss, num_tokens = _accumulate(
                model, chat, [rows[row] for row in index], weights[index], config.token_budget
            )
            norm, rate = optimizer_step(
                state.optimizers["policy"], config.optimizer, step=state.step, num_steps=num_steps
            )
            return {"sft/loss": loss, "optim/grad_norm": norm, "optim/lr": rate, "tokens/trained": float(num_tokens)}

        def evaluate(_: TrainState) -> Mapping[str, float]:
            loss = mean_loss(model, chat, eval_rows, token_budget=config.token_budget)
            return {"loss": loss, "perplexity": math.exp(min(loss, 50.0))}

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
        pairs = pair_files(config.data) or ["pairs.jsonl"]
        return run.finish(
            stopped=stopped,
            metrics=last_metrics(run),
            outputs=result_of(state, run.path, chosen),
            next_command=shell_words(
                *("prefloop", "train", "reward", "--model", str(run.path), "--data", *pairs), skip_bad=config.skip_bad
            ),
        )


def _start(
    config: SFTConfig, directory: Path | None, demonstrations: Sequence[Demonstration]
) -> tuple[PreTrainedModel, Chat]:
    if directory is not None:
        return load_policy(directory)
    texts = (message.content for row in demonstrations for message in (*row.prompt, *row.completion))
    chat = train_chat(texts, vocab_size=config.scratch.vocab_size)
    return new_policy(config.scratch, chat, seed=config.seed), chat


def _encode(
    config: SFTConfig,
    model: PreTrainedModel,
    chat: Chat,
    demonstrations: Sequence[Demonstration],
    *,
    may_be_none: bool = False,
) -> tuple[list[Demonstration], list[Encoded]]:
    limit = length_limit(config.max_length, "max_length", model)
    if config.model is None and limit.field == "model":
        limit = LengthLimit(limit.num_tokens, "scratch.max_position", "raise it")
    return within_length(
        demonstrations,
        lambda row: chat.encode((*row.prompt, *row.completion), num_context=len(row.prompt)),
        lambda row: len(row.ids),
        lambda row: row.place or row.demonstration_id,
        limit=limit,
        skip_bad=config.skip_bad,
        what="demonstrations",
        may_be_none=may_be_none,
    )


def _accumulate(
    model: PreTrainedModel, chat: Chat, rows: Sequence[Encoded], weights: torch.Tensor, token_budget: int
) -> tuple[float, int]:
    """Backward over one step's rows in micro-batches. Gives the weighted mean loss over all answer tokens of the step,
    and how many those are."""
    whole = collate(rows, pad_id=chat.pad_id, device=model.device)
    # Only their proportions matter; with the largest at 1, the weighted count of tokens cannot fall below 1.
    weights = weights / weights.max()
    denominator = (weights * whole.response_mask.sum(1)).sum()
    total: dict[str, torch.Tensor] = {}
    for members in micro_batches([len(row.ids) for row in rows], token_budget=token_budget):
        index = torch.tensor(members, device=model.device)
        batch = whole.rows(index)
        weighted = weights[index, None] * response_logprobs(model, batch)
        output = nll_loss(weighted, batch.response_mask, denominator=denominator)
        output.loss.backward()
        add_metrics(total, output.metrics)
    return float(total["sft/loss"]), int(whole.response_mask.sum())


@torch.no_grad()
def mean_loss(model: PreTrainedModel, chat: Chat, rows: Sequence[Encoded], *, token_budget: int) -> float:
    """Mean negative log-likelihood of the answer tokens, in nats per token."""
    total, count = 0.0, 0
    for index in micro_batches([len(row.ids) for row in rows], token_budget=token_budget):
        batch = collate([rows[row] for row in index], pad_id=chat.pad_id, device=model.device)
        total -= float(response_logprobs(model, batch).sum())
        count += int(batch.response_mask.sum())
    return total / count
