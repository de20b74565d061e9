"""Low-rank adapters (Hu et al. 2021, eq. 3): a frozen layer W x becomes W x + (alpha / rank) B A x, and A and B learn.

The layers are peft's, put into the transformers model in place: it stays the same object of the same class, so forward
passes and sampling do not know of adapters. There is one adapter a layer and no dropout.

Differences from the paper: all linear layers of the decoder are adapted, not only those of attention (Dettmers et al.
2023 found that needed), and A is uniform in +-1/sqrt(width) as in the paper's code. The scalar head of a reward model
is trained in full and stored with the adapters.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import peft
import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as AdaptedLinear
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from prefloop.config import unknown_name
from prefloop.console import say
from prefloop.models.config import LoraConfig
from prefloop.types import InputError

ADAPTER = "default"
"""peft's name for the one adapter of a model; not part of any file."""
HEAD = "score"
"""The scalar head of reward and value models."""
_PREFIX = "base_model.model."
"""What peft puts before the name of every weight in an adapter file."""


def add_adapters(model: PreTrainedModel, config: LoraConfig, *, base: Path, seed: int) -> None:
    """Freeze the weights of `model` and put fresh adapters beside its decoder's linear layers, in place.

    As B is zero, the model computes exactly what it did before. Afterwards only the adapters (and a scalar head)
    require gradients, so that an optimiser holds nothing else. Adapters are fp32 whatever the weights are.

    Args:
        base: the directory that the weights came from; an adapter directory names it.
        seed: of A; the same seed gives the same adapters on every device.

    Raises:
        InputError: for a name in `target_modules` that no linear layer of the decoder has.
    """
    assert not is_adapted(model)
    linear = _linear_layers(model)
    peft.inject_adapter_in_model(
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=0.0,
            target_modules=sorted(_targets(linear, config)),
            # GPT-2 stores its matrices transposed.
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in linear.values()),
            base_model_name_or_path=str(base.resolve()),
            task_type="SEQ_CLS" if has_head(model) else "CAUSAL_LM",
        ),
        model,
        ADAPTER,
    )
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapted_layers(model):
            down, up = (matrix.float() for matrix in _matrices(layer))
            bound = down.in_features**-0.5
            down.weight.copy_(torch.rand(down.weight.shape, generator=noise) * 2 * bound - bound)
            up.weight.zero_()
    if has_head(model):
        model.get_submodule(HEAD).requires_grad_(True)
    say(_summary(model))


def _linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The decoder's linear layers, by their full names inside it."""
    modules = model.base_model.named_modules()
    return {name: module for name, module in modules if isinstance(module, nn.Linear | Conv1D)}


def _targets(linear: dict[str, nn.Module], config: LoraConfig) -> set[str]:
    """Last parts of the names of the layers that get an adapter."""
    known = {name.rpartition(".")[2] for name in linear}
    for name in config.target_modules:
        if name not in known:
            raise InputError(
                f"the decoder has no linear layer called {name}",
                field="lora.target_modules",
                remedy=unknown_name(name, sorted(known)),
            )
    return set(config.target_modules) or known


def has_head(model: PreTrainedModel) -> bool:
    """Whether the model is a reward or value model."""
    return HEAD in dict(model.named_children())


def _summary(model: PreTrainedModel) -> str:
    counts = {True: 0, False: 0}
    for weight in model.parameters():
        counts[weight.requires_grad] += weight.numel()
    trained, whole = counts[True], counts[True] + counts[False]
    # A gradient and two moments of four bytes each.
    megabytes = [12 * count / 1e6 for count in (trained, whole)]
    return (
        f"LoRA on {type(model).__name__}: {trained:,} of {whole:,} parameters are trained ({trained / whole:.2%}); "
        f"gradients and optimiser take {megabytes[0]:.1f} MB instead of {megabytes[1]:.1f} MB"
    )


def adapted_layers(model: PreTrainedModel) -> list[tuple[str, AdaptedLinear]]:
    """The layers with an adapter and their names, in the order of the model."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, AdaptedLinear)]


def linear_of(module: nn.Module) -> nn.Linear:
    """The linear layer itself, of one that may have an adapter; inside `merged` its weight is the sum."""
    layer = module.get_base_layer() if isinstance(module, AdaptedLinear) else module
    assert isinstance(layer, nn.Linear)
    return layer


def side_by_side(modules: Sequence[nn.Module], x: Tensor) -> tuple[Tensor, ...]:
    """What linear layers give of the same x: one product of their joined weights, where none has an adapter."""
    plain = [module for module in modules if isinstance(module, nn.Linear)]
    if len(plain) < len(modules):
        return tuple(module(x) for module in modules)
    weight = torch.cat([module.weight for module in plain])
    bias = None if plain[0].bias is None else torch.cat([module.bias for module in plain])
    return F.linear(x, weight, bias).split([module.out_features for module in plain], dim=-1)


def _matrices(layer: AdaptedLinear) -> tuple[nn.Linear, nn.Linear]:
    """A and B."""
    down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    assert isinstance(down, nn.Linear) and isinstance(up, nn.Linear)
    return down, up


def is_adapted(model: PreTrainedModel) -> bool:
    """Whether the model has adapters."""
    return any(isinstance(module, AdaptedLinear) for module in model.modules())


@contextlib.contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model computes exactly what its frozen weights alone compute: it is its own reference.

    The head of a reward model is no adapter and stays as it is trained. Must not be used inside `merged`.
    """
    layers = adapted_layers(model)
    assert layers, "a model without adapters would be compared to itself"
    assert not any(layer.merged for _, layer in layers)
    for _, layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for _, layer in layers:
            layer.enable_adapters(True)


@contextlib.contextmanager
def merged(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the adapters are added into the weights, so that a forward costs what it does without adapters.

    Afterwards the frozen weights are the very tensors that they were: they are kept beside the sums (which take the
    memory of the adapted layers once more), since subtracting what was added would not give them back bit for bit.
    Gradients do not reach the adapters inside. A model without adapters is left alone.
    """
    layers = adapted_layers(model)
    assert not any(layer.merged or layer.disable_adapters for _, layer in layers)
    weights = [layer.get_base_layer().get_parameter("weight") for _, layer in layers]
    frozen = [weight.data for weight in weights]
    try:
        for (_, layer), weight in zip(layers, weights, strict=True):
            with torch.no_grad():
                weight.data = (weight.data.float() + layer.get_delta_weight(ADAPTER)).to(weight.dtype)
            layer.merged_adapters.append(ADAPTER)
        yield
    finally:
        for (_, layer), weight, before in zip(layers, weights, frozen, strict=True):
            weight.data = before
            layer.merged_adapters.clear()


@contextlib.contextmanager
def nudged(model: PreTrainedModel, by: float = 0.1) -> Iterator[None]:
    """Inside, `by` is added to every element of every B: whatever the adapters reach shows it."""
    ups = [_matrices(layer)[1].weight for _, layer in adapted_layers(model)]
    before = [up.data for up in ups]
    try:
        for up in ups:
            up.data = up.data + by
        yield
    finally:
        for up, kept in zip(ups, before, strict=True):
            up.data = kept


def plain_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """The state dict with the names it has without adapters, and without their weights. Inside `merged`: the sums."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_A." not in name and ".lora_B." not in name
    }


def base_sha256(model: PreTrainedModel) -> str:
    """sha256 (hex) of the frozen weights: all but adapters and scalar head; the same before and after `add_adapters`.

    For start-up checks: while it stays what it was, `adapters_off` is the model that the run started from.
    """
    assert not any(layer.merged for _, layer in adapted_layers(model))
    digest = hashlib.sha256()
    for name, tensor in sorted(plain_tensors(model).items()):
        if name.partition(".")[0] != HEAD:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def adapter_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """What an adapter file holds, under peft's names: A and B of every adapted layer, and a reward model's head."""
    tensors = {}
    for name, layer in adapted_layers(model):
        for part, matrix in zip(("lora_A", "lora_B"), _matrices(layer), strict=True):
            tensors[f"{_PREFIX}{name}.{part}.weight"] = matrix.weight.detach()
    if has_head(model):
        head = model.get_submodule(HEAD).state_dict(prefix=f"{_PREFIX}{HEAD}.")
        tensors |= {name: tensor.detach() for name, tensor in head.items()}
    return tensors
