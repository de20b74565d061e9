"""TRL's SFT, reward and DPO trainers.

python -m benchmarks.peers.trl_offline CASE     (in the environment of TRL 1.16)
"""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks.peers import trl_trainers as shared
from benchmarks.peers.cases import Case, told
from benchmarks.peers.meter import Meter

# transformers must be told to be quiet before TRL imports it.
from datasets import Dataset  # isort: skip
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer  # isort: skip

MAX_LENGTH = 256


def main() -> None:
    """Run the case that the command line gives."""
    case = told()
    step_meter = shared.StepMeter(case)
    meter = step_meter.meter
    with tempfile.TemporaryDirectory() as scratch:
        more = {"processing_class": shared.tokenizer_of(case), "callbacks": [step_meter]}
        arguments = dict(
            max_length=MAX_LENGTH, train_sampling_strategy="sequential", **shared.training_arguments(case, scratch)
        )
        make = {"sft": sft, "reward": reward, "dpo": dpo}[case.job]
        trainer = make(case, meter, arguments, more)
        count_tokens(trainer, meter)
        shared.watch_loss(trainer, meter)
        trainer.train()


def sft(case: Case, meter: Meter, arguments: dict[str, Any], more: dict[str, Any]) -> Any:
    """Loss on completions only, as prompt-completion rows have it by default; no packing."""
    return SFTTrainer(
        model=shared.policy(case),
        args=SFTConfig(**arguments),
        train_dataset=Dataset.from_list(ordered(case, "demonstrations.jsonl", ("completion",))),
        **more,
    )


def reward(case: Case, meter: Meter, arguments: dict[str, Any], more: dict[str, Any]) -> Any:
    """Bradley-Terry."""
    return RewardTrainer(
        model=shared.reward_model(case),
        args=RewardConfig(**arguments),
        train_dataset=Dataset.from_list(ordered(case, "pairs.jsonl", ("chosen", "rejected"))),
        **more,
    )


def dpo(case: Case, meter: Meter, arguments: dict[str, Any], more: dict[str, Any]) -> Any:
    """Sigmoid loss. `case.settings["precompute"]`: the reference runs before the first step, over the rows of the
    steps only, and its seconds are shared out over them."""
    precompute = case.settings.get("precompute", False)
    rows = ordered(case, "pairs.jsonl", ("chosen", "rejected"))
    if precompute:
        rows = rows[: case.batch * case.num_steps]
    method = DPOTrainer._precompute_ref_logps

    def timed(*args: Any, **options: Any) -> Any:
        started = meter.clock()
        found = method(*args, **options)
        meter.extra_seconds = (meter.clock() - started) * case.batch / len(rows)
        return found

    DPOTrainer._precompute_ref_logps = timed
    return DPOTrainer(
        model=shared.policy(case),
        ref_model=None if precompute else shared.policy(case),
        args=DPOConfig(precompute_ref_log_probs=precompute, **arguments),
        train_dataset=Dataset.from_list(rows),
        **more,
    )


def ordered(case: Case, name: str, answers: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a file in the order of the case; a pair is as long as its longer side."""
    rows, tokenizer = shared.rows_of(case, name), shared.tokenizer_of(case)
    prompts = [len(ids) for ids in tokenizer([row["prompt"] for row in rows])["input_ids"]]
    columns = [[len(ids) for ids in tokenizer([row[side] for row in rows])["input_ids"]] for side in answers]
    lengths = [prompt + max(sides) for prompt, sides in zip(prompts, zip(*columns, strict=True), strict=True)]
    return shared.by_length(case, rows, lengths)


def count_tokens(trainer: Any, meter: Meter) -> None:
    """Count what the loss is computed from: useful tokens, and with padding."""
    compute = trainer.compute_loss

    def counted(model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        real = mask if mask is not None else ids != trainer.processing_class.pad_token_id
        meter.counts["tokens"] += int(real.sum())
        meter.counts["padded"] += ids.numel()
        return compute(model, inputs, *args, **options)

    trainer.compute_loss = counted


if __name__ == "__main__":
    main()
