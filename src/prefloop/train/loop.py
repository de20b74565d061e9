"""The one training loop: step, record, evaluate, checkpoint, resume. Every trainer gives it a step function.

Whatever can be computed from the seed and the step number (data order, learning rate, sampling seeds) is not stored.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.console import Progress, say
from prefloop.models.chat import Chat
from prefloop.rundir import RunDir
from prefloop.train.checkpoint import (
    checkpoint_name,
    discard_after,
    newest_verified,
    prune,
    restore,
    save_checkpoint,
    verify,
)
from prefloop.train.config import OptimizerConfig, TrainConfig
from prefloop.types import EnvironmentStop, InputError

MORE_HELD_OUT = "give --eval-data, or raise --eval-fraction"


@dataclass
class TrainState:
    """Everything that changes while training, and all that a resumed run needs."""

    models: dict[str, PreTrainedModel]
    """What is trained, by the name of its directory in a checkpoint: "policy", "value", "reward"."""
    chat: Chat
    optimizers: dict[str, torch.optim.AdamW]
    step: int = 0
    """Finished steps."""
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Trained tensors that no directory of `models` holds, by name: a value head."""
    kl_coef: float = 0.0
    recent_kl: list[float] = field(default_factory=list)
    """Exact sequence KL of the newest responses, for the budget."""
    budget_eighth: int = -1
    """How many eighths of the budget were reached; a checkpoint was written at each."""
    best_loss: float | None = None
    """Lowest held-out loss so far."""
    best_step: int = 0
    evaluations_since_best: int = 0

    def plain(self) -> dict[str, Any]:
        """The JSON part of a checkpoint."""
        names = ("step", "kl_coef", "recent_kl", "budget_eighth", "best_loss", "best_step", "evaluations_since_best")
        return {name: getattr(self, name) for name in names}

    def set_plain(self, stored: Mapping[str, Any]) -> None:
        """Take over what `plain` gave."""
        for name in self.plain():
            setattr(self, name, stored[name])


def make_optimizer(model: torch.nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over all weights; the learning rate is set at each step."""
    return torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(config: OptimizerConfig, *, step: int, num_steps: int) -> float:
    """Learning rate of step 0, 1, ...: linear warm-up, then constant, or linear or cosine down to a tenth."""
    warmup = math.ceil(config.warmup_fraction * num_steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - warmup) / max(1, num_steps - warmup)
    left = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (0.1 + 0.9 * left)


def optimizer_step(
    optimizer: torch.optim.AdamW, config: OptimizerConfig, *, step: int, num_steps: int, field: str = "optimizer"
) -> tuple[float, float]:
    """Clip, update, clear. Returns gradient norm (before clipping) and learning rate.

    Raises InputError (naming the setting `field`.lr) for a gradient that is not finite: going on would write NaN into
    the weights.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm))
    if not math.isfinite(norm):
        raise InputError(
            f"the gradient norm of step {step + 1} is {norm}", field=f"{field}.lr", remedy="lower the learning rate"
        )
    rate = learning_rate(config, step=step, num_steps=num_steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm, rate


def rows_of_step(step: int, *, num_rows: int, batch_size: int, seed: int) -> list[int]:
    """Row numbers of one step: every epoch is a fresh permutation; its last batch may be smaller."""
    per_epoch = math.ceil(num_rows / batch_size)
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(num_rows)
    return [int(row) for row in order[place * batch_size : (place + 1) * batch_size]]


def add_metrics(total: dict[str, Tensor], metrics: Mapping[str, Tensor]) -> None:
    """Combine the metrics of micro-batches: sums, and maxima where the name ends in `_max`."""
    for name, value in metrics.items():
        if name not in total:
            total[name] = value
        elif name.endswith("_max"):
            total[name] = torch.maximum(total[name], value)
        else:
            total[name] = total[name] + value


StepFunction = Callable[[TrainState], Mapping[str, float] | str]
"""Does one step and gives its metrics, or the reason to stop before it."""


def fit(
    run: RunDir,
    config: TrainConfig,
    state: TrainState,
    step_function: StepFunction,
    *,
    num_steps: int,
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
    eval_every: int = 0,
    patience: int | None = None,
) -> str:
    """Train to `num_steps`, resuming from the newest verified checkpoint. Returns why it stopped.

    With `evaluate`, the lowest held-out `loss` decides which checkpoint is the best one.
    """
    root = run.path / "checkpoints"
    if patience is not None and evaluate is None:
        raise InputError("patience needs held-out rows, and there are none", field="patience", remedy=MORE_HELD_OUT)
    root.mkdir(exist_ok=True)
    resume_from = newest_verified(root)
    if resume_from is not None:
        restore(state, resume_from)
        if state.step:
            say(f"resuming from {resume_from}")
    discard_after(root, state.step if resume_from is not None else -1)
    run.forget_after(state.step)
    stopped = "done"
    saved_step = state.step if resume_from is not None else -1
    with Progress(run.command, total=num_steps) as progress:
        while state.step < num_steps:
            if patience is not None and state.evaluations_since_best >= patience:
                stopped = "early_stopping"
                break
            started = time.perf_counter()
            outcome = step_function(state)
            if isinstance(outcome, str):
                stopped = outcome
                break
            state.step += 1
            metrics = {**outcome, "time/step_seconds": time.perf_counter() - started}
            improved = False
            last = state.step == num_steps
            if evaluate is not None and (state.step % eval_every == 0 or last):
                held_out = evaluate(state)
                metrics |= {f"eval/{name}": value for name, value in held_out.items()}
                improved = state.best_loss is None or held_out["loss"] < state.best_loss
                if improved:
                    state.best_loss, state.best_step = held_out["loss"], state.step
                state.evaluations_since_best = 0 if improved else state.evaluations_since_best + 1
            run.log(state.step, metrics)
            progress.update(state.step, describe(metrics))
            if improved or last or state.step % config.checkpoint_every == 0:
                save_checkpoint(state, root)
                saved_step = state.step
                prune(root, keep=config.keep_checkpoints, protect={state.best_step})
    if stopped == "early_stopping" and saved_step != state.step:
        save_checkpoint(state, root)
    return stopped


def result_checkpoint(run: RunDir, step: int | None = None, *, before: int | None = None) -> Path:
    """The checkpoint of `step`, or the newest verified one (`before` a step); relative to the run directory.

    Raises EnvironmentStop if it was damaged since it was written: run again, the command does the lost steps again.
    """
    root = run.path / "checkpoints"
    directory = root / checkpoint_name(step) if step is not None else newest_verified(root, before=before)
    problem = "no whole checkpoint is left" if directory is None else verify(directory)
    if directory is None or problem is not None:
        raise EnvironmentStop(f"{directory or root}: {problem}")
    return directory.relative_to(run.path)


def describe(metrics: Mapping[str, float]) -> str:
    """The few metrics that a progress line shows."""
    shown = (
        *("sft/loss", "reward/loss", "preference/loss", "score/mean", "kl/full", "response/length"),
        *("reward/accuracy", "preference/accuracy", "eval/loss", "eval/accuracy"),
    )
    return "  ".join(f"{name} {metrics[name]:.3g}" for name in shown if name in metrics)


def last_metrics(run: RunDir) -> dict[str, float]:
    """The last line of metrics.jsonl, and the newest value of what not every line has."""
    merged: dict[str, float] = {}
    path = run.path / "metrics.jsonl"
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            merged |= json.loads(line)
    return merged
