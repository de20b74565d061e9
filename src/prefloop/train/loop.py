"""The one training loop: step, record, evaluate, checkpoint, resume. Every trainer gives it a step function.

Whatever can be computed from the seed and the step number (data order, learning rate, sampling seeds) is not stored.
The contract of a step function, and what a checkpoint holds: docs/reliability.md.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.console import Progress, say
from prefloop.models.chat import Chat
from prefloop.models.decoder import recomputing, unsupported
from prefloop.models.load import default_device
from prefloop.models.precision import bf16_over_fp32, computing_in
from prefloop.rundir import RunDir
from prefloop.train.checkpoint import (
    checkpoint_name,
    discard_after,
    discard_on_stop,
    newest_verified,
    prune,
    restore,
    save_checkpoint,
    verify,
)
from prefloop.train.config import OptimizerConfig, TrainConfig
from prefloop.train.interrupt import StopSignals
from prefloop.train.randomness import random_state, seed_all, set_random_state
from prefloop.train.trackers import Trackers
from prefloop.types import EnvironmentStop, InputError

MORE_HELD_OUT = "give --eval-data, or raise --eval-fraction"
SLOWER_WARNS = 1.5
"""Times as long as in fp32 that a bf16 product may take before a run says so."""


@dataclass
class TrainState:
    """Everything that changes while training, and all that a resumed run needs."""

    models: dict[str, PreTrainedModel]
    """What is trained, by the name of its directory in a checkpoint: "policy", "value", "reward"."""
    chat: Chat
    optimizers: dict[str, torch.optim.AdamW]
    step: int = 0
    """Finished steps."""
    kl_coef: float = 0.0
    recent_kl: list[float] = field(default_factory=list)
    """Exact sequence KL of the newest responses, for the budget."""
    budget_eighth: int = -1
    """How many eighths of the budget were reached; a checkpoint was written at each."""
    best_value: float | None = None
    """The best held-out measurement so far."""
    best_step: int = 0
    evaluations_since_best: int = 0
    unmeasured: dict[str, float] = field(default_factory=dict)
    """Metrics of the last step, while its held-out evaluation is still to be done and no line has been logged."""
    extras: dict[str, Any] = field(default_factory=dict)
    """What an algorithm or a loop keeps beside: JSON values only, with text as keys and lists for sequences."""
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Named groups of tensors that a checkpoint holds too, for example {"ema": {name of weight: average}}. Entries may
    not share memory (`named_parameters` names tied weights once). Those that exist when a run is resumed are filled in
    place, others come back on the CPU."""
    rng: dict[str, Tensor] = field(default_factory=random_state)
    """Where the global random generators were at the end of the last step or evaluation. The next one begins there."""

    def plain(self) -> dict[str, Any]:
        """The JSON part of a checkpoint."""
        measured = ("best_value", "best_step", "evaluations_since_best", "unmeasured")
        return {
            name: getattr(self, name) for name in ("step", "kl_coef", "recent_kl", "budget_eighth", *measured, "extras")
        }

    def note_held_out(self, value: float, *, higher_is_better: bool = False) -> bool:
        """Take a held-out measurement of the state after `step`; whether it is the best so far (ties are not)."""
        sign = 1 if higher_is_better else -1
        improved = self.best_value is None or sign * value > sign * self.best_value
        if improved:
            self.best_value, self.best_step = value, self.step
        self.evaluations_since_best = 0 if improved else self.evaluations_since_best + 1
        return improved

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


def stream_of_step(step: int, *, num_rows: int, size: int, seed: int) -> list[int]:
    """Row numbers of one step of an endless stream of fresh permutations: every step has exactly `size` rows."""
    rows: list[int] = []
    place = step * size
    while len(rows) < size:
        epoch, start = divmod(place, num_rows)
        order = np.random.default_rng([seed, epoch]).permutation(num_rows)
        found = order[start : start + size - len(rows)]
        rows += [int(row) for row in found]
        place += len(found)
    return rows


def add_metrics(total: dict[str, Tensor], metrics: Mapping[str, Tensor]) -> None:
    """Combine the metrics of micro-batches: sums, and maxima where the name ends in `_max`."""
    for name, value in metrics.items():
        if name not in total:
            total[name] = value
        elif name.endswith("_max"):
            total[name] = torch.maximum(total[name], value)
        else:
            total[name] = total[name] + value


Outcome = TypeVar("Outcome")
StepFunction = Callable[[TrainState], Mapping[str, float] | str]
"""Does one step and gives its metrics, or the reason to stop before it.

It comes before the change or not at all: a step function that gives a reason, or raises EnvironmentStop (a reward
server stays away), does so while `state` is still that of the last finished step. It waits for the outside world first
and updates afterwards.
"""


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
    best_metric: str = "loss",
    higher_is_better: bool = False,
    evaluate_start: bool = False,
) -> str:
    """Train to `num_steps`, resuming from the newest verified checkpoint. Returns why it stopped.

    With `evaluate`, its `best_metric` decides which checkpoint is the best one (`state.best_step`), which is kept. It
    must measure held-out data by something that training does not see: never the proxy score. `evaluate_start`
    measures the untrained state as well, so that step 0 can be the best.

    Ctrl-C or SIGTERM lets the step in hand finish, writes a checkpoint of it and raises KeyboardInterrupt; a second one
    raises it at once. EnvironmentStop from the step function, or from `evaluate`, passes through after a checkpoint of
    the last finished step.
    """
    if patience is not None and evaluate is None:
        raise InputError("patience needs held-out rows, and there are none", field="patience", remedy=MORE_HELD_OUT)
    if config.recompute_activations:
        _require_recomputation(state)
    if config.precision == "bf16":
        _warn_if_slower(default_device())
    root = run.path / "checkpoints"

    def measure() -> tuple[bool, dict[str, float]]:
        assert evaluate is not None
        held_out = _attempt(run, config, state, evaluate)
        improved = state.note_held_out(held_out[best_metric], higher_is_better=higher_is_better)
        return improved, {f"eval/{name}": value for name, value in held_out.items()}

    def finish_step(metrics: Mapping[str, float]) -> None:
        """Evaluate, log and keep the state after a step with these metrics."""
        improved, last = False, state.step == num_steps
        if evaluate is not None and (state.step % eval_every == 0 or last):
            state.unmeasured = dict(metrics)
            improved, held_out = measure()
            state.unmeasured = {}
            metrics = {**metrics, **held_out}
        run.log(state.step, metrics)
        trackers.log(state.step, metrics)
        progress.update(state.step, describe(metrics))
        if improved or last or state.step % config.checkpoint_every == 0:
            write_checkpoint(run, state)
            prune(root, keep=config.keep_checkpoints, protect={state.best_step})

    stopped = "done"
    with (
        StopSignals() as signals,
        _begin(run, config, state) as trackers,
        Progress(run.command, total=num_steps) as progress,
    ):
        if state.unmeasured:
            finish_step(state.unmeasured)
        if evaluate is not None and evaluate_start and state.best_value is None:
            run.log(0, measure()[1])
            write_checkpoint(run, state)
        while state.step < num_steps and not signals.requested:
            if patience is not None and state.evaluations_since_best >= patience:
                stopped = "early_stopping"
                write_checkpoint(run, state)
                break
            started = time.perf_counter()
            outcome = _attempt(run, config, state, step_function)
            if isinstance(outcome, str):
                stopped = outcome
                break
            state.step += 1
            finish_step({**outcome, "time/step_seconds": time.perf_counter() - started})
        if signals.requested and state.step:
            write_checkpoint(run, state, on_stop=True)
    # Also what a crash between the last checkpoint and the deletions after it has left.
    prune(root, keep=config.keep_checkpoints, protect={state.best_step})
    discard_on_stop(root)
    return stopped


def _require_recomputation(state: TrainState) -> None:
    """Raise InputError if a model's activations cannot be computed again."""
    for model in state.models.values():
        reason = unsupported(model)
        if reason is not None:
            raise InputError(f"has no effect: {reason}", field="recompute_activations", remedy="lower token_budget")


def _warn_if_slower(device: torch.device) -> None:
    times = bf16_over_fp32(device)
    if times > SLOWER_WARNS:
        say(f"warning: a product takes {times:.0f} times as long in bf16 as in fp32 on this machine; --precision fp32")


@contextlib.contextmanager
def _begin(run: RunDir, config: TrainConfig, state: TrainState) -> Iterator[Trackers]:
    """Bring `state` and the run's files to where the newest verified checkpoint left them, and start the trackers."""
    root = run.path / "checkpoints"
    root.mkdir(exist_ok=True)
    newest = newest_verified(root)
    seed_all(config.seed)
    state.rng = random_state()
    if newest is not None:
        restore(state, newest)
        if state.step:
            say(f"resuming from {newest}")
    reached = state.step if newest is not None else -1
    discard_after(root, reached)
    run.forget_after(reached, logged=reached - 1 if state.unmeasured else reached)
    with Trackers.start(config, run.path, step=state.step) as trackers:
        yield trackers


def _attempt(run: RunDir, config: TrainConfig, state: TrainState, function: Callable[[TrainState], Outcome]) -> Outcome:
    """A step or an evaluation. Where the environment or bad input (a reward that is no number) stops it, a checkpoint
    of the state before it is written first."""
    before = _fingerprint(state)
    # Whatever drew random numbers since (a tracker, a progress bar) must not show in the run.
    set_random_state(state.rng)
    try:
        with computing_in(config.precision, default_device()), recomputing(config.recompute_activations):
            outcome = function(state)
    except (EnvironmentStop, InputError):
        # Before the first step there is nothing to lose. A step function that breaks its contract gets no checkpoint:
        # the run goes on from the one before.
        if state.step and _fingerprint(state) == before:
            write_checkpoint(run, state, on_stop=True)
        raise
    state.rng = random_state()
    return outcome


def _fingerprint(state: TrainState) -> tuple[str, list[float]]:
    """What differs after any change of the state that a step function makes."""
    # All weights of an optimiser are updated together, so one of them tells.
    first = (next(iter(optimizer.state.values()), None) for optimizer in state.optimizers.values())
    return json.dumps(state.plain()), [0.0 if entry is None else float(entry["step"]) for entry in first]


def write_checkpoint(run: RunDir, state: TrainState, *, on_stop: bool = False) -> None:
    """A checkpoint of the last finished step, after the log of all steps up to it is on disk."""
    run.sync()
    save_checkpoint(state, run.path / "checkpoints", on_stop=on_stop)


def result_checkpoint(run: RunDir, step: int | None = None, *, before: int | None = None) -> Path:
    """The checkpoint of `step`, or the newest verified one (`before` a step); relative to the run directory.

    Raises EnvironmentStop if it was damaged since it was written: run again, the command does the lost steps again.
    """
    root = run.path / "checkpoints"
    directory = newest_verified(root, before=before, as_result=True) if step is None else root / checkpoint_name(step)
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
