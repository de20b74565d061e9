"""Every training command on a tiny model: what it is for really happens, and plain transformers reads the result."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from prefloop.config import dump_yaml, load
from prefloop.models.chat import Chat
from prefloop.models.load import load_policy, load_reward_model
from prefloop.reward.model import RewardModel
from prefloop.reward.scoring import Response
from prefloop.train.config import OptimizerConfig, SFTConfig
from prefloop.types import Message, Prompt

PROMPT = "name things like the moon or the bee"


def plain_logits(directory, text):
    """Logits of plain transformers, with the directory's own tokenizer and chat template."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    turns = [{"role": "user", "content": text}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        return ids["input_ids"][0].tolist(), model(**ids).logits[0]


def assert_same_in_plain_transformers(directory):
    ids, logits = plain_logits(directory, PROMPT)
    model, chat = load_policy(directory)
    assert ids == chat.encode_prompt((Message("user", PROMPT),))
    with torch.no_grad():
        torch.testing.assert_close(logits, model(torch.tensor([ids])).logits[0])


def test_sft_learns_the_ten_words(prefloop, data, sft_run, tmp_path):
    rows = sft_run.metrics()
    # 0.95 x 600 rows in batches of 32, three passes; the held-out share is by prompt hash.
    assert 3 * 17 <= len(rows) <= 3 * 19
    assert rows[0]["sft/loss"] == pytest.approx(math.log(330), abs=0.3), "a fresh model knows nothing"
    # A word is one of ten and an answer has one to six: under 3 nats a word of one or two tokens.
    assert rows[-1]["sft/loss"] < 2.6
    held_out = [row["eval/loss"] for row in rows if "eval/loss" in row]
    assert held_out[-1] < held_out[0]
    assert_same_in_plain_transformers(sft_run.model)
    assert torch.equal(*(load_policy(sft_run.model)[0].get_input_embeddings().weight for _ in range(2)))


def test_sft_goes_on_from_a_model_with_its_own_tokenizer(prefloop, data, sft_run, tmp_path):
    settings = ("--data", data / "demonstrations.jsonl", "--optimizer.lr", 1e-3, "--eval-fraction", 0)
    outcome = prefloop("train sft", "--model", sft_run.run, "--out", tmp_path / "more", *settings)
    assert outcome.code == 0, outcome.said
    first = outcome.metrics()[0]
    assert first["sft/loss"] < 2.9, "it starts where the first run ended"
    assert (outcome.model / "tokenizer.json").read_text() == (sft_run.model / "tokenizer.json").read_text()


def test_the_reward_model_learns_the_preference(reward_run):
    rows = reward_run.metrics()
    assert rows[0]["reward/loss"] == pytest.approx(math.log(2), abs=0.4)
    assert rows[-1]["eval/accuracy"] > 0.9
    model, chat = load_reward_model(reward_run.model)
    prompt = Prompt("p", (Message("user", PROMPT),))
    scorer = RewardModel(model, chat, version="")
    good, bad = scorer.score([prompt] * 2, [Response("bee cheese"), Response("moon fog")])
    assert good > bad + 0.5
    plain = AutoModelForSequenceClassification.from_pretrained(reward_run.model)
    ids = chat.encode_response(prompt.messages, "bee cheese").ids
    with torch.no_grad():
        raw = float(plain(torch.tensor([ids])).logits[0, 0])
    assert good == pytest.approx((raw - plain.config.reward_mean) / plain.config.reward_std, abs=1e-5)


def test_scores_of_the_training_responses_are_normalised(prefloop, data, reward_run, tmp_path):
    pairs = [json.loads(line) for line in (data / "pairs.jsonl").read_text().splitlines()]
    rows = [{"prompt": row["prompt"], "response": row[side]} for row in pairs for side in ("chosen", "rejected")]
    (tmp_path / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = prefloop("reward score", reward_run.run, tmp_path / "responses.jsonl", "--out", tmp_path / "scores.jsonl")
    assert outcome.code == 0, outcome.said
    scores = torch.tensor([json.loads(line)["score"] for line in (tmp_path / "scores.jsonl").read_text().splitlines()])
    # Four fifths of these rows gave mean and deviation.
    assert float(scores.mean()) == pytest.approx(0, abs=0.1)
    assert float(scores.std()) == pytest.approx(1, abs=0.1)


def test_dpo_raises_the_implicit_margin_and_starts_at_log_2(prefloop, data, sft_run, tmp_path):
    outcome = prefloop(
        *("train preference", "--model", sft_run.run, "--data", data / "pairs.jsonl", "--out", tmp_path / "dpo"),
        *("--optimizer.lr", 3e-3, "--num-epochs", 2, "--eval-fraction", 0.2),
    )
    assert outcome.code == 0, outcome.said
    rows = outcome.metrics()
    # Policy = reference: every margin is 0, every loss -log sigmoid(0).
    assert rows[0]["preference/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[0]["preference/margin"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["eval/margin"] > 0.3
    assert rows[-1]["eval/accuracy"] > 0.9
    assert_same_in_plain_transformers(outcome.model)


@pytest.mark.parametrize(
    ("algorithm", "function", "settings", "least_gain"),
    [
        ("ppo", "count_e", ("--prompts-per-step", 32), 2.0),
        ("rloo", "short", ("--prompts-per-step", 8), 1.0),
    ],
)
def test_a_function_is_optimised(tune, data, algorithm, function, settings, least_gain):
    outcome = tune(
        *("--reward", f"{data / 'rewards.py'}:{function}", "--algorithm", algorithm, "--num-steps", 15),
        *("--kl-budget", "none", *settings),
    )
    assert outcome.code == 0, outcome.said
    rows = outcome.metrics()
    early, late = ([row["score/mean"] for row in rows[part]] for part in (slice(0, 3), slice(-3, None)))
    assert sum(late) / 3 > sum(early) / 3 + least_gain
    assert rows[-1]["kl/full"] > 0.5 and abs(rows[0]["kl/full"]) < 1e-6
    assert_same_in_plain_transformers(outcome.model)


def test_a_reward_model_is_optimised_and_rollouts_are_kept(prefloop, tune, data, sft_run, reward_run):
    outcome = tune("--reward", reward_run.run, "--num-steps", 12, "--save-rollouts", 5, "--kl-budget", "none")
    assert outcome.code == 0, outcome.said
    rows = outcome.metrics()
    early, late = (sum(row["score/mean"] for row in rows[part]) / 3 for part in (slice(0, 3), slice(-3, None)))
    assert late > early + 0.4, "in standard deviations of the reward model's scores"
    rollouts = [json.loads(line) for line in (outcome.run / "rollouts" / "rollouts.jsonl").read_text().splitlines()]
    assert len(rollouts) == 12 * 5
    assert [row["step"] for row in rollouts[::5]] == list(range(1, 13))
    # What stands there is what the reward model says of that text, cut at the clip.
    model, chat = load_reward_model(reward_run.model)
    scorer = RewardModel(model, chat, version="")
    for row in rollouts[::7]:
        prompt = Prompt("", (Message("user", row["prompt"]),))
        expected = scorer.score([prompt], [Response(row["response"], row["finish_reason"] == "stop")])[0]
        assert row["score"] == pytest.approx(max(-5.0, min(5.0, expected)), abs=1e-4)
    assert outcome.answer["outputs"].keys() == {"model", "value"}
    report = prefloop("report", outcome.run)
    assert report.code == 0 and "KL to the reference" in (outcome.run / "report.html").read_text()


def test_the_value_of_a_policy_run_starts_another(tune, reward_run):
    first = tune("--reward", reward_run.run, "--num-steps", 1)
    second = tune("--reward", reward_run.run, "--num-steps", 1, "--value", first.run)
    assert second.code == 0, second.said
    recorded = json.loads((second.run / "inputs.json").read_text())["inputs"]["value"]
    assert recorded["path"] == str(first.run / first.answer["outputs"]["value"])


def test_an_algorithm_of_ones_own(tune, data, tmp_path):
    source = (
        "from prefloop.functional.advantages import broadcast_to_tokens\n"
        "from prefloop.functional.batch import Advantages\n"
        "from prefloop.functional.losses import policy_gradient_loss\n"
        "from prefloop.train.algorithms import Algorithm\n\n\n"
        "class Plain(Algorithm):\n"
        '    """REINFORCE without a baseline."""\n\n'
        "    shift: float = 0.0\n"
        '    """Added to every score."""\n\n'
        "    def advantages(self, batch):\n"
        "        return Advantages(broadcast_to_tokens(batch.rewards.sum(1) + self.shift, batch.response_mask))\n\n"
        "    def policy_loss(self, logprobs, batch, advantages, *, denominator):\n"
        "        mask = batch.response_mask\n"
        "        return policy_gradient_loss(\n"
        "            logprobs, advantages, mask, denominator=denominator, reduction=self.loss_reduction)\n"
    )
    (tmp_path / "json.py").write_text(source)  # the name of a standard module: it must not take its place
    outcome = tune(
        *("--reward", f"{data / 'rewards.py'}:short", "--algorithm", f"{tmp_path / 'json.py'}:Plain"),
        *("--settings.shift", 2.5, "--num-steps", 12, "--kl-budget", "none"),
    )
    assert outcome.code == 0, outcome.said
    rows = outcome.metrics()
    assert rows[-1]["score/mean"] > rows[0]["score/mean"] + 0.5
    assert "value" not in outcome.answer["outputs"]
    assert json.loads("[1]") == [1]


def test_a_copied_model_directory_needs_nothing_else(sft_run, tmp_path):
    shutil.copytree(sft_run.model, tmp_path / "copy")
    chat = load_policy(tmp_path / "copy")[1]
    assert isinstance(chat, Chat)
    assert_same_in_plain_transformers(tmp_path / "copy")


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [
        ({}, 2e-3),
        ({"optimizer.schedule": "constant"}, 2e-3),
        ({"optimizer.lr": "3e-4"}, 3e-4),
        ({"optimizer.lr": "1e-4"}, 1e-4),
        ({"model": "runs/sft"}, 1e-4),
        ({"model": "runs/sft", "optimizer.lr": "3e-4"}, 3e-4),
    ],
)
def test_new_weights_have_a_higher_learning_rate_unless_one_is_given(overrides, rate, tmp_path):
    config = load(SFTConfig, overrides={"data": ["a.jsonl"], **overrides})
    assert config.optimizer.lr == rate
    assert config.optimizer.schedule == overrides.get("optimizer.schedule", "cosine")
    # What a run directory stores reads back as the same config.
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    assert load(SFTConfig, yaml_path=tmp_path / "config.yaml") == config


def test_the_rate_of_new_weights_in_python():
    assert SFTConfig(data=("a.jsonl",)).optimizer.lr == 2e-3
    assert SFTConfig(data=("a.jsonl",), optimizer=OptimizerConfig(beta1=0.5)).optimizer == OptimizerConfig(
        lr=2e-3, beta1=0.5
    )
    assert SFTConfig(data=("a.jsonl",), optimizer=OptimizerConfig(lr=1e-4)).optimizer.lr == 1e-4
