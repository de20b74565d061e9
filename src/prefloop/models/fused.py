"""The elementwise parts of a decoder layer as one operation each, with the backward pass written out.

On a CPU these parts are bound by memory: fewer passes over the activations are faster, and what the backward pass can
compute again need not be kept. Each gives what the plain torch expression in its docstring gives.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def normed(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`rms_norm` without a backward pass, and 1 / sqrt(mean(x^2) + eps) [..., 1], which is taken in fp32 or better."""
    wide = torch.promote_types(x.dtype, torch.float32)
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide).square_().div_(x.shape[-1])
    scale = scale.add_(eps).rsqrt_().to(x.dtype)
    return (x * scale).mul_(weight), scale


def turn(x: Tensor, cos: Tensor, sin: Tensor, direction: int = 1) -> Tensor:
    """`rotate` without a backward pass; `direction` -1 turns back."""
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-direction)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:], value=direction)
    return out


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        result, scale = normed(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return result.to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (grad,), (x, weight, scale) = grads, ctx.saved_tensors
        scale = scale.to(weight.dtype)
        product = (grad * x).to(weight.dtype)
        weight_grad = None
        if ctx.needs_input_grad[1]:
            weight_grad = torch.mv(product.flatten(0, -2).t(), scale.flatten())
        mean = (product @ weight).unsqueeze(-1).mul_(scale**3 / x.shape[-1])
        return (grad * weight).mul_(scale).addcmul_(x, mean, value=-1), weight_grad, None, None


class _Rotate(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return turn(grads[0], cos, sin, -1), None, None


class _Gated(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,), (gate, up) = grads, ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None) -> Tensor:
    """weight * x / sqrt(mean(x^2) + eps) over the last dimension (Zhang and Sennrich 2019), as `dtype` or that of x."""
    result: Tensor = _Norm.apply(x, weight, eps, dtype or x.dtype)
    return result


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021) on x [..., width], the first half of the width paired with the second.

    `cos` and `sin` [..., width] repeat the angles in both halves and take no gradient.
    """
    rotated: Tensor = _Rotate.apply(x, cos, sin)
    return rotated


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    product: Tensor = _Gated.apply(gate, up)
    return product
