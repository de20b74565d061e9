"""Scores of responses: from a reward model, or from a function in a user's file.

A score says how good one response to one prompt is; only differences of scores mean anything. Reward models travel as
text: token ids are used again only where policy and reward model share tokenizer and template.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from prefloop.models.batching import collate, micro_batches
from prefloop.models.chat import Chat
from prefloop.models.forward import sequence_scores
from prefloop.models.load import load_reward_model
from prefloop.rundir import resolve_model, sha256_of
from prefloop.types import InputError, Prompt


@dataclass(frozen=True)
class Response:
    """What a policy answered. `finished` is False if the length limit cut it off: then it carries no stop token."""

    text: str
    finished: bool = True


class Scorer(Protocol):
    """Anything that scores responses."""

    version: str
    """Identity of the scorer: recorded with every rollout."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """One finite score for each response."""
        ...


class RewardModel:
    """A sequence classifier as a scorer. Scores are normalised by `reward_mean` and `reward_std` of its config."""

    def __init__(self, model: PreTrainedModel, chat: Chat, *, version: str, token_budget: int = 16384) -> None:
        self.model, self.chat, self.version, self.token_budget = model.eval(), chat, version, token_budget

    @torch.no_grad()
    def raw_scores(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """Scores as plain transformers gives them."""
        rows = [
            self.chat.encode_response(prompt.messages, response.text, finished=response.finished)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        scores = [0.0] * len(rows)
        for index in micro_batches([len(row.ids) for row in rows], token_budget=self.token_budget):
            batch = collate([rows[row] for row in index], pad_id=self.chat.pad_id, device=self.model.device)
            for row, score in zip(index, sequence_scores(self.model, batch).tolist(), strict=True):
                scores[row] = score
        return scores

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """Normalised scores."""
        mean = float(getattr(self.model.config, "reward_mean", 0.0))
        std = float(getattr(self.model.config, "reward_std", 1.0))
        return [(score - mean) / std for score in self.raw_scores(prompts, responses)]


class FunctionScorer:
    """A user's function `(prompts, responses, **columns) -> list[float]`, named `file.py:function`.

    `prompts` are the last user turns, `columns` the further columns of the prompt rows (lists, None where missing).
    """

    def __init__(self, spec: str) -> None:
        path, _, name = spec.rpartition(":")
        self.spec = spec
        self.function = load_object(Path(path), name, field="reward")
        self.version = sha256_of(Path(path))[:12]
        parameters = inspect.signature(self.function).parameters.values()
        self.wants_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        self.wants = {parameter.name for parameter in parameters}

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """Scores of the function, checked: one finite number each."""
        names = {name for prompt in prompts for name in prompt.columns}
        columns = {
            name: [prompt.columns.get(name) for prompt in prompts]
            for name in sorted(names)
            if self.wants_all or name in self.wants
        }
        texts = [prompt.messages[-1].content for prompt in prompts]
        scores = self.function(texts, [response.text for response in responses], **columns)
        if not isinstance(scores, (list, tuple)) or len(scores) != len(responses):
            found = f"{len(scores)} scores" if isinstance(scores, (list, tuple)) else type(scores).__name__
            raise InputError(
                f"returned {found} for {len(responses)} responses",
                path=self.spec,
                field="reward",
                remedy="return a list with one number for each response",
            )
        for prompt, score in zip(prompts, scores, strict=True):
            if not isinstance(score, (int, float)) or not math.isfinite(score):
                raise InputError(
                    f"returned {score!r} for the prompt {prompt.messages[-1].content[:60]!r}",
                    path=self.spec,
                    field="reward",
                    remedy="return finite numbers",
                )
        return [float(score) for score in scores]


def load_object(path: Path, name: str, *, field: str) -> Callable[..., Any]:
    """The object `name` of the Python file `path`. Raises InputError if there is none."""
    if not path.exists():
        raise InputError("no such file", path=path, field=field)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    if name not in vars(module):
        names = ", ".join(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise InputError(f"no {name} in this file (it has: {names})", path=path, field=field)
    found: Callable[..., Any] = vars(module)[name]
    return found


def load_scorer(spec: str, *, device: torch.device) -> Scorer:
    """`file.py:function`, or a reward model's directory or run."""
    if ".py:" in spec:
        return FunctionScorer(spec)
    directory = resolve_model(spec, "reward")
    model, chat = load_reward_model(directory, device=device)
    return RewardModel(model, chat, version=sha256_of(directory / "model.safetensors")[:12])
