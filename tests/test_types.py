from __future__ import annotations

from pathlib import Path

import pytest

from prefloop.types import Comparison, InputError, Message, Prompt

PROMPT = Prompt("p1", (Message("user", "Why?"),))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("is empty"), "is empty"),
        (InputError("is empty", path=Path("a/b.jsonl")), "a/b.jsonl: is empty"),
        (InputError("is empty", line=17), "line 17: is empty"),
        (
            InputError("is a number", path="b.jsonl", line=17, field="chosen", remedy="give text"),
            "b.jsonl:17: chosen: is a number; give text",
        ),
        (InputError("unknown", field="--lr"), "--lr: unknown"),
        (InputError("two\nlines  here", remedy="one\tline"), "two lines here; one line"),
    ],
)
def test_input_error_is_one_line_of_the_parts_that_apply(error: InputError, line: str) -> None:
    assert str(error) == line
    assert error.args == (line,)


def test_swap_exchanges_a_and_b_and_nothing_else() -> None:
    comparison = Comparison("c1", PROMPT, "short", "long", model_a="sft", model_b="tuned")
    swapped = comparison.swap()
    assert swapped == Comparison("c1", PROMPT, "long", "short", model_a="tuned", model_b="sft")
    assert swapped != comparison
    assert swapped.swap() == comparison
