"""The names of the fields that rows may have, by kind of row, and the nearest known name for one that is misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from prefloop.types import InputError

Kind = Literal["pairs", "rankings", "ratings", "judgments", "demonstrations", "unpaired", "prompts"]

SHAPES: dict[str, str] = {
    "pairs": "prompt, chosen, rejected (or whole dialogues in chosen and rejected)",
    "rankings": "prompt, responses, and ranking (indices, best first) or ranks (1 = best)",
    "ratings": "prompt, responses, ratings (higher = better)",
    "judgments": "prompt, response_a, response_b, choice, annotator_id",
    "demonstrations": "prompt, completion (or messages)",
    "unpaired": "prompt, completion, label",
    "prompts": "prompt",
    "messages": "role, content",
}
"""What a row of each kind holds; also the text of remedies."""

ROW_FIELDS = ("source", "weight", "annotator_id")
"""Optional in every kind."""

PAIR_FIELDS = ("chosen", "rejected", "margin", "strength", "num_judgments", "tie")
LIST_FIELDS = ("responses", "ranking", "ranks", "ratings")
COMPARISON_FIELDS = ("comparison_id", "response_a", "response_b", "model_a", "model_b")
VOTE_FIELDS = ("choice", "shown_first", "seconds", "guideline_version", "at")
COMPARED_FIELDS = (*PAIR_FIELDS, *LIST_FIELDS, *COMPARISON_FIELDS, *VOTE_FIELDS)
"""Fields of the kinds that become pairs."""

ANSWER_FIELDS = ("completion", "label")

KNOWN_FIELDS = frozenset(("prompt", "messages", *ROW_FIELDS, *COMPARED_FIELDS, *ANSWER_FIELDS))

SYNONYMS: dict[str, str] = {
    "instruction": "prompt",
    "question": "prompt",
    "query": "prompt",
    "response": "completion",
    "answer": "completion",
    "output": "completion",
    "conversations": "messages",
    "conversation": "messages",
    "from": "role",
    "value": "content",
    "text": "content",
    "scores": "ratings",
}
"""Other projects' names, for suggestions only: a row that uses them is refused, not guessed at."""

TELLTALE_FIELDS: dict[str, Kind] = {"chosen": "pairs", "rejected": "pairs", "completion": "demonstrations"}
"""A misspelt one of these in a row with nothing but a prompt is taken for a mistake, not for a further column."""


def kind_of(values: Mapping[str, Any]) -> Kind:
    """The kind of a row by the fields it has. Raises InputError where none fits or a telltale field is misspelt."""
    names = values.keys()
    if names & {"chosen", "rejected"}:
        return "pairs"
    if names & {"response_a", "response_b"}:
        return "judgments"
    if "ratings" in names:
        return "ratings"
    if names & {"responses", "ranking", "ranks"}:
        return "rankings"
    if {"completion", "label"} <= names:
        return "unpaired"
    if names & {"completion", "messages"}:
        return "demonstrations"
    for telltale, kind in TELLTALE_FIELDS.items():
        if _nearest(telltale, names, synonyms=False):
            raise missing(telltale, values, kind)
    if "prompt" in names:
        return "prompts"
    raise missing("prompt", values, "pairs")


def missing(field: str, values: Mapping[str, Any], kind: str) -> InputError:
    """The error for a row without `field`: names the misspelt field where there is one like it."""
    remedy = f"{kind} have {SHAPES[kind]}"
    if name := _nearest(field, values):
        return InputError(f"unknown field; did you mean {field}?", field=name, remedy=remedy)
    if values.get(field, field) is None:
        return InputError("is null", field=field, remedy=remedy)
    found = ", ".join(map(str, values)) or "nothing"
    return InputError(f"missing (the row has {found})", field=field, remedy=remedy)


def required(values: Mapping[str, Any], field: str, kind: str) -> Any:
    """The value of a field that the kind cannot do without; null counts as missing."""
    value = values.get(field)
    if value is None:
        raise missing(field, values, kind)
    return value


def extra_columns(values: Mapping[str, Any], *, keep_answers: bool = False) -> dict[str, Any]:
    """The columns that are not the row's own fields. `keep_answers` keeps reference answers, for reward functions."""
    kept = ANSWER_FIELDS if keep_answers else ()
    return {name: value for name, value in values.items() if name not in KNOWN_FIELDS or name in kept}


def suggestion(name: str) -> str | None:
    """The known field that an unknown column may have been meant to be; None if there is none like it."""
    close = difflib.get_close_matches(name.lower(), KNOWN_FIELDS, n=1, cutoff=0.8)
    return close[0] if close and name not in KNOWN_FIELDS else None


def _nearest(field: str, names: Iterable[str], *, synonyms: bool = True) -> str | None:
    """Which unknown name of a row was probably meant to be `field`."""
    unknown = [name for name in names if name not in KNOWN_FIELDS]
    lowered = {name.lower(): name for name in unknown}
    if close := difflib.get_close_matches(field, lowered, n=1, cutoff=0.8):
        return lowered[close[0]]
    return next((name for name in unknown if synonyms and SYNONYMS.get(name.lower()) == field), None)
