"""Run inside the environment with TRL 1.16: advantages, loss and gradients of its RLOO and GRPO trainers.

    python trl_online.py CASE.json ANSWER.safetensors

CASE.json: `trainer` (rloo, grpo), `model`, `reference`, `moved` (the policy after it has moved, at which the loss is
taken), `settings`, `group_size`, `max_length`, `prompts`, `responses` (token ids), `scores`. Generation is replaced by
the given responses and the reward function by the given scores; all else is the trainer's.
"""

import json
import os
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1", TOKENIZERS_PARALLELISM="false")

from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

TRAINERS = {"rloo": (RLOOTrainer, RLOOConfig), "grpo": (GRPOTrainer, GRPOConfig)}


def main(case_path: str, answer_path: str) -> None:
    with open(case_path, encoding="utf-8") as file:
        case = json.load(file)
    trainer_class, config_class = TRAINERS[case["trainer"]]
    prompts, responses, scores = case["prompts"], case["responses"], case["scores"]
    tokenizer = AutoTokenizer.from_pretrained(case["model"])

    def given(prompts, completions, **_):
        return scores

    with tempfile.TemporaryDirectory() as scratch:
        config = config_class(
            output_dir=scratch,
            per_device_train_batch_size=len(prompts),
            num_generations=case["group_size"],
            max_completion_length=case["max_length"],
            # Two passes, so that the probabilities of the sampling policy are kept.
            num_iterations=2,
            model_init_kwargs={"dtype": "float32"},
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            **case["settings"],
        )
        trainer = trainer_class(
            model=case["model"],
            reward_funcs=[given],
            args=config,
            train_dataset=Dataset.from_list([{"prompt": "a"}] * len(prompts)),
            processing_class=tokenizer,
        )
        if trainer.ref_model is not None:
            # Reads the tied output embedding from the input embedding.
            trainer.ref_model.load_state_dict(load_file(f"{case['reference']}/model.safetensors"), strict=False)
        if case["trainer"] == "rloo":
            generated = (prompts, responses, ["x"] * len(prompts))
        else:
            # Tool mask, sampler's log-probabilities, further fields, images: none, as in a plain run.
            generated = (prompts, responses, None, ["x"] * len(prompts), None, {}, None, None)
        trainer._generate = lambda *_, **__: generated
        trainer.model.train()
        batch = trainer._generate_and_score_completions([{"prompt": "a"}] * len(prompts))
        trainer.model.load_state_dict(load_file(f"{case['moved']}/model.safetensors"), strict=False)
        trainer.current_gradient_accumulation_steps = 1
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
    answer = {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.grad is not None}
    answer |= {"loss": loss.detach().reshape(1), "advantages": batch["advantages"].detach()}
    save_file(answer, answer_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
