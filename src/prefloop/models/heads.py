"""Several scalar heads of a reward model made one: a sum of linear heads is a linear head."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from prefloop.models.load import score_head
from prefloop.models.lora import HEAD


def join_heads(model: PreTrainedModel, weights: Sequence[float]) -> None:
    """Make one head of several, in place: sum_k weights_k h_k, which is the same sum of their scores."""
    heads = score_head(model)
    assert len(weights) == heads.out_features, (len(weights), heads.out_features)
    joined = nn.Linear(heads.in_features, 1, bias=False).to(heads.weight)
    with torch.no_grad():
        joined.weight.copy_(torch.tensor(weights).to(heads.weight) @ heads.weight)
    setattr(model, HEAD, joined)
    model.config.num_labels = 1


@contextlib.contextmanager
def joined_heads(model: PreTrainedModel, weights: Sequence[float]) -> Iterator[None]:
    """Inside, the model has the one head that `join_heads` makes; afterwards its own ones again."""
    heads = score_head(model)
    join_heads(model, weights)
    try:
        yield
    finally:
        setattr(model, HEAD, heads)
        model.config.num_labels = heads.out_features
