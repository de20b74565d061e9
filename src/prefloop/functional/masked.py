"""Sums, means and whitening over the elements that a mask selects.

A mask is a bool tensor of the shape of what it masks, True = counts. Values where it is False may be anything, NaN and
infinity included: they reach neither a result nor a gradient, because they are replaced before any arithmetic.
Multiplying by the mask would not do: 0 * NaN is NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor


def zero_outside(x: Tensor, mask: Tensor) -> Tensor:
    """`x` where `mask` is True, 0 elsewhere; the gradient is 0 elsewhere too. Same shape as `x`."""
    return torch.where(mask, x, 0)


def masked_sum(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of `x` over the elements where `mask` is True, over everything or along `dim`."""
    return zero_outside(x, mask).sum(dim=dim)


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean of `x` over the elements where `mask` is True, over everything or along `dim`.

    The mean over no element is 0, so that a row without a response adds nothing to a loss.
    """
    return masked_sum(x, mask, dim) / mask.sum(dim=dim).clamp(min=1)


def masked_variance(x: Tensor, mask: Tensor) -> Tensor:
    """Biased variance (divided by n, not n - 1) of all elements where `mask` is True; 0 where there is none. Scalar."""
    return masked_mean((zero_outside(x, mask) - masked_mean(x, mask)).square(), mask)


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Scale the masked elements of the whole batch to variance 1 and, with `shift_mean`, shift them to mean 0.

        (x - mean) / sqrt(variance + eps)        (+ mean if not shift_mean)

    The variance is biased and `eps` stands under the root, as in lm-human-preferences (Ziegler et al. 2019), which
    whitens advantages with `shift_mean` and rewards without. Same shape as `x`, 0 outside the mask.
    """
    mean = masked_mean(x, mask)
    whitened = (zero_outside(x, mask) - mean) * torch.rsqrt(masked_variance(x, mask) + eps)
    return zero_outside(whitened if shift_mean else whitened + mean, mask)
