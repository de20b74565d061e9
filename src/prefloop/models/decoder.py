"""A minimal decoder for the shapes of FAMILIES: the weights of a transformers model, with less work around them.

`hidden_at` is the training forward. Linear layers run on the stream of real tokens only, attention on padded rows, so a
row's padding costs next to nothing; every weight stays where transformers has it, and adapters beside layers work.
`InferenceWeights` is a copy for sampling, with joined matrices and no gradient; it is made anew for each round.

Left out: sliding windows, rotary scalings that depend on the length, dropout. Models that need them take transformers'
own forward (`unsupported` says why).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from prefloop.models.batching import TokenBatch
from prefloop.models.fused import gated, normed, rms_norm, rotate, turn
from prefloop.models.lora import linear_of, side_by_side
from prefloop.models.precision import compute_dtype
from prefloop.models.stream import Span, Stream, stream_of


@dataclass(frozen=True)
class Family:
    """What sets a family apart. All have RMSNorm before each block, rotary positions, and a gated MLP with SiLU."""

    norms_heads: bool
    """Whether queries and keys are normalised head by head before they are rotated."""


FAMILIES: Mapping[str, Family] = {
    "llama": Family(norms_heads=False),
    "qwen2": Family(norms_heads=False),
    "qwen3": Family(norms_heads=True),
}
"""By `model_type`. Biases, tied embeddings and grouped queries are read off the model itself."""

FIXED_ROTATIONS = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary scaling whose frequencies do not depend on the length of a row."""


def unsupported(model: PreTrainedModel) -> str | None:
    """Why the minimal decoder does not serve a model, or None if it does."""
    config: Any = model.config
    if config.model_type not in FAMILIES:
        return f"there is no minimal decoder for {config.model_type}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        return "it has sliding windows"
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return None if kind in FIXED_ROTATIONS else f"its rotary scaling is {kind}"


@dataclass(frozen=True)
class Shape:
    """Numbers that every pass needs."""

    num_heads: int
    num_kv_heads: int
    head_width: int
    eps: float

    @classmethod
    def of(cls, model: PreTrainedModel) -> Shape:
        """The shape of a supported model."""
        config: Any = model.config
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(config.num_attention_heads, config.num_key_value_heads, width, config.rms_norm_eps)


def _layers(model: PreTrainedModel) -> list[Any]:
    return list(model.base_model.get_submodule("layers"))  # type: ignore[call-overload]


def rotations(model: PreTrainedModel, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles at `positions` [N], each [N, head_width]."""
    rotary: Any = model.base_model.get_submodule("rotary_emb")
    angles = positions[:, None].float() * rotary.inv_freq.float()
    angles = torch.cat([angles, angles], dim=-1)
    return (angles.cos() * rotary.attention_scaling).to(dtype), (angles.sin() * rotary.attention_scaling).to(dtype)


_recomputes: ContextVar[bool] = ContextVar("_recomputes", default=False)


@contextlib.contextmanager
def recomputing(active: bool) -> Iterator[None]:
    """A context in which `hidden_at` keeps each layer's input only, and the backward pass runs the layer once more."""
    token = _recomputes.set(active)
    try:
        yield
    finally:
        _recomputes.reset(token)


@dataclass(frozen=True, eq=False)
class _Pass:
    """What the layers of one training pass share."""

    shape: Shape
    norms_heads: bool
    stream: Stream
    cos: Tensor
    sin: Tensor
    dtype: torch.dtype
    """What linear layers compute in."""

    def inner(self, layer: Any, x: Tensor) -> Tensor:
        """A layer at every position of the stream: [N, d] to [N, d]."""
        h, attention = self._normed(layer.input_layernorm, x), layer.self_attn
        q, k, v = side_by_side((attention.q_proj, attention.k_proj, attention.v_proj), h)
        q, k = self._queries(layer, q, self.cos, self.sin), self._keys(layer, k)
        return self._after_attention(layer, x, self.stream.attend(q, k, self._heads(v)))

    def last(self, layer: Any, x: Tensor, places: Tensor, span: Span) -> Tensor:
        """The last layer at the positions `places` [M] only, whose queries `span` describes: [N, d] to [M, d]."""
        h, attention = self._normed(layer.input_layernorm, x), layer.self_attn
        k, v = side_by_side((attention.k_proj, attention.v_proj), h)
        q = self._queries(layer, attention.q_proj(h[places]), self.cos[places], self.sin[places])
        return self._after_attention(layer, x[places], span.attend(q, self._keys(layer, k), self._heads(v)))

    def _normed(self, norm: nn.Module, x: Tensor) -> Tensor:
        return rms_norm(x, norm.get_parameter("weight"), self.shape.eps, self.dtype)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.shape.head_width))

    def _queries(self, layer: Any, q: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q = self._heads(q)
        return rotate(self._normed_heads(layer.self_attn.q_norm, q) if self.norms_heads else q, cos, sin)

    def _keys(self, layer: Any, k: Tensor) -> Tensor:
        k = self._heads(k)
        return rotate(self._normed_heads(layer.self_attn.k_norm, k) if self.norms_heads else k, self.cos, self.sin)

    def _normed_heads(self, norm: nn.Module, x: Tensor) -> Tensor:
        return rms_norm(x, norm.get_parameter("weight"), self.shape.eps)

    def _after_attention(self, layer: Any, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + layer.self_attn.o_proj(mixed)
        h = self._normed(layer.post_attention_layernorm, x)
        y: Tensor = x + layer.mlp.down_proj(gated(layer.mlp.gate_proj(h), layer.mlp.up_proj(h)))
        return y


def hidden_at(model: PreTrainedModel, batch: TokenBatch, where: Tensor) -> Tensor:
    """[M, d] last hidden states at the M True positions of `where` [B, T], in row-major order. Differentiable.

    `where` is True at real tokens only. The last layer runs at these positions only (its keys and values at all).
    """
    shape, family = Shape.of(model), FAMILIES[model.config.model_type]
    stream = stream_of(batch.input_ids, batch.lengths, batch.prompt_lengths)
    x: Tensor = model.get_input_embeddings()(stream.ids)
    dtype = compute_dtype(x.device, x.dtype)
    cos, sin = (part.unsqueeze(1) for part in rotations(model, stream.positions, dtype))
    run = _Pass(shape, family.norms_heads, stream, cos, sin, dtype)
    recomputes = _recomputes.get() and torch.is_grad_enabled()
    *inner, last = _layers(model)
    for layer in inner:
        x = checkpoint(run.inner, layer, x, use_reentrant=False) if recomputes else run.inner(layer, x)
    places, span = stream.only(where, batch.lengths)
    x = run.last(last, x, places, span)
    return rms_norm(x, model.base_model.get_submodule("norm").get_parameter("weight"), shape.eps, dtype)


@dataclass(frozen=True, eq=False)
class _Layer:
    """Weights of one layer, joined where the input is the same, as [in, out]: the faster way round for few rows."""

    norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    gate_up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


def _joined(modules: list[nn.Linear], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    weight = torch.cat([module.weight.detach() for module in modules]).to(dtype).t().contiguous()
    biases = [module.bias for module in modules]
    return weight, None if biases[0] is None else torch.cat([bias.detach() for bias in biases]).to(dtype)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight if bias is None else x @ weight + bias


class InferenceWeights:
    """A supported model's weights as sampling wants them: joined, without gradients, in one precision.

    Of a model with adapters it is made inside `lora.merged`.
    """

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype = torch.float32) -> None:
        self.shape, self.family = Shape.of(model), FAMILIES[model.config.model_type]
        self.dtype, self.device = dtype, model.device
        self.embedding = model.get_input_embeddings().get_parameter("weight").detach().to(dtype)
        self.norm = model.base_model.get_submodule("norm").get_parameter("weight").detach().to(dtype)
        head = linear_of(model.get_output_embeddings())
        self.head, self.head_bias = _joined([head], dtype)
        self.layers = [self._layer(layer) for layer in _layers(model)]
        self._model = model

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp, dtype = layer.self_attn, layer.mlp, self.dtype
        qkv = _joined([linear_of(attention.q_proj), linear_of(attention.k_proj), linear_of(attention.v_proj)], dtype)
        gate_up = _joined([linear_of(mlp.gate_proj), linear_of(mlp.up_proj)], dtype)
        norms = self.family.norms_heads
        return _Layer(
            layer.input_layernorm.weight.detach().to(dtype),
            *qkv,
            attention.q_norm.weight.detach().to(dtype) if norms else None,
            attention.k_norm.weight.detach().to(dtype) if norms else None,
            *_joined([linear_of(attention.o_proj)], dtype),
            layer.post_attention_layernorm.weight.detach().to(dtype),
            *gate_up,
            *_joined([linear_of(mlp.down_proj)], dtype),
        )

    def rotations(self, num_positions: int) -> tuple[Tensor, Tensor]:
        """cos and sin for positions 0 .. num_positions - 1, each [num_positions, head_width]."""
        return rotations(self._model, torch.arange(num_positions, device=self.device), self.dtype)

    def qkv(self, layer: _Layer, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Of the stream x [..., d]: rotated queries [..., heads, width], and what goes into the cache: rotated keys,
        then values, [..., 2 x kv_heads, width]."""
        shape, turned = self.shape, self.shape.num_heads + self.shape.num_kv_heads
        h = normed(x, layer.norm, shape.eps)[0]
        joined = _product(h, layer.qkv, layer.qkv_bias).unflatten(-1, (-1, shape.head_width))
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = joined[..., : shape.num_heads, :], joined[..., shape.num_heads : turned, :]
            q.copy_(normed(q, layer.q_norm, shape.eps)[0])
            k.copy_(normed(k, layer.k_norm, shape.eps)[0])
        joined[..., :turned, :] = turn(joined[..., :turned, :], cos, sin)
        return joined[..., : shape.num_heads, :], joined[..., shape.num_heads :, :]

    def after_attention(self, layer: _Layer, x: Tensor, mixed: Tensor) -> Tensor:
        """The rest of the layer: x, mixed [..., d or heads x width] to the next layer's x."""
        x = x + _product(mixed, layer.out, layer.out_bias)
        h = _product(normed(x, layer.mlp_norm, self.shape.eps)[0], layer.gate_up, layer.gate_up_bias)
        gate, up = h.chunk(2, dim=-1)
        return x + _product(F.silu(gate).mul_(up), layer.down, layer.down_bias)

    def last_hidden(self, x: Tensor) -> Tensor:
        """[N, d] what the head sees, of the last layer's x [N, d]."""
        return normed(x, self.norm, self.shape.eps)[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, V] fp32 logits of `last_hidden` [N, d]."""
        return _product(hidden, self.head, self.head_bias).float()
