"""Adapters in the on-policy loop: the reference is the policy without them."""

from __future__ import annotations

import shutil

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from prefloop.models import forward
from prefloop.models.load import load_policy

LORA = ("--lora.rank", 4, "--optimizer.lr", 1e-2, "--value-optimizer.lr", 1e-2)


@pytest.fixture(scope="module")
def count_e(data):
    return ("--reward", f"{data / 'rewards.py'}:count_e")


# peft asks transformers for something that it is about to rename.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_adapters_learn_and_the_base_stands_still(tune, count_e, sft_run, algorithm):
    words = (*count_e, *LORA, "--algorithm", algorithm, "--num-steps", 14, "--kl-budget", "none")
    outcome = tune(*words, "--ema-decay", 0.5)
    assert outcome.code == 0, outcome.said
    rows = outcome.metrics()
    assert abs(rows[0]["kl/full"]) < 1e-6 and rows[-1]["kl/full"] > 0.2
    early, late = (sum(row["score/mean"] for row in rows[part]) / 3 for part in (slice(0, 3), slice(-3, None)))
    assert late > early + 1
    assert all(row["policy/sampler_gap"] < 1e-5 for row in rows), "sampling with merged weights is the same policy"
    outputs = outcome.answer["outputs"]
    assert {"model", "adapter", "ema", "ema_adapter"} <= outputs.keys()
    # The adapters on the base are the merged model.
    base = AutoModelForCausalLM.from_pretrained(sft_run.model)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    adapted = peft.PeftModel.from_pretrained(base, outcome.run / outputs["adapter"])
    ids = torch.tensor([[5, 9, 12, 40]])
    with torch.no_grad():
        merged = load_policy(outcome.model)[0](ids).logits
        torch.testing.assert_close(adapted(ids).logits, merged, rtol=1e-4, atol=1e-4)
    after = load_policy(outcome.model)[0].state_dict()
    assert any(not torch.equal(weight, before[name]) for name, weight in after.items())


def test_a_run_with_adapters_resumes_bit_by_bit(tune, count_e, tmp_path):
    words = (*count_e, *LORA, "--num-steps", 6, "--checkpoint-every", 2, "--keep-checkpoints", 9, "--kl-budget", "none")
    whole = tune(*words, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    for name in ("result.json", "checkpoints/step-000006", "model", "adapter", "value", "value_adapter"):
        path = tmp_path / "half" / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    resumed = tune(*words, out=tmp_path / "half")
    assert "step-000004" in resumed.said
    for output in whole.answer["outputs"].values():
        files = sorted((whole.run / output).glob("*.safetensors"))
        assert files
        assert all((resumed.run / output / file.name).read_bytes() == file.read_bytes() for file in files)


def test_swapped_adapters_are_caught(tune, count_e, monkeypatch):
    """The reference pass with adapters, the policy pass without: with fresh adapters both are the same numbers."""
    compare = forward.compare_to_reference

    def swapped(model, reference, batch, *, temperature, hidden=None):
        policy, ref, kl, entropies = compare(model, reference, batch, temperature=temperature)
        return ref, policy, kl, entropies

    from prefloop.train import checks, rollouts

    monkeypatch.setattr(checks, "compare_to_reference", swapped)
    monkeypatch.setattr(rollouts, "compare_to_reference", swapped)
    problem = tune(*count_e, *LORA, "--num-steps", 2).problem
    assert problem.startswith("reference: start-up check adapters: a change of the adapters moves a log-probability")
    assert "likely adapters swapped, or not switched off for the reference" in problem


def test_a_reference_cannot_be_refreshed_with_adapters(tune, count_e):
    problem = tune(*count_e, *LORA, "--reference-refresh-every", 2, "--kl-budget", "none").problem
    assert "reference_refresh_every has no model to refresh with lora" in problem
