"""Kinds of rows by their fields, and the nearest known name of a misspelt one."""

from __future__ import annotations

import pytest

from prefloop.data.fields import extra_columns, kind_of, missing, suggestion
from prefloop.types import InputError


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("prompt chosen rejected", "pairs"),
        ("chosen rejected messages", "pairs"),
        ("prompt responses ranking", "rankings"),
        ("prompt responses ranks", "rankings"),
        ("prompt responses ratings", "ratings"),
        ("prompt response_a response_b choice annotator_id", "judgments"),
        ("prompt completion", "demonstrations"),
        ("messages", "demonstrations"),
        ("prompt completion label", "unpaired"),
        ("prompt", "prompts"),
        ("prompt label answer", "prompts"),
        ("prompt response", "prompts"),
    ],
)
def test_kind_by_fields(names: str, kind: str) -> None:
    assert kind_of(dict.fromkeys(names.split(), "x")) == kind


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("prompt chosne", "chosne: unknown field; did you mean chosen?"),
        ("prompt Chosen Rejected", "Chosen: unknown field; did you mean chosen?"),
        ("prompt completoin", "completoin: unknown field; did you mean completion?"),
        ("promt", "promt: unknown field; did you mean prompt?"),
        ("instruction output", "instruction: unknown field; did you mean prompt?"),
        ("x y", "prompt: missing (the row has x, y)"),
        ("", "prompt: missing (the row has nothing)"),
    ],
)
def test_rows_of_no_kind(names: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        kind_of(dict.fromkeys(names.split(), "x"))
    assert str(caught.value).startswith(message)


def test_the_remedy_for_a_misspelt_field_is_the_shape_of_the_kind_that_has_it() -> None:
    for misspelt, kind in (("chosne", "pairs have prompt, chosen"), ("completoin", "demonstrations have prompt, comp")):
        with pytest.raises(InputError) as caught:
            kind_of({"prompt": "p", misspelt: "x"})
        assert (caught.value.remedy or "").startswith(kind)


def test_a_field_of_another_project_is_named_but_not_a_known_one() -> None:
    assert missing("completion", {"prompt": "p", "answer": "a"}, "demonstrations").field == "answer"
    assert missing("rejected", {"prompt": "p", "chosen": "a"}, "pairs").field == "rejected"


def test_extra_columns_leave_out_every_known_field() -> None:
    row = {"prompt": "p", "completion": "c", "label": True, "chosen": "x", "gold": 3, "source": "s", "messages": []}
    assert extra_columns(row) == {"gold": 3}
    assert extra_columns(row, keep_answers=True) == {"gold": 3, "completion": "c", "label": True}


def test_suggestions_for_unknown_columns() -> None:
    assert (suggestion("strenght"), suggestion("score"), suggestion("source")) == ("strength", None, None)
