"""The sampler: inverse CDF by hand, exact log-probabilities, independence of slots and order, and the fallback."""

from __future__ import annotations

import math
import random

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from prefloop.rollout import engine, steps
from prefloop.rollout.draw import BLOCK, draw
from prefloop.rollout.engine import sample

STOPS = (1, 2)


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    # Logits far enough apart that tokens differ from row to row.
    torch.nn.init.normal_(model.get_output_embeddings().weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=2, n_positions=64)).eval()


def prompts(number, seed=0):
    generator = random.Random(seed)
    distinct = [[generator.randrange(3, 40) for _ in range(generator.randint(1, 9))] for _ in range(number // 3)]
    return [generator.choice(distinct) for _ in range(number)]


def run(model, asked, **settings):
    given = {"max_new_tokens": 12, "temperature": 1.0, "stop_ids": STOPS, "pad_id": 0, "seed": 5, "batch_size": 8}
    return sample(model, asked, **{**given, **settings})


def test_a_draw_is_the_first_word_whose_cumulative_probability_exceeds_the_uniform():
    probabilities = torch.tensor([[0.1, 0.2, 0.0, 0.7]])
    for uniform, word in ((0.0, 0), (0.099, 0), (0.101, 1), (0.299, 1), (0.301, 3), (0.999999, 3)):
        token, logprob = draw(probabilities.log(), torch.tensor([uniform]), temperature=1.0)
        assert token.tolist() == [word]
        assert logprob.item() == pytest.approx(math.log(probabilities[0, word]))


def test_temperature_divides_the_logits():
    logits = torch.tensor([[1.0, 3.0]])
    token, logprob = draw(logits, torch.tensor([0.9]), temperature=2.0)
    assert token.tolist() == [1]
    assert logprob.item() == pytest.approx(1.5 - math.log(math.exp(0.5) + math.exp(1.5)))
    token, logprob = draw(logits, torch.tensor([0.0]), temperature=0)
    assert token.tolist() == [1] and logprob.item() == pytest.approx(3 - math.log(math.exp(1) + math.exp(3)))


@pytest.mark.parametrize("vocabulary", [3, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
def test_draws_follow_the_distribution_across_blocks(vocabulary):
    logits = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(0)) * 2
    number = 40_000
    uniforms = (torch.arange(number) + 0.5) / number
    tokens, logprobs = draw(logits.expand(number, -1), uniforms, temperature=1.0)
    # Evenly spaced uniforms: every word's share is its probability, to one part in the number.
    shares = torch.bincount(tokens, minlength=vocabulary) / number
    expected = torch.softmax(logits[0], -1)
    assert (shares - expected).abs().max() <= 1.5 / number + 1e-6
    torch.testing.assert_close(logprobs, torch.log_softmax(logits[0], -1)[tokens], rtol=0, atol=1e-5)
    assert tokens.diff().min() >= 0


def test_words_that_cannot_occur_are_never_drawn():
    logits = torch.full((1, 3 * BLOCK), -math.inf)
    logits[0, 200] = 0.0
    for uniform in (0.0, 0.5, 1 - 2**-24):
        token, logprob = draw(logits, torch.tensor([uniform]), temperature=1.0)
        assert token.tolist() == [200] and logprob.item() == 0


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_the_teacher_forced_ones(llama, temperature):
    """With refill and compaction: two slots in use for thirty requests. A slot that saw another's cache would show."""
    asked = prompts(30)
    sampled = run(llama, asked, temperature=temperature, batch_size=4)
    assert {row.finish_reason for row in sampled} == {"stop", "length"}
    for prompt, row in zip(asked, sampled, strict=True):
        ids = torch.tensor([list(prompt) + row.ids])
        with torch.no_grad():
            logits = llama(input_ids=ids).logits[0, len(prompt) - 1 : -1] / temperature
        expected = torch.log_softmax(logits, -1)[torch.arange(len(row.ids)), row.ids]
        torch.testing.assert_close(torch.tensor(row.logprobs), expected, rtol=0, atol=1e-5)
        ends = [place for place, token in enumerate(row.ids) if token in STOPS]
        assert ends == ([len(row.ids) - 1] if row.finish_reason == "stop" else [])
        assert row.finish_reason == "stop" or len(row.ids) == 12


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_what_is_said_depends_on_no_batch_and_no_order(llama, batch_size):
    asked = prompts(24, seed=1)
    expected = run(llama, asked, batch_size=24)
    assert [row.ids for row in run(llama, asked, batch_size=batch_size)] == [row.ids for row in expected]


def test_both_ways_of_sampling_say_the_same(llama, monkeypatch, capsys):
    asked = prompts(20, seed=2)
    fast = run(llama, asked)
    monkeypatch.setattr(engine, "unsupported", lambda model: "a reason of the test")
    slow = run(llama, asked)
    run(llama, asked)
    assert [row.ids for row in fast] == [row.ids for row in slow]
    for row, other in zip(fast, slow, strict=True):
        assert row.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert row.finish_reason == other.finish_reason
    said = capsys.readouterr().err
    assert said.count("sampling with the transformers forward, which is slower: a reason of the test") == 1


def test_another_architecture_is_sampled_all_the_same(gpt2):
    asked = prompts(12, seed=3)
    for row, prompt in zip(run(gpt2, asked), asked, strict=True):
        with torch.no_grad():
            logits = gpt2(input_ids=torch.tensor([list(prompt) + row.ids])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits, -1)[torch.arange(len(row.ids)), row.ids]
        torch.testing.assert_close(torch.tensor(row.logprobs), expected, rtol=0, atol=1e-5)


def test_equal_prompts_are_run_once(llama, monkeypatch):
    seen = []
    prefill = engine.Slots.prefill
    monkeypatch.setattr(
        engine.Slots, "prefill", lambda self, asked: seen.extend(map(tuple, asked)) or prefill(self, asked)
    )
    asked = [[5, 6, 7], [8, 9]] * 10
    run(llama, asked, batch_size=20)
    assert sorted(seen) == [(5, 6, 7), (8, 9)]


@pytest.mark.parametrize("batch_size", [2, 5, 64])
def test_several_steps_between_two_looks_say_the_same(llama, monkeypatch, batch_size):
    """As on a GPU: sizes rounded up, ended slots run idle for a while. (The recording itself needs a GPU.)"""
    asked = prompts(40)
    expected = run(llama, asked, batch_size=batch_size, keep_hidden=True)
    assert len({len(row.ids) for row in expected}) > 4
    monkeypatch.setattr(steps, "LENGTH_BUCKET", 4)
    monkeypatch.setattr(engine, "Stepper", lambda slots, written, on_gpu: steps.Stepper(slots, written, on_gpu=True))
    found = run(llama, asked, batch_size=batch_size, keep_hidden=True)
    assert [row.ids for row in found] == [row.ids for row in expected]
    assert [row.finish_reason for row in found] == [row.finish_reason for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.tensor(ours.logprobs), torch.tensor(theirs.logprobs), rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.hidden, theirs.hidden, rtol=0, atol=1e-5)


def test_sizes_are_rounded_up_within_what_there_is():
    assert steps.bucket(5, 130, 100, 1000) == (8, 256)
    assert steps.bucket(8, 128, 100, 1000) == (8, 128)
    assert steps.bucket(70, 990, 100, 1000) == (100, 1000)
    assert steps.bucket(1, 1, 100, 1000) == (1, 128)


def test_hidden_states_are_what_the_head_saw(llama):
    asked = prompts(6)
    for prompt, row in zip(asked, run(llama, asked, keep_hidden=True), strict=True):
        whole = llama.model(input_ids=torch.tensor([prompt + row.ids])).last_hidden_state[0]
        torch.testing.assert_close(row.hidden, whole[len(prompt) - 1 : -1].detach(), rtol=0, atol=1e-5)
