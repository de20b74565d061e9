"""TRL's PPO trainer with a value and a reward model of their own. 1.12 is the last release that has it.

    python -m benchmarks.peers.trl_ppo CASE     (in the environment of TRL 1.12)

It knows one end-of-sequence token only; in the geometric regime the others become it right after generation.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch

from benchmarks.peers import trl_trainers as shared
from benchmarks.peers.cases import KL_COEF, PPO_EPOCHS, Case, told
from benchmarks.peers.meter import Meter
from benchmarks.testbed import EOS_ID, PAD_ID, stop_ids

# transformers must be told to be quiet before TRL imports it.
from datasets import Dataset  # isort: skip
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer  # isort: skip


def main() -> None:
    """Run the case that the command line gives."""
    case = told()
    step_meter = shared.StepMeter(case)
    tokenizer = shared.tokenizer_of(case)
    rows = Dataset.from_list(
        [{"input_ids": tokenizer(row["prompt"])["input_ids"]} for row in shared.rows_of(case, "prompts.jsonl")]
    )
    with tempfile.TemporaryDirectory() as scratch:
        arguments = shared.training_arguments(case, scratch)
        del arguments["max_steps"]
        model = shared.policy(case)
        set_lengths(model, case)
        trainer = PPOTrainer(
            args=PPOConfig(
                total_episodes=(case.num_steps + 1) * case.batch,
                response_length=case.new_tokens,
                num_ppo_epochs=PPO_EPOCHS,
                num_mini_batches=1,
                local_rollout_forward_batch_size=case.settings.get("rollout_batch", case.batch),
                num_sample_generations=0,
                stop_token="eos",
                kl_coef=KL_COEF,
                **arguments,
            ),
            processing_class=tokenizer,
            model=model,
            ref_model=shared.policy(case),
            reward_model=shared.reward_model(case),
            value_model=shared.reward_model(case),
            train_dataset=rows,
            eval_dataset=rows.select(range(case.batch)),
            callbacks=[step_meter],
        )
        count_tokens(step_meter.meter)
        trainer.train()


def set_lengths(model: Any, case: Case) -> None:
    """Force the regime's lengths on what the model generates."""
    generate = model.generate
    ends = torch.tensor(stop_ids("geometric"))

    def regime(*args: Any, **options: Any) -> Any:
        if case.regime == "fixed":
            return generate(*args, **options, min_new_tokens=case.new_tokens, eos_token_id=EOS_ID)
        found = generate(*args, **options, eos_token_id=ends.tolist())
        prompt = options["input_ids"].shape[1]
        response = found.sequences[:, prompt:]
        response[torch.isin(response, ends)] = EOS_ID
        return found

    model.generate = regime


def count_tokens(meter: Meter) -> None:
    """Count useful tokens of each round: responses up to and with their first end-of-sequence token."""
    generate = ppo_trainer.batch_generation

    def counted(model: Any, queries: Any, *args: Any) -> Any:
        rows, logits = generate(model, queries, *args)
        response = rows[:, queries.shape[1] :]
        ended = (response == EOS_ID).int()
        responses = int(((ended.cumsum(1) - ended) == 0).sum())
        meter.counts["generated"] += responses
        meter.counts["tokens"] += responses + int((queries != PAD_ID).sum())
        meter.counts["padded"] += rows.numel()
        return rows, logits

    ppo_trainer.batch_generation = counted


if __name__ == "__main__":
    main()
