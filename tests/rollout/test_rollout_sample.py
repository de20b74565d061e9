"""The command `sample` and the sampler below it."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from prefloop.models.load import load_policy
from prefloop.rollout.draw import draw
from prefloop.rollout.respond import best_of, plain_prompt, respond
from prefloop.types import InputError, Message, Prompt


@pytest.fixture
def sampled(prefloop, sft_run, data, tmp_path):
    def call(*settings, prompts=None):
        out = tmp_path / "responses.jsonl"
        words = (prompts or data / "prompts.jsonl", "--out", out, "--max-new-tokens", 16, *settings)
        outcome = prefloop("sample", sft_run.run, *words)
        rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        return outcome, rows

    return call


def test_every_prompt_is_answered_in_order(sampled, data):
    outcome, rows = sampled("--num-samples", 3, "--limit", 7)
    prompts = [json.loads(line)["prompt"] for line in (data / "prompts.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [prompt for prompt in prompts[:7] for _ in range(3)]
    assert outcome.answer["num_responses"] == 21
    cut_off = sum(row["finish_reason"] == "length" for row in rows)
    assert outcome.answer["truncated_fraction"] == pytest.approx(cut_off / 21)
    assert len({row["response"] for row in rows[:3]}) > 1, "samples of one prompt differ"
    words = {word for row in rows for word in row["response"].split()}
    known = {"tree", "bee", "cheese", "seed", "steel", "moon", "lamp", "road", "sun", "fog"}
    assert len(words & known) >= 8 and len(words - known) <= len(words) / 3, "it has learned the ten words"


def test_the_seed_decides_and_the_batch_does_not(sampled):
    first, again, other = (
        sampled("--seed", seed, "--batch-size", size)[1] for seed, size in ((1, 64), (1, 7), (2, 64))
    )
    assert first == again
    assert sum(row != another for row, another in zip(first, other, strict=True)) > len(first) / 2


def test_temperature_zero_takes_the_most_likely_token(sampled, sft_run):
    rows = sampled("--temperature", 0, "--limit", 5)[1]
    model, chat = load_policy(sft_run.model)
    for row in rows:
        ids = chat.encode_prompt((Message("user", row["prompt"]),))
        start = len(ids)
        while len(ids) - start < 16 and (len(ids) == start or ids[-1] not in chat.stop_ids):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert row["response"] == chat.decode(ids[start:])
        assert row["finish_reason"] == ("stop" if ids[-1] in chat.stop_ids else "length")


def test_dialogues_keep_their_turns(sampled, tmp_path):
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "name a tree"},
        {"role": "assistant", "content": "bee"},
        {"role": "user", "content": "name things"},
    ]
    path = tmp_path / "dialogues.jsonl"
    path.write_text(json.dumps({"prompt": turns}) + "\n")
    assert sampled(prompts=path)[1][0]["prompt"] == turns
    assert plain_prompt((Message("user", "a"),)) == "a"
    assert plain_prompt((Message("system", "a"), Message("user", "b")))[0] == {"role": "system", "content": "a"}


def test_prompts_beyond_the_context(sampled, tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "name things"}, {"prompt": " ".join(["bee"] * 115)}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused, none = sampled(prompts=path)
    assert refused.problem.startswith("max_new_tokens: prompt ") and none == []
    assert "with 16 new ones it exceeds the model's 128 positions; lower it, or shorten the prompt" in refused.problem
    outcome, answered = sampled("--skip-bad", prompts=path)
    assert outcome.code == 0 and [row["prompt"] for row in answered] == ["name things"]
    assert "left out 1 of 2 prompts: prompt " in outcome.said
    path.write_text(json.dumps(rows[1]) + "\n")
    assert sampled("--skip-bad", prompts=path)[0].problem == "max_new_tokens: none of the 1 prompts fits; lower it"


def test_where_nothing_can_be_written_nothing_is_loaded(prefloop, sft_run, data, tmp_path):
    words = ("sample", sft_run.run, data / "prompts.jsonl", "--out")
    assert prefloop(*words, tmp_path).problem == f"{tmp_path}: out: is a directory; give a file to write"
    assert prefloop(*words, tmp_path / "none" / "x.jsonl").problem == (
        f"{tmp_path}/none: out: no such directory; make it first"
    )
    assert prefloop("sample", tmp_path / "nowhere", data / "prompts.jsonl", "--out", tmp_path / "x.jsonl").problem == (
        f"{tmp_path}/nowhere: model: no such directory; give a model directory or a finished run"
    )
    assert not (tmp_path / "x.jsonl").exists()


def test_respond_refuses_what_does_not_fit(sft_run):
    model, chat = load_policy(sft_run.model)
    prompt = Prompt("p", (Message("user", "name things"),))
    with pytest.raises(InputError, match="exceeds the model's 128 positions"):
        respond(model, chat, [prompt], max_new_tokens=128, temperature=1.0, seed=0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_draw_inverts_the_distribution_by_hand(temperature):
    # p proportional to (1, 2, 1) at temperature 1; squares of it at 0.5, roots at 2.
    weights = torch.tensor([1.0, 2.0, 1.0]) ** (1 / temperature)
    probs = weights / weights.sum()
    logits = torch.tensor([1.0, 2.0, 1.0]).log().repeat(6, 1) + 7
    edge = 1e-4
    cuts = [0.0, float(probs[0]), float(probs[0] + probs[1]), 1.0]
    uniforms = [place for low, high in itertools.pairwise(cuts) for place in (low + edge, high - edge)]
    tokens, logprobs = draw(logits, torch.tensor(uniforms), temperature=temperature)
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2]
    assert logprobs.tolist() == pytest.approx([float(probs[token].log()) for token in tokens], abs=1e-6)


def test_a_draw_never_takes_what_has_no_probability():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).repeat(3, 1)
    tokens, logprobs = draw(logits, torch.tensor([0.0, 0.5, 1.0 - 2**-24]), temperature=1.0)
    assert tokens.tolist() == [1, 1, 1]
    assert logprobs.tolist() == [0.0, 0.0, 0.0]


def test_the_best_of_several_by_hand():
    assert best_of([1.0, 3.0, 2.0, 5.0, 5.0, 0.0], 3) == [1, 3]


def test_best_of_n_raises_the_score_and_writes_it(prefloop, sft_run, data, tmp_path):
    count_e = f"{data / 'rewards.py'}:count_e"
    words = ("sample", sft_run.run, data / "prompts.jsonl", "--max-new-tokens", 8, "--limit", 20, "--num-samples", 2)
    plain = prefloop(*words, "--out", tmp_path / "plain.jsonl")
    best = prefloop(*words, "--out", tmp_path / "best.jsonl", "--best-of", 8, "--reward", count_e)
    assert plain.code == 0 and best.code == 0, best.said
    plain_rows, rows = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("plain.jsonl", "best.jsonl")
    )
    assert len(rows) == len(plain_rows) == 40
    assert [row["prompt_id"] for row in rows] == [row["prompt_id"] for row in plain_rows]
    assert all(row["score"] == row["response"].count("e") and row["best_of"] == 8 for row in rows)
    mean = sum(row["response"].count("e") for row in plain_rows) / 40
    assert best.answer["mean_score"] == sum(row["score"] for row in rows) / 40 > mean + 2


def test_best_of_needs_a_reward_and_some_chance(prefloop, sft_run, data, tmp_path):
    words = ("sample", sft_run.run, data / "prompts.jsonl", "--out", tmp_path / "x.jsonl")
    assert "best_of and reward belong together" in prefloop(*words, "--best-of", 4).problem
    reward = ("--reward", f"{data / 'rewards.py'}:count_e")
    assert "best_of and reward belong together" in prefloop(*words, *reward).problem
    assert "no effect at temperature 0" in prefloop(*words, *reward, "--best-of", 4, "--temperature", 0).problem
    assert prefloop(*words, *reward, "--best-of", 1).problem.startswith("--best-of: is ")
