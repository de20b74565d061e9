"""The language-model head and the softmax after it, for the tokens that were chosen, a block of positions at a time.

A block's logits stay in the cache of a CPU between the product and the softmax. For the backward pass they are kept
while all of them fit into KEPT_BYTES, and computed again block by block above that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from prefloop.models.precision import compute_dtype

BLOCK = 256
"""Positions of one block."""
KEPT_BYTES = 256 * 2**20
"""Largest log-softmax that is kept for the backward pass."""


def blocks(number: int, size: int) -> Iterator[slice]:
    """Slices that cut 0 .. number - 1 into blocks."""
    for start in range(0, number, size):
        yield slice(start, min(start + size, number))


class _ChosenLogprobs(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, temperature: float
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        chosen = torch.empty(len(ids), dtype=wide, device=hidden.device)
        needed = any(ctx.needs_input_grad)
        num_bytes = len(ids) * len(weight) * chosen.element_size()
        kept = chosen.new_empty(len(ids), len(weight)) if needed and num_bytes <= KEPT_BYTES else None
        narrow = weight.to(hidden.dtype)
        for part in blocks(len(ids), BLOCK):
            logprobs = _log_softmax(hidden[part], narrow, bias, temperature)
            chosen[part] = logprobs.gather(1, ids[part, None]).squeeze(1)
            if kept is not None:
                kept[part] = logprobs
        if needed:
            ctx.save_for_backward(hidden, weight, bias, ids, kept)
            ctx.temperature = temperature
        return chosen

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        (grad,), (hidden, weight, bias, ids, kept) = grads, ctx.saved_tensors
        hidden_grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        weight_grad = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        bias_grad = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        narrow = weight.to(hidden.dtype)
        for part in blocks(len(ids), BLOCK):
            logprobs = _log_softmax(hidden[part], narrow, bias, ctx.temperature) if kept is None else kept[part]
            # d log p(chosen) / d logit = (1 at the chosen token) - p, over the temperature.
            scale = grad[part, None] / ctx.temperature
            logits_grad = logprobs.exp().mul_(-scale).scatter_add_(1, ids[part, None], scale).to(hidden.dtype)
            if hidden_grad is not None:
                torch.mm(logits_grad, narrow, out=hidden_grad[part])
            if weight_grad is not None:
                weight_grad += logits_grad.t() @ hidden[part]
            if bias_grad is not None:
                bias_grad += logits_grad.sum(0)
        return hidden_grad, weight_grad, bias_grad, None, None


def _log_softmax(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = F.linear(hidden, weight, None if bias is None else bias.to(hidden.dtype))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1:
        logits /= temperature
    return torch.log_softmax(logits, dim=-1)


def chosen_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """log p(ids[n]) under softmax((weight @ hidden[n] + bias) / temperature), in nats: [N], fp32 or better.

    `hidden` [N, d], `weight` [V, d], `bias` [V] or None, `ids` [N] int64. Differentiable, in the first three.
    """
    hidden = hidden.to(compute_dtype(hidden.device, hidden.dtype))
    logprobs: Tensor = _ChosenLogprobs.apply(hidden, weight, bias, ids, temperature)
    return logprobs
