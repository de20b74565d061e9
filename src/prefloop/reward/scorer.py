"""What a scorer is, and the check that every scorer's answer passes.

A score says how good one response to one prompt is; only differences of scores mean anything. Scorers get text, never
token ids: policy and reward model need not share a tokenizer.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from prefloop.types import InputError, Prompt


@dataclass(frozen=True)
class Response:
    """What a policy answered. `finished` is False if the length limit cut it off: then it carries no stop token."""

    text: str
    finished: bool = True


class Scorer(Protocol):
    """Anything that scores responses."""

    version: str
    """Identity of the scorer with all its parts: recorded with every rollout."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """One finite score for each response."""
        ...

    def score_with_spread(
        self, prompts: Sequence[Prompt], responses: Sequence[Response]
    ) -> tuple[list[float], list[float] | None]:
        """Scores as `score` gives them, and the standard deviation over an ensemble's members; None without one."""
        ...


def finite_scores(
    values: Any,
    prompts: Sequence[Prompt],
    *,
    path: str | Path | None,
    remedy: str,
    what: str = "scores",
    field: str = "reward",
) -> list[float]:
    """`values` as floats, if they are one finite number for each prompt.

    Raises InputError with `path` for another count, and with the prompt for a value that is no finite number. `remedy`
    says what would be right.
    """
    if not isinstance(values, (list, tuple)) or len(values) != len(prompts):
        found = f"{len(values)} {what}" if isinstance(values, (list, tuple)) else type(values).__name__
        problem = f"returned {found} for {len(prompts)} responses"
        raise InputError(problem, path=path, field=field, remedy=remedy)
    for prompt, value in zip(prompts, values, strict=True):
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            problem = f"returned {value!r} for the prompt {prompt.messages[-1].content[:60]!r}"
            raise InputError(problem, path=path, field=field, remedy=remedy)
    return [float(value) for value in values]
