"""A reward model from preference pairs: Bradley-Terry on a scalar head at the last token (Stiennon et al. 2020, eq. 1).

Pairs of one prompt may fall into different steps. What is done after the last step (one head of several, normalisation,
calibration, the card) is in `reward_finish.py`, ensembles in `members.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from prefloop.models.load import new_reward_model
from prefloop.models.lora import add_adapters
from prefloop.models.precision import computing_in
from prefloop.rundir import RunDir, resolve_model
from prefloop.statistics.calibration import log_loss
from prefloop.statistics.pairwise import accuracy_with_ties
from prefloop.train.checkpoint import restore
from prefloop.train.checks import NUM_ROWS, check_scored_rows
from prefloop.train.config import RewardConfig
from prefloop.train.loop import TrainState, fit, make_optimizer, optimizer_step, result_checkpoint, rows_of_step
from prefloop.train.members import train_members
from prefloop.train.offline import data_audits, input_files, pair_files, shell_words
from prefloop.train.pairs import encode_pairs, load_pairs, pair_scores
from prefloop.train.reward_data import head_numbers, training_pairs, training_seed
from prefloop.train.reward_finish import finish_model
from prefloop.train.reward_steps import step_gradient
from prefloop.types import RunResult


def train(config: RewardConfig, *, look_up_audits: bool = True) -> RunResult:
    """Run (or resume) reward-model training, obeying the audits of its pairs (`look_up_audits`: files that a recipe has
    made a moment ago have none).

    Raises InputError for what is wrong with the input, Refusal where an audit forbids the run.
    """
    start = resolve_model(config.model, "model")
    files = input_files("data", config.data) | input_files("eval_data", config.eval_data)
    inputs = {"model": start, **files}
    audits = data_audits(config.data, config.accept_findings) if look_up_audits else None
    with RunDir("train reward", config, inputs, audits) as run:
        if (finished := run.finished) is not None:
            return finished
        held_out_file = next(iter(pair_files(config.eval_data)), "held-out.jsonl")
        following = shell_words("prefloop", "reward", "eval", str(run.path), held_out_file, skip_bad=config.skip_bad)
        if config.members is not None:
            return train_members(config, run, inputs, train_model, next_command=following)
        return train_model(config, run, start, next_command=following)


def train_model(config: RewardConfig, run: RunDir, start: Path, *, next_command: str = "") -> RunResult:
    """Train one reward model in an open run directory."""
    pairs, held_out = load_pairs(config, keep_ties=config.soft_ties)
    seed = training_seed(config)
    num_heads = 2 if config.odin is not None else len(config.heads.names) if config.heads is not None else 1
    model, chat = new_reward_model(start, seed=seed, num_heads=num_heads)
    if config.lora is not None:
        add_adapters(model, config.lora, base=start, seed=seed)
    training = training_pairs(config, model, chat, pairs)
    # A share of the prompts may hold long rows only; files named for evaluation must not.
    held_out, eval_rows = encode_pairs(config, model, chat, held_out, may_be_none=not config.eval_data)
    eval_heads = torch.tensor(head_numbers(config.heads, held_out), dtype=torch.int64, device=model.device)
    check_scored_rows(model, chat, [side for row in training.rows[:NUM_ROWS] for side in row])
    state = TrainState({"reward": model}, chat, {"reward": make_optimizer(model, config.optimizer)})
    num_steps = math.ceil(len(training.rows) / config.batch_size) * config.num_epochs

    def step(state: TrainState) -> Mapping[str, float]:
        index = rows_of_step(state.step, num_rows=len(training.rows), batch_size=config.batch_size, seed=seed)
        metrics = step_gradient(config, model, chat, training, index)
        norm, rate = optimizer_step(state.optimizers["reward"], config.optimizer, step=state.step, num_steps=num_steps)
        return {**{name: float(value) for name, value in metrics.items()}, "optim/grad_norm": norm, "optim/lr": rate}

    def evaluate(_: TrainState) -> Mapping[str, float]:
        scores = pair_scores(model, chat, eval_rows, token_budget=config.token_budget)
        own = scores.gather(2, eval_heads.expand(2, -1)[:, :, None]).squeeze(2)
        margins = (own[0].double() - own[1].double()).tolist()
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
    with computing_in(config.precision, model.device):
        metrics, outputs = finish_model(config, run, state, start, training.rows, held_out)
    return run.finish(stopped=stopped, metrics=metrics, outputs=outputs, next_command=next_command)
