"""Scores of responses: from a reward model, or from a function in a user's file.

A score says how good one response to one prompt is; only differences of scores mean anything. Reward models travel as
text: token ids are used again only where policy and reward model share tokenizer and template.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from prefloop.models.batching import collate, micro_batches
from prefloop.models.chat import Chat, Encoded
from prefloop.models.forward import sequence_scores
from prefloop.models.load import load_reward_model
from prefloop.reward.user_code import file_of, is_user_code, load_user_object, user_error
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

    def __init__(self, model: PreTrainedModel, chat: Chat, *, version: str, token_budget: int = 4096) -> None:
        self.model, self.chat, self.version, self.token_budget = model.eval(), chat, version, token_budget

    def encode(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[Encoded]:
        """The tokens that the model sees: a finished response ends with its stop token, as in training."""
        return [
            self.chat.encode_response(prompt.messages, response.text, finished=response.finished)
            for prompt, response in zip(prompts, responses, strict=True)
        ]

    @torch.no_grad()
    def raw_scores(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """Scores as plain transformers gives them."""
        rows = self.encode(prompts, responses)
        scores = [0.0] * len(rows)
        for index in micro_batches([len(row.ids) for row in rows], token_budget=self.token_budget):
            batch = collate([rows[row] for row in index], pad_id=self.chat.pad_id, device=self.model.device)
            for row, score in zip(index, sequence_scores(self.model, batch).tolist(), strict=True):
                scores[row] = score
        return scores

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """Normalised scores. Raises InputError if the model gives one that is no number."""
        mean, std = self.model.config.reward_mean, self.model.config.reward_std
        raw = self.raw_scores(prompts, responses)
        if not all(math.isfinite(score) for score in raw):
            raise InputError(
                "this reward model gives scores that are no numbers", field="reward", remedy="train it again"
            )
        return [(score - mean) / std for score in raw]


class FunctionScorer:
    """A user's function `(prompts, responses, **columns) -> list[float]`, named `file.py:function`.

    `prompts` are the last user turns, `columns` the further columns of the prompt rows (lists, None where missing).
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.function: Callable[..., Any] = load_user_object(spec, field="reward")
        if not callable(self.function):
            raise InputError("is no function", path=spec, field="reward", remedy="name a function of this file")
        self.version = sha256_of(file_of(spec))[:12]
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
        try:
            scores = self.function(texts, [response.text for response in responses], **columns)
        except Exception as error:
            raise user_error(error, file_of(self.spec), field="reward") from error
        if not isinstance(scores, (list, tuple)) or len(scores) != len(responses):
            found = f"{len(scores)} scores" if isinstance(scores, (list, tuple)) else type(scores).__name__
            raise InputError(
                f"returned {found} for {len(responses)} responses",
                path=self.spec,
                field="reward",
                remedy="return a list with one number for each response",
            )
        for prompt, score in zip(prompts, scores, strict=True):
            if not isinstance(score, numbers.Real) or not math.isfinite(score):
                raise InputError(
                    f"returned {score!r} for the prompt {prompt.messages[-1].content[:60]!r}",
                    path=self.spec,
                    field="reward",
                    remedy="return finite numbers",
                )
        return [float(score) for score in scores]


def load_scorer(spec: str, *, device: torch.device, token_budget: int = 4096) -> Scorer:
    """`file.py:function`, or a reward model's directory or run, which scores in batches of `token_budget` tokens."""
    if is_user_code(spec):
        return FunctionScorer(spec)
    directory = resolve_model(spec, "reward")
    model, chat = load_reward_model(directory, device=device)
    return RewardModel(model, chat, version=sha256_of(directory)[:12], token_budget=token_budget)
