"""Run inside the environment with TRL 1.12, the last with PPO: what one update of its PPO trainer computes.

    python trl_ppo.py CASE.json ANSWER.safetensors

CASE.json: `model`, `reference`, `reward`, `value`; `moved` and `moved_value`, policy and value model after they have
moved, at which the losses are taken; `settings`; `prompts` of equal length and `responses`, as token ids, the pad id
after the end; `batch`, rows of the update, which the trainer draws; `micro_batch`. Generation is replaced by the given
responses. Everything else is read from the frame of the trainer's own `train` when it calls `backward`, and from what
it logs: the tensors are those it used.
"""

import contextlib
import json
import os
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1", TOKENIZERS_PARALLELISM="false")

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

ROLLOUT = ("logprobs", "ref_logprobs", "values", "scores", "rewards", "advantages", "returns", "padding_mask")
UPDATE = ("micro_batch_inds", "new_logprobs", "vpred", "pg_loss", "vf_loss", "ratio", "logprobs_diff")


class Stop(Exception):
    """All is seen."""


def main(case_path: str, answer_path: str) -> None:
    with open(case_path, encoding="utf-8") as file:
        case = json.load(file)
    rows = case["batch"]
    tokenizer = AutoTokenizer.from_pretrained(case["model"], padding_side="left")
    policy, reference = (AutoModelForCausalLM.from_pretrained(case[name]) for name in ("model", "reference"))
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(case[name], num_labels=1) for name in ("reward", "value")
    )
    answer: dict[str, torch.Tensor] = {}
    queries, responses = torch.tensor(case["prompts"]), torch.tensor(case["responses"])

    def generated(model, queries_now, *_):
        order = [case["prompts"].index(query) for query in queries_now.tolist()]
        answer["order"] = torch.tensor(order)
        given = torch.cat([queries_now, responses[order]], dim=1)
        logits = ppo_trainer.forward(model, given, tokenizer.pad_token_id).logits[:, queries.shape[1] - 1 : -1]
        return given, logits

    def backward(loss, **_):
        seen = sys._getframe(1).f_locals
        number = sum(name.startswith("loss.") for name in answer)
        if number == 0:
            answer.update({name: seen[name].detach().clone() for name in ROLLOUT})
            answer["kl"] = seen["kl"].detach().clone()
        for name in UPDATE:
            found = seen[name]
            answer[f"{name}.{number}"] = torch.as_tensor(found).detach().clone()
        answer[f"sync.{number}"] = torch.tensor(trainer.accelerator.sync_gradients)
        answer[f"loss.{number}"] = loss.detach().clone()
        trl_backward(loss)
        if number + 1 == rows // case["micro_batch"]:
            models = {"policy": trainer.model.policy, "value": trainer.model.value_model}
            for name, model in models.items():
                answer.update(
                    {f"{name}.{key}": w.grad.clone() for key, w in model.named_parameters() if w.grad is not None}
                )

    def log(metrics, *_, **__):
        answer.update({f"metric.{name}": torch.tensor(float(value)) for name, value in metrics.items()})
        raise Stop

    with tempfile.TemporaryDirectory() as scratch:
        config = PPOConfig(
            output_dir=scratch,
            total_episodes=rows,
            per_device_train_batch_size=case["micro_batch"],
            gradient_accumulation_steps=rows // case["micro_batch"],
            num_mini_batches=1,
            num_ppo_epochs=1,
            local_rollout_forward_batch_size=rows,
            num_sample_generations=0,
            response_length=responses.shape[1],
            stop_token="eos",
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            **case["settings"],
        )
        data = Dataset.from_dict({"input_ids": case["prompts"]})
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=policy,
            ref_model=reference,
            reward_model=reward,
            value_model=value,
            train_dataset=data,
            eval_dataset=data,
        )
        ppo_trainer.batch_generation = generated
        trl_backward, trainer.accelerator.backward = trainer.accelerator.backward, backward
        trainer.log = log
        whiten = ppo_trainer.masked_whiten

        def whiten_then_move(values, mask, shift_mean=True):
            """Whitening the advantages is the last thing before the update."""
            whitened = whiten(values, mask, shift_mean)
            if shift_mean:
                answer["unwhitened"] = values.detach().clone()
                policy.load_state_dict(load_file(f"{case['moved']}/model.safetensors"), strict=False)
                value.load_state_dict(load_file(f"{case['moved_value']}/model.safetensors"), strict=False)
            return whitened

        ppo_trainer.masked_whiten = whiten_then_move
        # The order of rows in micro-batches is numpy's, which the trainer does not seed.
        np.random.seed(0)
        with contextlib.suppress(Stop):
            trainer.train()
    save_file({name: tensor.contiguous() for name, tensor in answer.items()}, answer_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
