"""Run inside the environment with TRL 1.16: loss and gradients of its preference and reward trainers on given rows.

    python trl_offline.py CASE.json ANSWER.safetensors

CASE.json: `trainer` (dpo, kto, reward), `model`, `reference`, `settings` (of its config), `examples` (token ids, as its
collator takes them). The trainer is built as a user builds it, on a data set of text that is then never read.
"""

import json
import os
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1", TOKENIZERS_PARALLELISM="false")

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer

PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
LABELLED = [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "c", "completion": "d", "label": False}]
TRAINERS = {
    "dpo": (DPOTrainer, DPOConfig, [PAIR] * 2),
    "kto": (KTOTrainer, KTOConfig, LABELLED),
    "reward": (RewardTrainer, RewardConfig, [PAIR] * 2),
}


def main(case_path: str, answer_path: str) -> None:
    with open(case_path, encoding="utf-8") as file:
        case = json.load(file)
    trainer_class, config_class, rows = TRAINERS[case["trainer"]]
    tokenizer = AutoTokenizer.from_pretrained(case["model"])
    load = AutoModelForSequenceClassification if case["trainer"] == "reward" else AutoModelForCausalLM
    model = load.from_pretrained(case["model"], dtype=torch.float32)
    more = (
        {}
        if case["trainer"] == "reward"
        else {"ref_model": load.from_pretrained(case["reference"], dtype=torch.float32)}
    )
    with tempfile.TemporaryDirectory() as scratch:
        config = config_class(
            output_dir=scratch,
            per_device_train_batch_size=len(case["examples"]),
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            **case["settings"],
        )
        data = Dataset.from_list(rows)
        trainer = trainer_class(model=model, args=config, train_dataset=data, processing_class=tokenizer, **more)
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(case["examples"]))
        loss.backward()
    answer = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    save_file({"loss": loss.detach().reshape(1), **answer}, answer_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
