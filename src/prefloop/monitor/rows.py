"""A rollout log as steps of responses, whoever wrote it: prefloop, TRL, OpenRLHF."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefloop.data.formats import prompt_of
from prefloop.data.rows import stream_rows
from prefloop.types import InputError

RESPONSE_NAMES = ("response", "completion", "output")
SCORE_NAMES = ("score", "reward")
OPTIONAL = ("raw_score", "kl", "score_spread", "held_out_score", "shuffled_score")


@dataclass(frozen=True)
class Observed:
    """One response that a policy wrote. What is not known is None."""

    prompt_id: str
    prompt: str
    response: str
    score: float
    step: int
    kl: float | None = None
    """Nats, summed over the response."""
    score_spread: float | None = None
    """Disagreement of an ensemble."""
    held_out_score: float | None = None
    """Score by a reward model that nothing was optimised against."""
    raw_score: float | None = None
    """The score before shaping, where it is another one."""
    shuffled_score: float | None = None
    """Score, before shaping, of the response under the prompt of another."""
    far: bool | None = None
    """Whether the response is out of the reward model's distribution."""
    finished: bool | None = None
    """False where the response was cut off."""


def read_rollouts(path: str, *, skip_bad: bool = False) -> tuple[list[Observed], int]:
    """The rows of a log in the order of their steps, and how many were left out.

    Raises InputError for what cannot be read, with file, line and field; of single rows only where not `skip_bad`.
    """
    bad: list[InputError] = []

    def refuse(error: InputError) -> None:
        if not skip_bad:
            remedy = "; ".join(part for part in (error.remedy, "--skip-bad leaves such rows out") if part)
            raise InputError(error.problem, path=error.path, line=error.line, field=error.field, remedy=remedy)
        bad.append(error)

    found = []
    for row in stream_rows(path, refuse):
        try:
            found.append(observed(row.values))
        except InputError as error:
            refuse(InputError(error.problem, path=row.path, line=row.line, field=error.field, remedy=error.remedy))
    if not found:
        raise bad[0] if bad else InputError("holds no rollout", path=path)
    return sorted(found, key=lambda each: each.step), len(bad)


def observed(values: Mapping[str, Any]) -> Observed:
    """A row of a log. Raises InputError with the field."""
    response = next((values[name] for name in RESPONSE_NAMES if values.get(name) is not None), None)
    if not isinstance(response, str):
        raise InputError("needs the text of a response", field="response", remedy='"response": "..."')
    prompt = prompt_of(values)
    finish = values.get("finish_reason")
    return Observed(
        prompt_id=prompt.prompt_id,
        prompt=prompt.messages[-1].content,
        response=response,
        score=_number(values, SCORE_NAMES),
        step=_step(values),
        finished=None if finish is None else finish == "stop",
        far=_truth(values, "out_of_distribution"),
        **{name: _number(values, (name,)) for name in OPTIONAL if values.get(name) is not None},
    )


def _number(values: Mapping[str, Any], names: Sequence[str]) -> float:
    value = next((values[name] for name in names if values.get(name) is not None), None)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        shown = "missing" if value is None else f"{value!r} is no finite number"
        raise InputError(shown, field=names[0], remedy=f'"{names[0]}": 0.5')
    return float(value)


def _truth(values: Mapping[str, Any], name: str) -> bool | None:
    value = values.get(name)
    # 0 and 1 are equal to False and True.
    if value is not None and value not in (False, True):
        raise InputError(f"{value!r} is neither true nor false", field=name, remedy=f'"{name}": false')
    return None if value is None else bool(value)


def _step(values: Mapping[str, Any]) -> int:
    value = values.get("step")
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
        shown = "missing" if value is None else f"{value!r} is no step"
        raise InputError(shown, field="step", remedy='a whole number from 0, as in "step": 12')
    return int(value)


def looks_of(rows: Iterable[Observed], fewest: int) -> list[list[Observed]]:
    """The rows in groups of whole steps with at least `fewest` responses each; a rest that has fewer joins the last."""
    looks: list[list[Observed]] = []
    open_step: int | None = None
    for row in rows:
        full = looks and len(looks[-1]) >= fewest
        if not looks or (full and row.step != open_step):
            looks.append([])
        looks[-1].append(row)
        open_step = row.step
    if len(looks) > 1 and len(looks[-1]) < fewest:
        last = looks.pop()
        looks[-1].extend(last)
    return looks
