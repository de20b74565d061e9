"""The minimal decoder against transformers, family by family, with random weights."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from prefloop.models.batching import TokenBatch, collate
from prefloop.models.chat import Encoded
from prefloop.models.config import LoraConfig
from prefloop.models.decoder import FAMILIES, InferenceWeights, hidden_at, recomputing, unsupported
from prefloop.models.lora import add_adapters, merged, nudged
from prefloop.models.stream import stream_of
from prefloop.rollout.slots import Slots

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=4)),
    "llama grouped, tied": lambda: LlamaForCausalLM(
        LlamaConfig(**SHAPE, num_key_value_heads=2, tie_word_embeddings=True)
    ),
    "llama with biases": lambda: LlamaForCausalLM(
        LlamaConfig(**SHAPE, num_key_value_heads=1, attention_bias=True, mlp_bias=True)
    ),
    "llama scaled": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2, rope_parameters=LLAMA3)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16)),
}


def made(name):
    torch.manual_seed(3)
    model = MODELS[name]().eval()
    for weight in model.parameters():
        # Biases and norms of a fresh model are 0 and 1: as good as not there.
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, mean=float(weight.detach().mean() > 0.5), std=0.3)
    return model


def batch():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([7, 12, 1, 12, 3])
    ids = torch.randint(2, 97, (5, 12), generator=generator)
    return ids.masked_fill(torch.arange(12) >= lengths[:, None], 0), lengths


def plain(ids, lengths):
    """A batch without answers: nothing to share."""
    return TokenBatch(ids, lengths, torch.zeros_like(ids, dtype=torch.bool))


PROMPTS = [[5, 9, 33, 6], [5, 9, 33, 6], [5, 9, 33, 6], [7], [60, 2, 8], [60, 2, 8], [5, 9, 33, 6]]
ANSWERS = [[4, 4, 4], [11], [4, 90, 12, 13, 14, 15], [8, 8], [3], [3, 71], [21, 22]]


def shared_batch():
    """Runs of three, one, two and one rows with the same prompt."""
    rows = [
        Encoded(prompt + answer, [False] * len(prompt) + [True] * len(answer))
        for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    ]
    return collate(rows, pad_id=0)


def test_every_family_is_tested():
    assert {name.split()[0] for name in MODELS} == set(FAMILIES)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_transformers(name, tmp_path):
    made(name).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert unsupported(model) is None
    ids, lengths = batch()
    real = torch.arange(12) < lengths[:, None]
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=real.long()).logits[real]
        head = model.get_output_embeddings()
        torch.testing.assert_close(head(hidden_at(model, plain(ids, lengths), real)), expected, rtol=0, atol=1e-5)
        some = real & (torch.arange(12) % 3 == 0)
        torch.testing.assert_close(
            head(hidden_at(model, plain(ids, lengths), some)), expected[(some[real])], rtol=0, atol=1e-5
        )
        # No padding at all takes the shorter way.
        whole = torch.ones(2, 12, dtype=torch.bool)
        torch.testing.assert_close(
            head(hidden_at(model, plain(ids[[1, 3]], lengths[[1, 3]]), whole)),
            model(input_ids=ids[[1, 3]]).logits[whole],
            rtol=0,
            atol=1e-5,
        )


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_transformers(name):
    model = made(name)
    ids, lengths = batch()
    real = torch.arange(12) < lengths[:, None]
    weights = torch.randn(int(real.sum()), 97, generator=torch.Generator().manual_seed(1))

    def gradients(logits):
        model.zero_grad()
        (logits * weights).sum().backward()
        return {key: weight.grad.clone() for key, weight in model.named_parameters()}

    expected = gradients(model(input_ids=ids, attention_mask=real.long()).logits[real])
    found = gradients(model.get_output_embeddings()(hidden_at(model, plain(ids, lengths), real)))
    for key, gradient in expected.items():
        assert (found[key] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6, key


@pytest.mark.parametrize("name", MODELS)
def test_shared_prompts_are_run_once_and_change_nothing(name):
    model, rows = made(name), shared_batch()
    real = torch.arange(rows.input_ids.shape[1]) < rows.lengths[:, None]
    predicts = torch.cat([rows.response_mask[:, 1:], torch.zeros(len(PROMPTS), 1, dtype=torch.bool)], dim=1)
    last = torch.arange(rows.input_ids.shape[1]) == rows.lengths[:, None] - 1
    stream = stream_of(rows.input_ids, rows.lengths, rows.prompt_lengths)
    assert len(stream.ids) == sum(map(len, ANSWERS)) + sum(map(len, [PROMPTS[row] for row in (0, 3, 4, 6)]))

    def gradients(hidden):
        model.zero_grad()
        (hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
        return {key: weight.grad.clone() for key, weight in model.named_parameters() if weight.grad is not None}

    for where in (predicts, last, real):
        hidden = model.base_model(input_ids=rows.input_ids, attention_mask=real.long()).last_hidden_state[where]
        found = hidden_at(model, rows, where)
        torch.testing.assert_close(found, hidden, rtol=0, atol=1e-5)
        expected = gradients(hidden)
        for key, gradient in gradients(found).items():
            assert (expected[key] - gradient).norm() <= 1e-5 * expected[key].norm() + 1e-6, key


def test_activations_that_are_computed_again_give_the_same_gradients_with_less_memory():
    model, rows = made("qwen3"), shared_batch()
    where = torch.arange(rows.input_ids.shape[1]) == rows.lengths[:, None] - 1

    def run(active):
        model.zero_grad()
        kept = []
        with recomputing(active), torch.autograd.graph.saved_tensors_hooks(kept.append, lambda x: x):
            hidden = hidden_at(model, rows, where)
        return hidden, sum(x.numel() for x in kept)

    def gradients(active):
        with recomputing(active):
            hidden_at(model, rows, where).square().sum().backward()
        return {key: weight.grad.clone() for key, weight in model.named_parameters() if weight.grad is not None}

    assert 2 * run(True)[1] < run(False)[1]
    torch.testing.assert_close(run(True)[0], run(False)[0], rtol=0, atol=0)
    model.zero_grad()
    plain_gradients = gradients(False)
    model.zero_grad()
    torch.testing.assert_close(gradients(True), plain_gradients, rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_the_slots_step_by_step_are_transformers(name):
    """Prompts in, tokens fed one by one, with slots that end and are filled again in between."""
    model = made(name)
    prompts = [[5, 9, 33], [7], [60, 2, 8, 8, 71], [4, 4]]
    fed = {request: [10 + request, 20 + request, 30 + request, 40 + request] for request in range(4)}

    def expected(request, number):
        ids = torch.tensor([prompts[request] + fed[request][:number]])
        return model(input_ids=ids).logits[0, -1]

    with torch.no_grad():
        slots = Slots(InferenceWeights(model), num_slots=3, capacity=16)
        layers, hidden = slots.prefill(prompts[:3])
        slots.take([0, 1, 2], [len(prompt) for prompt in prompts[:3]], layers, torch.arange(3))
        logits = slots.weights.logits(hidden)
        for request in range(3):
            torch.testing.assert_close(logits[request], expected(request, 0), rtol=0, atol=1e-5)
        counts = dict.fromkeys(range(4), 0)
        for step in range(4):
            active = slots.requests[: slots.num_active].tolist()
            slots.next_ids[: slots.num_active] = torch.tensor([fed[request][counts[request]] for request in active])
            logits = slots.weights.logits(slots.step(slots.num_active, int(slots.lengths.max()) + 1))
            for row, request in enumerate(active):
                counts[request] += 1
                torch.testing.assert_close(logits[row], expected(request, counts[request]), rtol=0, atol=1e-5)
            if step == 1:
                slots.release([active.index(0)])
                layers, hidden = slots.prefill([prompts[3]])
                slots.take([3], [2], layers, torch.tensor([0]))
                logits = slots.weights.logits(hidden)
                torch.testing.assert_close(logits[0], expected(3, 0), rtol=0, atol=1e-5)
    assert counts == {0: 2, 1: 4, 2: 4, 3: 2}


def test_adapters_are_in_both(tmp_path):
    model = made("llama")
    add_adapters(model, LoraConfig(rank=2), base=tmp_path, seed=0)
    ids, lengths = batch()
    real = torch.arange(12) < lengths[:, None]
    with torch.no_grad():
        before = hidden_at(model, plain(ids, lengths), real)
        with nudged(model):
            after = hidden_at(model, plain(ids, lengths), real)
            expected = model.base_model(input_ids=ids, attention_mask=real.long()).last_hidden_state[real]
            # Nudged weights are large: transformers' own fp32 error here is 4e-5.
            torch.testing.assert_close(after, expected, rtol=0, atol=2e-4)
            with merged(model):
                slots = Slots(InferenceWeights(model), num_slots=1, capacity=16)
                logits = slots.weights.logits(slots.prefill([ids[1].tolist()])[1])[0]
            expected = model.get_output_embeddings()(after)[int(lengths[:2].sum()) - 1]
            torch.testing.assert_close(logits, expected, rtol=0, atol=2e-4)
    assert (after - before).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=1, n_head=2)), "decoder for gpt2"),
        (lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, hidden_act="gelu")), "its activation is gelu"),
        (
            lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, use_sliding_window=True, max_window_layers=1)),
            "it has sliding windows",
        ),
        (
            lambda: LlamaForCausalLM(
                LlamaConfig(**SHAPE, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
            ),
            "its rotary scaling is dynamic",
        ),
    ],
)
def test_what_it_does_not_serve_it_says(model, reason):
    assert reason in unsupported(model())
