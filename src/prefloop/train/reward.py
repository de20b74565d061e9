"""A reward model from preference pairs: Bradley-Terry on a scalar head at the last token (Stiennon et al. 2020, eq. 1).

Pairs of one prompt may fall into different steps. After training, mean and standard deviation of the scores of the
training pairs' responses are kept in the model's config, for those who want normalised scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, stdev

import torch
from torch import Tensor

from prefloop.functional.losses import bradley_terry_loss
from prefloop.models.forward import sequence_scores
from prefloop.models.load import new_reward_model
from prefloop.models.lora import add_adapters
from prefloop.rundir import RunDir, resolve_model
from prefloop.statistics.calibration import log_loss
from prefloop.statistics.pairwise import accuracy_with_ties
from prefloop.train.checkpoint import restore
from prefloop.train.checks import NUM_ROWS, check_scored_rows
from prefloop.train.config import RewardConfig
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
from prefloop.train.offline import data_audits, input_files, pair_files, shell_words
from prefloop.train.pairs import encode_pairs, load_pairs, pair_scores, paired_batches
from prefloop.train.result import save_result
from prefloop.types import RunResult

NORMALISED_ON = 512
"""Pairs whose scores give reward_mean and reward_std."""


def train(config: RewardConfig) -> RunResult:
    """Run (or resume) reward-model training. Raises InputError for what is wrong with the input."""
    start = resolve_model(config.model, "model")
    files = input_files("data", config.data) | input_files("eval_data", config.eval_data)
    audits = data_audits(config.data, config.accept_findings)
    with RunDir("train reward", config, {"model": start, **files}, audits) as run:
        if (finished := run.finished) is not None:
            return finished
        pairs, held_out = load_pairs(config)
        model, chat = new_reward_model(start, seed=config.seed)
        if config.lora is not None:
            add_adapters(model, config.lora, base=start, seed=config.seed)
        pairs, rows = encode_pairs(config, model, chat, pairs)
        # A share of the prompts may hold long rows only; files named for evaluation must not.
        eval_rows = encode_pairs(config, model, chat, held_out, may_be_none=not config.eval_data)[1]
        check_scored_rows(model, chat, [side for row in rows[:NUM_ROWS] for side in row])
        weights = torch.tensor([pair.weight for pair in pairs], device=model.device)
        state = TrainState({"reward": model}, chat, {"reward": make_optimizer(model, config.optimizer)})
        num_steps = math.ceil(len(rows) / config.batch_size) * config.num_epochs

        def step(state: TrainState) -> Mapping[str, float]:
            index = rows_of_step(state.step, num_rows=len(rows), batch_size=config.batch_size, seed=config.seed)
            total: dict[str, Tensor] = {}
            denominator = weights[index].sum()
            for chosen, rejected, members in paired_batches(rows, index, chat, model, config.token_budget):
                output = bradley_terry_loss(
                    sequence_scores(model, chosen),
                    sequence_scores(model, rejected),
                    weights=weights[members],
                    centering_coef=config.centering_coef,
                    denominator=denominator,
                )
                output.loss.backward()
                add_metrics(total, output.metrics)
            norm, rate = optimizer_step(
                state.optimizers["reward"], config.optimizer, step=state.step, num_steps=num_steps
            )
            return {**{name: float(value) for name, value in total.items()}, "optim/grad_norm": norm, "optim/lr": rate}

        def evaluate(_: TrainState) -> Mapping[str, float]:
            chosen, rejected = pair_scores(model, chat, eval_rows, token_budget=config.token_budget)
            margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
            return {"loss": log_loss(margins), "accuracy": accuracy_with_ties(margins)}

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
        restore(state, run.path / result_checkpoint(run, state.best_step if eval_rows else None))
        chosen, rejected = pair_scores(model, chat, rows[:NORMALISED_ON], token_budget=config.token_budget)
        scores = chosen + rejected
        model.config.reward_mean, model.config.reward_std = fmean(scores), max(stdev(scores), 1e-6)
        held_out_file = next(iter(pair_files(config.eval_data)), "held-out.jsonl")
        return run.finish(
            stopped=stopped,
            metrics=last_metrics(run),
            outputs=save_result(state, run.path),
            next_command=shell_words(
                *("prefloop", "reward", "eval", str(run.path), held_out_file), skip_bad=config.skip_bad
            ),
        )
