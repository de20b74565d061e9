"""Start-up checks: each planted bug stops the run before its first update, under the right name."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from prefloop.models.load import load_policy, save_model
from prefloop.reward.scoring import RewardModel
from prefloop.rollout import steps
from prefloop.train import checks
from prefloop.train import policy as policy_module
from prefloop.train import preference as preference_module
from prefloop.train import sft as sft_module
from prefloop.train.checks import Measured
from prefloop.types import InputError


@pytest.fixture(scope="module")
def gpt2(sft_run, tmp_path_factory):
    """A model with absolute positions, which rotary ones do not depend on, and the tokenizer of the SFT run."""
    chat = load_policy(sft_run.model)[1]
    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=len(chat.tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=128,
        bos_token_id=None,
        eos_token_id=chat.tokenizer.eos_token_id,
        pad_token_id=chat.pad_id,
    )
    model = GPT2LMHeadModel(shape)
    # Positions that matter as much as words do, as in a trained model.
    torch.nn.init.normal_(model.transformer.wpe.weight, std=0.5)
    directory = tmp_path_factory.mktemp("gpt2")
    save_model(model, chat, directory)
    return directory


@pytest.fixture
def started(tune, data, tmp_path):
    """A run of two steps against a function, at temperature 0.5."""

    def call(*settings):
        count_e = ("--reward", f"{data / 'rewards.py'}:count_e")
        return tune(*count_e, "--num-steps", 2, "--temperature", 0.5, *settings, out=tmp_path / "run")

    return call


def with_a_changed_policy(monkeypatch, change, only=None):
    load = policy_module.load_policy

    def careless(*arguments, field="model", **settings):
        model, chat = load(*arguments, field=field, **settings)
        if only in (None, field):
            change(model, chat)
        return model, chat

    monkeypatch.setattr(policy_module, "load_policy", careless)


def leave_dropout_on(model, chat):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    model.train()


def stop_at_the_pad_token(model, chat):
    model.config.pad_token_id = chat.tokenizer.eos_token_id


def change_the_weights(model, chat):
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.01)


def assert_stopped(outcome, name, says):
    field, _, rest = outcome.problem.partition(": ")
    assert rest.startswith(f"start-up check {name}: "), outcome.problem
    assert says in rest and "; likely " in rest
    return field


def test_dropout_left_on(started, gpt2, monkeypatch, tmp_path):
    with_a_changed_policy(monkeypatch, leave_dropout_on)
    outcome = started("--model", gpt2)
    assert assert_stopped(outcome, "ratio", "dropout left on") == "model"
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_temperature_forgotten_in_one_pass(started, monkeypatch):
    draw = steps.draw
    monkeypatch.setattr(steps, "draw", lambda logits, uniforms, **_: draw(logits, uniforms, temperature=1.0))
    assert assert_stopped(started(), "sampler", "a temperature that one of the two forgot") == "model"


def test_position_ids_missing(started, gpt2, monkeypatch, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    texts = [" ".join(["name"] * number) for number in range(1, 13)]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    words = ("--model", gpt2, "--prompts", prompts)
    assert started(*words).code == 0, "nothing is wrong with the model itself"
    shutil.rmtree(tmp_path / "run")
    forward = GPT2Model.forward

    def without_positions(self, *arguments, position_ids=None, **settings):
        return forward(self, *arguments, position_ids=None, **settings)

    monkeypatch.setattr(GPT2Model, "forward", without_positions)
    outcome = started(*words)
    assert assert_stopped(outcome, "sampler", "position ids that the sampler leaves out") == "model"


def test_a_wrong_pad_token(started, monkeypatch):
    with_a_changed_policy(monkeypatch, stop_at_the_pad_token, only="model")
    assert assert_stopped(started(), "pad_token", "a pad token that is also a stop token") == "model"


def test_a_reference_that_is_not_the_start(started, monkeypatch):
    with_a_changed_policy(monkeypatch, change_the_weights, only="reference")
    assert assert_stopped(started(), "start_kl", "weights that were not loaded") == "reference"


def test_a_stop_token_stripped_before_scoring(tune, reward_run, monkeypatch):
    encode = RewardModel.encode

    def stripped(self, prompts, responses):
        rows = encode(self, prompts, responses)
        return [type(row)(row.ids[:-1], row.mask[:-1]) for row in rows]

    monkeypatch.setattr(RewardModel, "encode", stripped)
    outcome = tune("--reward", reward_run.run, "--num-steps", 2)
    assert assert_stopped(outcome, "end_of_response", "a stop token that is cut off before scoring") == "reward"


def test_a_score_read_at_a_pad_token(tune, reward_run, monkeypatch):
    from prefloop.reward import model as reward_model

    def at_the_last_column(model, batch):
        hidden = model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        return model.score(hidden[:, -1]).squeeze(-1)

    monkeypatch.setattr(reward_model, "sequence_scores", at_the_last_column)
    outcome = tune("--reward", reward_run.run, "--num-steps", 2)
    assert assert_stopped(outcome, "score_padding", "reads its score at a pad token") == "reward"


def test_what_is_no_number_does_not_pass():
    with pytest.raises(InputError, match="likely weights that are not finite"):
        Measured("ratio", float("nan"), 1e-6, "", "dropout left on").require()
    assert Measured("ratio", 1e-6, 1e-6, "", "").passed


def test_a_gap_above_half_its_limit_gives_importance_weights(tune, data, monkeypatch):
    """A sampler that is a little off its probabilities: a warning, and every advantage is weighted."""
    draw = steps.draw

    def a_little_off(logits, uniforms, *, temperature):
        ids, logprobs = draw(logits, uniforms, temperature=temperature)
        return ids, logprobs + 7e-5

    monkeypatch.setattr(steps, "draw", a_little_off)
    seen = []
    weigh = policy_module.importance_weights

    def weigh_and_note(*arguments):
        seen.append(weigh(*arguments))
        return seen[-1]

    monkeypatch.setattr(policy_module, "importance_weights", weigh_and_note)
    outcome = tune("--reward", f"{data / 'rewards.py'}:count_e", "--num-steps", 2)
    assert outcome.code == 0
    assert "warning: sampler and trainer differ by 7e-05 per token: advantages get importance weights" in outcome.said
    assert len(seen) == 2
    assert seen[0].amin().item() == pytest.approx(1 - 7e-5, abs=2e-6)


def offline(prefloop, model, data, tmp_path, command):
    file = "demonstrations" if command == "sft" else "pairs"
    words = ("--model", model, "--data", data / f"{file}.jsonl", "--out", tmp_path / "run")
    return prefloop(f"train {command}", *words)


@pytest.mark.parametrize("command", ["sft", "preference"])
def test_dropout_left_on_in_training_on_a_data_set(prefloop, gpt2, data, tmp_path, monkeypatch, command):
    module = {"sft": sft_module, "preference": preference_module}[command]
    load = module.load_policy

    def careless(*arguments, **settings):
        model, chat = load(*arguments, **settings)
        leave_dropout_on(model, chat)
        return model, chat

    monkeypatch.setattr(module, "load_policy", careless)
    assert_stopped(offline(prefloop, gpt2, data, tmp_path, command), "ratio", "dropout left on")


def test_a_reward_model_trained_at_a_pad_token(prefloop, sft_run, data, tmp_path, monkeypatch):
    def at_the_last_column(model, batch):
        hidden = model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        return model.score(hidden[:, -1])

    monkeypatch.setattr(checks, "head_scores", at_the_last_column)
    outcome = offline(prefloop, sft_run.run, data, tmp_path, "reward")
    assert_stopped(outcome, "score_padding", "reads its score at a pad token")


def test_reference_sums_that_are_not_the_references(prefloop, sft_run, data, tmp_path, monkeypatch):
    sums = preference_module.pair_logprobs
    monkeypatch.setattr(preference_module, "pair_logprobs", lambda *given, **more: sums(*given, **more) - 0.5)
    outcome = offline(prefloop, sft_run.run, data, tmp_path, "preference")
    assert_stopped(outcome, "start_kl", "weights that were not loaded")


def test_a_reward_that_is_no_number_stops_at_a_safe_point(tune, tmp_path):
    """The run keeps the steps it has done, so that the function can be looked into without losing them."""
    path = tmp_path / "rewards.py"
    path.write_text(
        "calls = []\n\n\ndef f(prompts, responses):\n    calls.append(1)\n"
        "    return [float('nan') if len(calls) == 4 else 1.0 * len(text) for text in responses]\n"
    )
    words = ("--reward", f"{path}:f", "--num-steps", 6, "--prompts-per-step", 8, "--kl-budget", "none")
    outcome = tune(*words, out=tmp_path / "run")
    assert "returned nan for the prompt 'name" in outcome.problem
    resumed = tune(*words, out=tmp_path / "run")
    assert f"resuming from {tmp_path / 'run' / 'checkpoints' / 'step-000003'}" in resumed.said
    # The function counts its calls anew: three more steps to do.
    assert resumed.answer["stopped"] == "done"
