"""bf16 passes against fp32 ones: the same up to the rounding of bf16, with gradients for the fp32 weights."""

from __future__ import annotations

import pytest
import torch

from prefloop.models.batching import TokenBatch
from prefloop.models.chat import train_chat
from prefloop.models.config import ScratchConfig
from prefloop.models.forward import response_logprobs, sequence_scores
from prefloop.models.load import new_policy, new_reward_model, save_model
from prefloop.models.precision import bf16_over_fp32, compute_dtype, computing_in, full_precision, store_in
from prefloop.rollout.engine import keeps_hidden, sample

CPU = torch.device("cpu")


@pytest.fixture
def chat():
    return train_chat(["the harbour museum opens at nine and closes at five."] * 20, vocab_size=330)


@pytest.fixture
def policy(chat):
    shape = ScratchConfig(hidden_size=32, num_layers=2, num_heads=2, vocab_size=330)
    return new_policy(shape, chat, seed=0, device=CPU)


@pytest.fixture
def reward_model(policy, chat, tmp_path):
    save_model(policy, chat, tmp_path)
    return new_reward_model(tmp_path, seed=0, device=CPU)[0]


@pytest.fixture
def rows(policy):
    ids = torch.randint(3, policy.config.vocab_size, (6, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(6, 20, dtype=torch.bool)
    mask[:, 8:] = True
    ids[:3, :8] = ids[0, :8]
    return TokenBatch(ids, torch.full((6,), 20), mask)


def gradients(model, rows):
    model.zero_grad()
    loss = response_logprobs(model, rows).sum() / rows.response_mask.sum()
    loss.backward()
    assert all(weight.grad.dtype == torch.float32 for weight in model.parameters())
    return loss.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


def test_the_context_says_what_is_computed_in():
    assert compute_dtype(CPU) == torch.float32
    with computing_in("bf16", CPU):
        assert compute_dtype(CPU) == torch.bfloat16
        with full_precision(CPU):
            assert compute_dtype(CPU) == torch.float32
    with computing_in("fp32", CPU):
        assert compute_dtype(CPU) == torch.float32


def test_loss_and_gradient(policy, rows):
    loss, gradient = gradients(policy, rows)
    with computing_in("bf16", CPU):
        # A pass without gradients first, as in a round: its cached weights must not serve the training pass.
        with torch.no_grad():
            response_logprobs(policy, rows)
        half_loss, half_gradient = gradients(policy, rows)
    assert 0 < abs(half_loss - loss) < 0.02
    assert torch.nn.functional.cosine_similarity(gradient, half_gradient, dim=0) > 0.999


def test_what_is_stored_in_bf16_computes_the_same(policy, rows):
    with computing_in("bf16", CPU), torch.no_grad():
        before = response_logprobs(policy, rows)
        store_in("bf16", policy)
        torch.testing.assert_close(response_logprobs(policy, rows), before, rtol=0, atol=0)
    kinds = {weight.dtype for name, weight in policy.named_parameters() if "proj" in name}
    assert kinds == {torch.bfloat16} and policy.get_output_embeddings().weight.dtype == torch.float32


def test_scores_come_out_of_a_head_in_fp32(reward_model, rows):
    with computing_in("bf16", CPU), torch.no_grad():
        assert sequence_scores(reward_model, rows).dtype == torch.float32


def test_the_sampler_draws_from_nearly_the_same_distribution(policy, rows):
    """Its logprobs are those of a bf16 pass over the rows, up to rounding; and the trainer runs that pass itself."""
    assert keeps_hidden(policy, 100)
    with computing_in("bf16", CPU), torch.no_grad():
        assert not keeps_hidden(policy, 100)
        prompts = rows.input_ids[:, :8].tolist()
        drawn = sample(policy, prompts, max_new_tokens=12, temperature=1.0, stop_ids=[1], pad_id=0, seed=0)
        for prompt, row in zip(prompts, drawn, strict=True):
            ids = torch.tensor([prompt + row.ids])
            mask = torch.arange(ids.shape[1])[None] >= 8
            whole = response_logprobs(policy, TokenBatch(ids, torch.tensor([ids.shape[1]]), mask))[mask]
            gap = (whole - torch.tensor(row.logprobs)).abs()
            assert gap.mean() < 0.03


def test_what_bf16_costs_is_measured_without_random_numbers():
    before = torch.get_rng_state()
    assert 0 < bf16_over_fp32(CPU) < 10_000
    assert torch.equal(torch.get_rng_state(), before)
