"""A function in a user's file as a scorer."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from prefloop.reward.scorer import Response, finite_scores
from prefloop.reward.user_code import file_of, load_user_object, user_error
from prefloop.rundir import sha256_of
from prefloop.types import InputError, Prompt


class FunctionScorer:
    """A user's function `(prompts, responses, **columns) -> list[float]`, named `file.py:function`.

    `prompts` are the last user turns, `columns` the further columns of the prompt rows (lists, None where missing).
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.function: Callable[..., Any] = load_user_object(spec, field="reward")
        if not callable(self.function):
            raise InputError("is no function", path=spec, field="reward", remedy="name a function of this file")
        name = spec.rpartition(":")[2]
        self.version = hashlib.sha256(f"{sha256_of(file_of(spec))}:{name}".encode()).hexdigest()[:12]
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
        remedy = "return a list with one finite number for each response"
        return finite_scores(scores, prompts, path=self.spec, remedy=remedy)

    def score_with_spread(
        self, prompts: Sequence[Prompt], responses: Sequence[Response]
    ) -> tuple[list[float], list[float] | None]:
        """Scores, and no spread."""
        return self.score(prompts, responses), None
