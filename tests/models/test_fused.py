"""The fused operations against plain torch: values, and gradients by finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from prefloop.models import head
from prefloop.models.fused import gated, rms_norm, rotate
from prefloop.models.head import chosen_logprobs


def randn(*shape, seed=0, dtype=torch.float64, grad=True):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_(grad)


def angles(number, width):
    half = randn(number, 1, width // 2, seed=9, grad=False)
    both = torch.cat([half, half], dim=-1)
    return both.cos(), both.sin()


def test_rms_norm():
    x, weight = randn(5, 3, 8), randn(8, seed=1)
    torch.testing.assert_close(rms_norm(x, weight, 1e-3), F.rms_norm(x, (8,), weight, 1e-3))
    assert torch.autograd.gradcheck(lambda x, weight: rms_norm(x, weight, 1e-3), (x, weight))
    # A frozen weight, as with adapters.
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, weight.detach(), 1e-3), (x,))


def test_rms_norm_takes_the_mean_square_in_fp32():
    """300 squared is beyond what bf16 tells from 90,112; the sum over 512 of them is far beyond."""
    x = randn(4, 512, dtype=torch.bfloat16, grad=False) * 300
    weight = torch.ones(512, dtype=torch.bfloat16)
    expected = F.rms_norm(x.float(), (512,), None, 1e-6)
    torch.testing.assert_close(rms_norm(x, weight, 1e-6).float(), expected, rtol=0.01, atol=0.01)


def test_a_rotation_turns_pairs_and_keeps_lengths():
    """By hand: (3, 4) turned by a right angle is (-4, 3)."""
    cos, sin = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    torch.testing.assert_close(rotate(torch.tensor([[[3.0, 4.0]]]), cos, sin), torch.tensor([[[-4.0, 3.0]]]))
    x, (cos, sin) = randn(5, 2, 6), angles(5, 6)
    torch.testing.assert_close(rotate(x, cos, sin).norm(dim=-1), x.norm(dim=-1))
    assert torch.autograd.gradcheck(lambda x: rotate(x, cos, sin), (x,))


def test_gated():
    gate, up = randn(4, 6), randn(4, 6, seed=1)
    torch.testing.assert_close(gated(gate, up), gate * torch.sigmoid(gate) * up)
    assert torch.autograd.gradcheck(gated, (gate, up))


@pytest.mark.parametrize("kept", [2**20, 0], ids=["kept", "recomputed"])
@pytest.mark.parametrize("biased", [True, False])
def test_chosen_logprobs(monkeypatch, kept, biased):
    monkeypatch.setattr(head, "KEPT_BYTES", kept)
    monkeypatch.setattr(head, "BLOCK", 3)
    hidden, weight, bias = randn(7, 4), randn(5, 4, seed=1), randn(5, seed=2) if biased else None
    ids = torch.tensor([0, 4, 2, 2, 1, 3, 0])

    def plain(hidden, weight, bias=None):
        return F.log_softmax(F.linear(hidden, weight, bias) / 0.7, dim=-1)[torch.arange(7), ids]

    def ours(hidden, weight, bias=None):
        return chosen_logprobs(hidden, weight, bias, ids, temperature=0.7)

    inputs = (hidden, weight, bias) if biased else (hidden, weight)
    torch.testing.assert_close(ours(*inputs), plain(*inputs))
    assert torch.autograd.gradcheck(ours, inputs)
    assert torch.autograd.gradcheck(lambda hidden: ours(hidden, weight.detach(), bias), (hidden,))


def test_a_long_batch_is_cut_into_blocks(monkeypatch):
    monkeypatch.setattr(head, "KEPT_BYTES", 0)
    hidden, weight = randn(700, 4), randn(5, 4, seed=1)
    ids = torch.arange(700) % 5
    found = chosen_logprobs(hidden, weight, None, ids)
    torch.testing.assert_close(found, F.log_softmax(F.linear(hidden, weight), dim=-1)[torch.arange(700), ids])
    expected = torch.autograd.grad(
        F.log_softmax(F.linear(hidden, weight), dim=-1)[torch.arange(700), ids].sum(), weight
    )
    torch.testing.assert_close(torch.autograd.grad(found.sum(), weight), expected)
