"""Load, make and save policies, reward models and value models as Hugging Face directories (safetensors only).

An adapter directory is read as its base with the adapters merged in.
"""

from __future__ import annotations

import contextlib
import os
import re
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

from prefloop.models.adapter_files import (
    adapter_settings,
    base_of,
    is_adapter,
    merge_directory,
    read_origin,
    write_adapters,
)
from prefloop.models.chat import Chat, load_chat, unreadable
from prefloop.models.config import ScratchConfig
from prefloop.models.lora import HEAD, is_adapted, merged, plain_tensors
from prefloop.types import InputError

transformers_logging.disable_progress_bar()

HEAD_WEIGHT = f"{HEAD}.weight"


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
    if is_adapter(directory):
        _check_directory(base_of(directory, field), field)
        return
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


def _load_chat(directory: Path, field: str) -> Chat:
    """The tokenizer of a model, or of an adapter: its own if it was saved with one, else that of its base."""
    _check_directory(directory, field)
    while is_adapter(directory) and not (directory / "tokenizer_config.json").exists():
        directory = base_of(directory, field)
    return load_chat(directory, field)


def _load(
    factory: Any, directory: Path, field: str, chat: Chat, *, fresh: str = "", **settings: Any
) -> PreTrainedModel:
    """Load, and refuse a model of which weights other than `fresh` would stay at random values.

    The vocabulary is fitted to `chat` before adapters are merged: some bring the embedding of added tokens.
    """
    if is_adapter(directory):
        if HEAD in (adapter_settings(directory, field).get("modules_to_save") or []):
            fresh, settings = HEAD_WEIGHT, {**settings, "num_labels": 1}
        base = _load(factory, base_of(directory, field), field, chat, fresh=fresh, **settings)
        return _no_dropout(merge_directory(base, directory, field))
    model = _load_whole(factory, directory, field, fresh=fresh, **settings)
    _fit_vocabulary(model, chat)
    return model


def _load_whole(factory: Any, directory: Path, field: str, *, fresh: str, **settings: Any) -> PreTrainedModel:
    try:
        with _quiet():
            model, found = factory.from_pretrained(
                directory,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **settings,
            )
    except Exception as error:
        raise unreadable("transformers cannot load this model", error, directory, field) from error
    misshapen = {entry[0] for entry in found["mismatched_keys"]} - {fresh}
    absent = set(found["missing_keys"]) - {fresh} - misshapen
    for names, problem in ((absent, "missing"), (misshapen, "of another shape than config.json says")):
        if names:
            listed = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise InputError(f"weights are {problem}: {listed}", path=directory, field=field)
    return _no_dropout(model)


def _fit_vocabulary(model: PreTrainedModel, chat: Chat) -> None:
    """Grow the embedding where the tokenizer got a new pad token; never shrink it.

    New rows are the mean of the others, not random: two loads of one directory must be the same model, and the logit of
    a token that nobody trained must not be the largest one.
    """
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    before, size = embedding.num_embeddings, len(chat.tokenizer)
    if size > before:
        model.resize_token_embeddings(size, mean_resizing=False)
        with torch.no_grad():
            for module in (model.get_input_embeddings(), model.get_output_embeddings()):
                for weight in module.parameters() if isinstance(module, nn.Module) else ():
                    weight[before:] = weight[:before].mean(0)
    model.config.pad_token_id = chat.pad_id


def load_policy(
    directory: Path, *, field: str = "model", device: torch.device | None = None
) -> tuple[PreTrainedModel, Chat]:
    """A causal language model and its tokenizer, in fp32, dropout off. Raises InputError naming what is missing."""
    chat = _load_chat(directory, field)
    model = _load(AutoModelForCausalLM, directory, field, chat)
    return _place(model, device), chat


def is_reward_model(directory: Path, field: str) -> bool:
    """Whether the directory holds a sequence classifier, or adapters of one."""
    if is_adapter(directory):
        return adapter_settings(directory, field).get("task_type") == "SEQ_CLS"
    try:
        names = AutoConfig.from_pretrained(directory, local_files_only=True).architectures or []
    except Exception as error:
        raise unreadable("transformers cannot load this config", error, directory, field) from error
    return any(name.endswith("ForSequenceClassification") for name in names)


def load_reward_model(
    directory: Path, *, field: str = "reward", device: torch.device | None = None
) -> tuple[PreTrainedModel, Chat]:
    """A trained sequence classifier with one label, and its tokenizer. Raises InputError if it is anything else."""
    _check_directory(directory, field)
    if not is_reward_model(directory, field):
        raise InputError(
            "this is a language model, not a reward model",
            path=directory,
            field=field,
            remedy="train one: prefloop train reward --model DIR --data PAIRS",
        )
    chat = _load_chat(directory, field)
    model = _load(AutoModelForSequenceClassification, directory, field, chat)
    if model.config.num_labels != 1:
        raise InputError(
            f"this classifier has {model.config.num_labels} labels; a reward model has one", path=directory, field=field
        )
    _check_head(model, directory, field)
    # A model trained elsewhere does not say what its scores are like: they are taken as they come.
    said = read_origin(directory) if is_adapter(directory) else model.config.to_dict()
    model.config.reward_mean = float(said.get("reward_mean", 0.0))
    model.config.reward_std = float(said.get("reward_std", 1.0))
    temperature = said.get("reward_temperature")
    model.config.reward_temperature = None if temperature is None else float(temperature)
    return _place(model, device), chat


def new_reward_model(
    directory: Path, *, seed: int, num_heads: int = 1, field: str = "model", device: torch.device | None = None
) -> tuple[PreTrainedModel, Chat]:
    """A classifier on the trunk of the model in `directory` with fresh scalar heads, N(0, 1/sqrt(d+1)), no bias."""
    chat = _load_chat(directory, field)
    model = _load(AutoModelForSequenceClassification, directory, field, chat, fresh=HEAD_WEIGHT, num_labels=num_heads)
    _check_head(model, directory, field)
    head = score_head(model)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=noise) / (head.in_features + 1) ** 0.5)
    model.config.reward_mean, model.config.reward_std, model.config.reward_temperature = 0.0, 1.0, None
    return _place(model, device), chat


def _check_head(model: PreTrainedModel, directory: Path, field: str) -> None:
    if not isinstance(dict(model.named_children()).get(HEAD), nn.Linear):
        problem = f"a {model.config.model_type} classifier has no linear head called score"
        raise InputError(problem, path=directory, field=field, remedy="take a decoder, for example of the Llama family")


def score_head(model: PreTrainedModel) -> nn.Linear:
    """The scalar head of a sequence classifier."""
    head = model.get_submodule(HEAD)
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


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the errors of Rust writers into OSError: safetensors and tokenizers tell a full disk by their text only."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


def save_model(model: PreTrainedModel, chat: Chat, directory: Path) -> None:
    """Write a Hugging Face directory: safetensors, config, tokenizer and chat template. Adapters are merged in."""
    with disk_errors(directory), merged(model):
        tensors = plain_tensors(model) if is_adapted(model) else None
        model.save_pretrained(directory, state_dict=tensors)
        chat.tokenizer.save_pretrained(directory)


def save_adapters(model: PreTrainedModel, chat: Chat, directory: Path) -> None:
    """Write the adapters alone as a directory that peft reads, with tokenizer and chat template."""
    with disk_errors(directory):
        write_adapters(model, directory)
        chat.tokenizer.save_pretrained(directory)


def max_positions(model: PreTrainedModel) -> int | None:
    """The longest sequence that the model's positions allow, or None if its config names no limit."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if limit else None
