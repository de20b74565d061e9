"""From logits to log-probabilities of tokens, and back from packed positions to rows.

`N` counts the positions that matter (response tokens), packed in row-major order, so that neither prompts nor padding
pay for the vocabulary; any leading dimensions in its place are as good. The softmax is taken in fp32 whatever the
model computes in (float64 stays float64).
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_softmax(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) over the last dimension, in fp32 or better. Same shape as `logits`.

    The temperature belongs to the policy that sampled: old, new and reference passes must all use the same one.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # Over a large vocabulary a division by 1 costs a tenth of what the softmax does.
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)


def token_logprobs(logits: Tensor, ids: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log p(ids[n]) under softmax(logits[n] / temperature), in nats.

    `logits` [N, V], `ids` [N] int64; answers [N], fp32 or better.
    """
    return log_softmax(logits, temperature=temperature).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def scatter_response(values: Tensor, response_mask: Tensor) -> Tensor:
    """Put packed per-token values back where they came from; the inverse of `x[response_mask]`.

    `values` [N] in row-major order of the True positions of `response_mask` [B, T]; answers [B, T], 0 outside the mask.
    Differentiable with respect to `values`.
    """
    assert values.numel() == int(response_mask.sum()), "one value per True position of the mask"
    return values.new_zeros(response_mask.shape).masked_scatter(response_mask, values)
