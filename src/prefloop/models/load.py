"""Load, make and save policies, reward models and value models as Hugging Face directories (safetensors only)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from prefloop.models.chat import Chat, load_chat
from prefloop.models.config import ScratchConfig
from prefloop.types import InputError

transformers_logging.disable_progress_bar()


def default_device() -> torch.device:
    """The first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _place(model: PreTrainedModel, device: torch.device | None) -> PreTrainedModel:
    nn.Module.to(model, device or default_device())
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the loader's notes on new heads: which weights are new is known and intended here."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _check_directory(directory: Path, field: str) -> None:
    if not (directory / "config.json").exists():
        raise InputError(
            "no config.json: this is no model directory",
            path=directory,
            field=field,
            remedy="give a Hugging Face directory",
        )
    if any(directory.glob("*.safetensors")):
        return
    if any(directory.glob("pytorch_model*.bin")) or any(directory.glob("*.pt")):
        raise InputError(
            "the weights are pickled, and unpickling a file can run code",
            path=directory,
            field=field,
            remedy="convert them where you trust the file: AutoModelForCausalLM.from_pretrained(DIR)"
            ".save_pretrained(NEW_DIR), which writes safetensors",
        )
    raise InputError("no weights (*.safetensors) in this directory", path=directory, field=field)


def _no_dropout(model: PreTrainedModel) -> PreTrainedModel:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for name in ("attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout", "dropout"):
        if isinstance(getattr(model.config, name, None), float):
            setattr(model.config, name, 0.0)
    for module in model.modules():
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]
    return model


def _load(factory: Any, directory: Path, field: str, **settings: Any) -> PreTrainedModel:
    _check_directory(directory, field)
    try:
        with _quiet():
            model = factory.from_pretrained(
                directory, dtype=torch.float32, local_files_only=True, use_safetensors=True, **settings
            )
    except (ValueError, KeyError) as error:
        raise InputError(f"transformers cannot load this model: {error}", path=directory, field=field) from error
    return _no_dropout(model)


def _fit_vocabulary(model: PreTrainedModel, chat: Chat) -> None:
    """Grow the embedding where the tokenizer got a new pad token; never shrink it."""
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    if len(chat.tokenizer) > embedding.num_embeddings:
        model.resize_token_embeddings(len(chat.tokenizer), mean_resizing=False)
    model.config.pad_token_id = chat.pad_id


def load_policy(
    directory: Path, *, field: str = "model", device: torch.device | None = None
) -> tuple[PreTrainedModel, Chat]:
    """A causal language model and its tokenizer, in fp32, dropout off. Raises InputError naming what is missing."""
    _check_directory(directory, field)
    chat = load_chat(directory, field)
    model = _load(AutoModelForCausalLM, directory, field)
    _fit_vocabulary(model, chat)
    return _place(model, device), chat


def is_reward_model(directory: Path) -> bool:
    """Whether the directory holds a sequence classifier."""
    names = AutoConfig.from_pretrained(directory, local_files_only=True).architectures or []
    return any(name.endswith("ForSequenceClassification") for name in names)


def load_reward_model(
    directory: Path, *, field: str = "reward", device: torch.device | None = None
) -> tuple[PreTrainedModel, Chat]:
    """A trained sequence classifier with one label, and its tokenizer. Raises InputError if it is anything else."""
    _check_directory(directory, field)
    if not is_reward_model(directory):
        raise InputError(
            "this is a language model, not a reward model",
            path=directory,
            field=field,
            remedy="train one: prefloop train reward --model DIR --data PAIRS",
        )
    chat = load_chat(directory, field)
    model = _load(AutoModelForSequenceClassification, directory, field)
    if model.config.num_labels != 1:
        raise InputError(
            f"this classifier has {model.config.num_labels} labels; a reward model has one", path=directory, field=field
        )
    _fit_vocabulary(model, chat)
    return _place(model, device), chat


def new_reward_model(
    directory: Path, *, seed: int, field: str = "model", device: torch.device | None = None
) -> tuple[PreTrainedModel, Chat]:
    """A classifier on the trunk of the model in `directory` with a fresh scalar head, N(0, 1/sqrt(d+1)), no bias."""
    _check_directory(directory, field)
    chat = load_chat(directory, field)
    model = _load(AutoModelForSequenceClassification, directory, field, num_labels=1)
    _fit_vocabulary(model, chat)
    head = score_head(model)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=noise) / (head.in_features + 1) ** 0.5)
    model.config.reward_mean, model.config.reward_std = 0.0, 1.0
    return _place(model, device), chat


def score_head(model: PreTrainedModel) -> nn.Linear:
    """The scalar head of a sequence classifier."""
    head = model.get_submodule("score")
    assert isinstance(head, nn.Linear)
    return head


def new_policy(config: ScratchConfig, chat: Chat, *, seed: int, device: torch.device | None = None) -> PreTrainedModel:
    """A Llama-shaped model with random weights."""
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=len(chat.tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.hidden_size * 3,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        max_position_embeddings=config.max_position,
        tie_word_embeddings=True,
        pad_token_id=chat.pad_id,
        bos_token_id=None,
        eos_token_id=chat.tokenizer.eos_token_id,
    )
    return _place(LlamaForCausalLM(shape), device)


def save_model(model: PreTrainedModel, chat: Chat, directory: Path) -> None:
    """Write a Hugging Face directory: safetensors, config, tokenizer and chat template."""
    model.save_pretrained(directory, safe_serialization=True)
    chat.tokenizer.save_pretrained(directory)


def max_positions(model: PreTrainedModel) -> int | None:
    """The longest sequence that the model's positions allow, or None if its config names no limit."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if limit else None
