"""TRL's side of what both of its releases do: settings of transformers' Trainer, the meter as a callback, lengths.

Imported in a peer's environment only, where there is no prefloop.
"""

from __future__ import annotations

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TRL_EXPERIMENTAL_SILENCE="1",
    TOKENIZERS_PARALLELISM="false",
    TRANSFORMERS_VERBOSITY="error",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    TQDM_DISABLE="1",
)

from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
    logging,
)
from transformers.trainer_pt_utils import get_length_grouped_indices

from benchmarks.peers.cases import LEARNING_RATE, Case
from benchmarks.peers.meter import Meter
from benchmarks.testbed import policy_folder, read_rows

logging.disable_progress_bar()


class StepMeter(TrainerCallback):
    """Lets the trainer do a step when the process is told to."""

    def __init__(self, case: Case) -> None:
        torch.set_num_threads(case.threads)
        self.meter = Meter(threads=case.threads)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """All is loaded."""
        self.meter.ready()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """An optimiser step with all that came since the last."""
        self.meter.step_done()


def training_arguments(case: Case, scratch: str) -> dict[str, Any]:
    """Settings that every trainer here has: one optimiser step over the whole batch, nothing saved or reported.

    `case.settings`: `micro_batch` rows at once, `checkpointing` of activations.
    """
    micro_batch = case.settings.get("micro_batch", case.batch)
    return {
        "output_dir": scratch,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": case.batch // micro_batch,
        "max_steps": case.num_steps + 1,
        "learning_rate": LEARNING_RATE,
        "bf16": case.dtype == "bf16",
        "use_cpu": True,
        "gradient_checkpointing": case.settings.get("checkpointing", False),
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "seed": 0,
    }


def rows_of(case: Case, name: str) -> list[dict[str, Any]]:
    """The rows of a data file in prefloop's order, then the others."""
    rows = read_rows(Path(case.testbed) / name)
    taken = set(case.order)
    return [rows[place] for place in (*case.order, *(place for place in range(len(rows)) if place not in taken))]


def by_length(case: Case, rows: list[dict[str, Any]], lengths: list[int]) -> list[dict[str, Any]]:
    """The rows as `case.settings["order"]` wants them.

    "given": as they come. "sorted": the rows of each step, longest first. "grouped": the first step's rows are the
    given ones, longest first; all others are grouped as transformers' `group_by_length` does it.
    """
    order, size = case.settings.get("order", "given"), case.batch
    if order == "given":
        return rows
    places = list(range(len(rows)))
    if order == "grouped":
        torch.manual_seed(0)
        rest = get_length_grouped_indices(lengths[size:], size)
        places = places[:size] + [size + place for place in rest]
        sorted_steps = [places[:size]]
    else:
        sorted_steps = [places[start : start + size] for start in range(0, len(places), size)]
    head = [place for step in sorted_steps for place in sorted(step, key=lambda place: -lengths[place])]
    return [rows[place] for place in [*head, *places[len(head) :]]]


def tokenizer_of(case: Case) -> PreTrainedTokenizerFast:
    """The test bed's tokenizer, without its chat template: rows are plain text."""
    return PreTrainedTokenizerFast.from_pretrained(Path(case.testbed) / "tokenizer")


def policy(case: Case) -> LlamaForCausalLM:
    """The policy, fp32."""
    return LlamaForCausalLM.from_pretrained(
        policy_folder(Path(case.testbed), case.size, case.regime), dtype=torch.float32
    )


def reward_model(case: Case) -> LlamaForSequenceClassification:
    """The reward model, fp32."""
    return LlamaForSequenceClassification.from_pretrained(
        Path(case.testbed) / f"{case.size}-reward", dtype=torch.float32
    )


def watch_loss(trainer: Any, meter: Meter) -> None:
    """Note each step's loss and the norm of its gradient before clipping."""
    training_step, clip = trainer.training_step, trainer.accelerator.clip_grad_norm_

    def step(*args: Any, **more: Any) -> Any:
        loss = training_step(*args, **more)
        meter.counts["loss"] += float(loss)
        return loss

    def clip_grad_norm(*args: Any, **more: Any) -> Any:
        norm = clip(*args, **more)
        meter.counts["grad_norm"] = float(norm)
        return norm

    trainer.training_step, trainer.accelerator.clip_grad_norm_ = step, clip_grad_norm
