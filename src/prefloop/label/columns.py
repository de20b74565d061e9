"""What the columns of a row to import say it is, and which columns cannot be meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal

from prefloop.data.fields import missing
from prefloop.data.rows import shown
from prefloop.types import InputError

Values = Mapping[str, Any]
Kind = Literal["comparisons", "pairs", "responses", "response", "review"]

REVIEW = "review"
"""What `task` says in the rows of a review queue."""
FIELDS: dict[Kind, tuple[str, ...]] = {
    "comparisons": ("comparison_id", "prompt", "response_a", "response_b", "model_a", "model_b", "gold", "source"),
    "pairs": ("prompt", "chosen", "rejected", "gold", "source"),
    "responses": ("prompt", "responses", "models", "source"),
    "response": ("prompt", "response", "model", "source"),
    "review": ("task", "item_id", "prompt", "response", "gold", "source"),
}
"""What the rows of each kind have. Further columns are kept as facts, unless they look like one of these misspelt."""
VOTE_FIELDS = ("choice", "verdict", "reviewer")


def kind_of_row(values: Values) -> Kind:
    """The kind of a row. Raises InputError where there is none, for a misspelt column, and for votes."""
    kind = _kind(values)
    _require_known(values, kind)
    for field in VOTE_FIELDS:
        if values.get(field) is not None:
            remedy = "leave the column out; a right answer belongs into gold"
            raise InputError("votes are not imported", field=field, remedy=remedy)
    if values.get("gold") is not None and "gold" not in FIELDS[kind]:
        remedy = "give a row of its own, with response_a and response_b or chosen and rejected"
        raise InputError("a gold question has two responses", field="gold", remedy=remedy)
    return kind


def _kind(values: Values) -> Kind:
    names = values.keys()
    if "task" in names:
        if values["task"] != REVIEW:
            raise InputError(f"unknown task {shown(values['task'])}", field="task", remedy=f"give {REVIEW}, or no task")
        return "review"
    if names & {"response_a", "response_b"}:
        return "comparisons"
    if names & {"chosen", "rejected"}:
        return "pairs"
    if "responses" in names:
        return "responses"
    if "response" in names:
        return "response"
    kinds: tuple[Kind, ...] = ("response", "responses", "pairs", "comparisons")
    for kind in kinds:
        _require_known(values, kind)
    if values.get("prompt") is None:
        raise missing("prompt", values, "judgments")
    remedy = "give response_a and response_b, chosen and rejected, responses, or response"
    raise InputError("the row has no responses", field="response_a", remedy=remedy)


def _require_known(values: Values, kind: Kind) -> None:
    """Refuse a column that looks like a misspelt field of the kind."""
    for name in values.keys() - set(FIELDS[kind]):
        close = difflib.get_close_matches(name.lower(), FIELDS[kind], n=1, cutoff=0.8)
        if close and close[0] not in values:
            raise InputError(f"unknown field; did you mean {close[0]}?", field=name, remedy="correct or rename it")
