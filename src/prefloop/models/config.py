"""Settings of models made from scratch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from prefloop.config import Section

Precision = Literal["fp32", "bf16"]


class ScratchConfig(Section):
    """Shape of a model made from scratch, used when no --model is given."""

    hidden_size: PositiveInt = 128
    """Width of the residual stream."""
    num_layers: PositiveInt = 4
    """Number of transformer layers."""
    num_heads: PositiveInt = 4
    """Attention heads; must divide hidden_size."""
    vocab_size: PositiveInt = Field(2048, le=10**6)
    """Size of the byte-level BPE vocabulary trained on the demonstrations (at least 270)."""
    max_position: PositiveInt = 1024
    """Longest sequence in tokens."""

    @model_validator(mode="after")
    def _check(self) -> ScratchConfig:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be divisible by 2 x num_heads ({self.num_heads})")
        if self.vocab_size < 270:
            raise ValueError(f"vocab_size {self.vocab_size} is below 270: 256 bytes and the special tokens must fit")
        return self


class LoraConfig(Section):
    """Low-rank adapters: the weights stay frozen, and two thin matrices are trained beside each linear layer of the
    decoder. Off unless one of these settings is given. There is no dropout, as in every phase here."""

    rank: PositiveInt = 16
    """Inner width of an adapter."""
    alpha: PositiveInt = 32
    """An adapter's output is scaled by alpha / rank."""
    target_modules: tuple[str, ...] = ()
    """Names of the linear layers that get an adapter, for example q_proj v_proj; empty: all of the decoder's. Head and
    embedding never get one."""
