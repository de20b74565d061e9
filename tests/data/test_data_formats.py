"""Rows of each kind to records, and what makes a row unusable."""

from __future__ import annotations

from typing import Any

import pytest

from prefloop.data.formats import demonstration_of, judged_of, labelled_of, make_prompt, pair_of, prompt_of
from prefloop.types import InputError, Message

S, U, A = (lambda text, role=role: Message(role, text) for role in ("system", "user", "assistant"))


def turns(*messages: Message) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def row(**changes: Any) -> dict[str, Any]:
    values = {"prompt": "What is 2 + 2?", "chosen": "4", "rejected": "5", **changes}
    return {name: value for name, value in values.items() if value is not ...}


def error_of(parse: Any, values: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        parse(values)
    return str(caught.value)


def test_plain_pair_with_every_optional_field() -> None:
    pair = pair_of(row(margin=0.5, source="s", annotator_id=7, weight=2, num_judgments=3, difficulty="hard"), 1.5)
    assert (pair.chosen, pair.rejected, pair.prompt.messages) == ("4", "5", (U("What is 2 + 2?"),))
    assert (pair.strength, pair.source, pair.annotator_id, pair.weight, pair.num_judgments) == (0.5, "s", "7", 3.0, 3)
    assert pair.prompt.columns == {"difficulty": "hard"}
    assert pair.prompt.source == "s"


HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye"


@pytest.mark.parametrize(
    "values",
    [
        {"chosen": HH + "\n\nAssistant: See you", "rejected": HH + "\n\nAssistant: No"},
        {"prompt": HH, "chosen": HH + "\n\nAssistant: See you", "rejected": HH + "\n\nAssistant: No"},
        {"prompt": HH + "\n\nAssistant:", "chosen": " See you", "rejected": " No"},
        {"prompt": HH, "chosen": "\n\nAssistant: See you", "rejected": "\n\nAssistant: No"},
        {
            "prompt": "Human: Hi\nAssistant: Hello\nHuman: Bye\n",
            "chosen": "See you",
            "rejected": turns(A("No")),
        },
        {
            "chosen": turns(U("Hi"), A("Hello"), U("Bye"), A("See you")),
            "rejected": turns(U("Hi"), A("Hello"), U("Bye"), A("No")),
        },
        {
            "prompt": "Bye",
            "chosen": turns(U("Hi"), A("Hello"), U("Bye"), A("See you")),
            "rejected": turns(U("Hi"), A("Hello"), U("Bye"), A("No")),
        },
        {
            "prompt": "Hi",
            "chosen": turns(A("Hello"), U("Bye"), A("See you")),
            "rejected": turns(A("Hello"), U("Bye"), A("No")),
        },
        {"prompt": turns(U("Hi"), A("Hello"), U("Bye")), "chosen": turns(A("See you")), "rejected": "No"},
    ],
)
def test_one_pair_in_every_accepted_shape(values: dict[str, Any]) -> None:
    pair = pair_of(values)
    assert pair.prompt.messages == (U("Hi"), A("Hello"), U("Bye"))
    assert (pair.chosen, pair.rejected) == ("See you", "No")
    assert (
        pair.pair_id == pair_of({"prompt": turns(*pair.prompt.messages), "chosen": "See you", "rejected": "No"}).pair_id
    )


def test_plain_responses_keep_their_white_space() -> None:
    pair = pair_of(row(chosen="  x = 1\n", rejected="\tHuman: y"))
    assert (pair.chosen, pair.rejected) == ("  x = 1\n", "\tHuman: y")


def test_system_messages_are_kept() -> None:
    pair = pair_of(row(prompt=turns(S("Be brief"), U("Hi"))))
    assert pair.prompt.messages == (S("Be brief"), U("Hi"))
    pair = pair_of(row(prompt="Hi", chosen=turns(S("s"), U("Hi"), A("4")), rejected=turns(S("s"), U("Hi"), A("5"))))
    assert pair.prompt.messages == (S("s"), U("Hi"))


AT_THE_END = "the response is an assistant turn at the end"
USER_LAST = "a prompt ends with a user turn"
SAME = "give two answers to the same prompt"
REPEAT = "repeat the prompt exactly, or leave it out"
MESSAGE_LIST = "a list of messages, or text with Human: and Assistant: before each turn"
DEMONSTRATIONS = "demonstrations have prompt, completion (or messages)"
PAIRS = "pairs have prompt, chosen, rejected (or whole dialogues in chosen and rejected)"


def add_prompt(field: str) -> str:
    return f"add prompt, or give {field} as messages or with Human: and Assistant: before each turn"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (row(chosen=..., chosne="4"), f"chosne: unknown field; did you mean chosen?; {PAIRS}"),
        (row(rejected=...), f"rejected: missing (the row has prompt, chosen); {PAIRS}"),
        (row(rejected=None), f"rejected: is null; {PAIRS}"),
        (row(prompt=...), f"prompt: missing, and chosen is not a whole dialogue; {add_prompt('chosen')}"),
        (row(chosen=" \n"), "chosen: is empty; a response says something"),
        (row(rejected=""), "rejected: is empty; a response says something"),
        (row(rejected=turns(A(""))), "rejected: is empty; a response says something"),
        (row(rejected="4"), "rejected: chosen and rejected are identical; give two different responses"),
        (row(rejected=" 4\n"), "rejected: chosen and rejected are identical; give two different responses"),
        (row(chosen=4), "chosen: is a number; text or a list of messages belongs here"),
        (row(prompt=True), "prompt: is true or false; text or a list of messages belongs here"),
        (row(chosen={"role": "assistant"}), "chosen: is an object; text or a list of messages belongs here"),
        (row(chosen=turns(U("What is 2 + 2?"))), f"chosen: ends with a user turn; {AT_THE_END}"),
        (row(chosen=turns(U("Else"), A("4"))), f"chosen: does not begin with the prompt; {REPEAT}"),
        (
            row(prompt=..., chosen="\n\nHuman: a\n\nAssistant: b", rejected="\n\nHuman: c\n\nAssistant: d"),
            f"rejected: chosen and rejected share no prompt: they differ before the last turn; {SAME}",
        ),
        (row(prompt=..., chosen=turns(A("b")), rejected=turns(A("d"))), f"chosen: has no user turn; {USER_LAST}"),
        (
            row(prompt=..., chosen="\n\nHuman: a\n\nAssistant: b\n\nAssistant: c", rejected="5"),
            f"chosen: the prompt ends with a turn of the assistant; {USER_LAST}",
        ),
        (row(margin="big"), "margin: is text; a number belongs here"),
        (row(margin=1, strength=2), "margin: strength and margin differ; give one of them"),
        (row(strength=10**400), "strength: is not a finite number"),
        (row(source=3), "source: is a number; text belongs here"),
        (row(annotator_id=True), "annotator_id: is true or false; text belongs here"),
        (row(weight=0), "weight: is not above 0"),
        (row(num_judgments=0.5), "num_judgments: is not a whole number above 0"),
    ],
)
def test_pairs_that_cannot_be_used(values: dict[str, Any], message: str) -> None:
    assert error_of(pair_of, values) == message


def test_ids_tell_prompts_and_responses_apart_and_nothing_else() -> None:
    pair = pair_of(row())
    assert pair_of(row(source="other", weight=3, extra=1)).pair_id == pair.pair_id
    assert pair_of(row(chosen="5", rejected="4")).pair_id != pair.pair_id
    assert make_prompt((U("What is 2 + 2?"),)).prompt_id == pair.prompt.prompt_id


def test_demonstrations() -> None:
    plain = demonstration_of({"prompt": "Hi", "completion": "Hello", "source": "s"}, 2.0)
    assert (plain.prompt, plain.completion, plain.source, plain.weight) == ((U("Hi"),), (A("Hello"),), "s", 2.0)
    several = demonstration_of({"prompt": "Hi", "completion": turns(A("Hello"), U("Bye"), A("Ciao"))})
    assert (several.prompt, several.completion) == ((U("Hi"),), (A("Hello"), U("Bye"), A("Ciao")))
    repeated = demonstration_of({"prompt": "Hi", "completion": turns(U("Hi"), A("Hello"))})
    assert (repeated.prompt, repeated.completion) == ((U("Hi"),), (A("Hello"),))
    dialogue = (S("s"), U("Hi"), A("Hello"), U("Bye"), A("Ciao"))
    whole = demonstration_of({"messages": turns(*dialogue)})
    assert (whole.prompt, whole.completion) == ((), dialogue)
    assert demonstration_of({"messages": turns(*dialogue), "prompt": "Hi"}) == whole
    text = demonstration_of({"messages": HH + "\n\nAssistant: Ciao"})
    assert text.completion == (U("Hi"), A("Hello"), U("Bye"), A("Ciao"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "Hi", "answer": "x"}, f"answer: unknown field; did you mean completion?; {DEMONSTRATIONS}"),
        ({"prompt": "Hi", "completion": ""}, "completion: is empty; a response says something"),
        ({"prompt": "Hi", "completion": 3}, "completion: is a number; text or a list of messages belongs here"),
        ({"completion": "x"}, f"prompt: missing, and completion is not a whole dialogue; {add_prompt('completion')}"),
        ({"messages": turns(A("x"))}, "messages: has no user turn"),
        ({"messages": turns(U("x"))}, f"messages: ends with a user turn; {AT_THE_END}"),
        ({"messages": turns(U("x"), A(" "))}, "messages: is empty; a response says something"),
        ({"messages": "x"}, f"messages: is text but no dialogue; {MESSAGE_LIST}"),
        ({"messages": turns(U("x"), A("y")), "prompt": "z"}, f"messages: does not begin with the prompt; {REPEAT}"),
    ],
)
def test_demonstrations_that_cannot_be_used(values: dict[str, Any], message: str) -> None:
    assert error_of(demonstration_of, values) == message


def test_unpaired() -> None:
    good = labelled_of({"prompt": "Hi", "completion": "Hello", "label": True, "annotator_id": "ann"}, 0.5)
    assert (good.prompt.messages, good.response, good.label, good.weight) == ((U("Hi"),), "Hello", True, 0.5)
    assert good.annotator_id == "ann"
    message = error_of(labelled_of, {"prompt": "Hi", "completion": "Hello", "label": 1})
    assert message == "label: is a number; true or false belongs here"


def test_judgments() -> None:
    values = {"prompt": "p", "response_a": "x", "response_b": "y", "choice": "tie", "annotator_id": "ann"}
    comparison, judgment = judged_of({**values, "shown_first": "b", "seconds": 3, "strength": "clearly"})
    assert (comparison.response_a, comparison.response_b, judgment.choice) == ("x", "y", "tie")
    assert (judgment.annotator_id, judgment.shown_first, judgment.seconds, judgment.strength) == (
        "ann",
        "b",
        3.0,
        "clearly",
    )
    assert judgment.comparison_id == comparison.comparison_id
    for field, value, message in (
        ("choice", "A", "choice: unknown choice 'A'; give one of a, b, tie, both_bad, skip"),
        ("strength", 0.5, "strength: unknown strength 0.5; give slightly or clearly"),
        ("shown_first", "c", "shown_first: is 'c'; give a or b"),
        ("response_b", "x ", "response_b: response_a and response_b are identical"),
        ("response_b", turns(A("more"), U("q"), A("y")), "response_b: response_a and response_b share no prompt"),
        ("weight", 2, "weight: a vote has no weight; weight the whole file: PATH@WEIGHT"),
    ):
        assert error_of(judged_of, {**values, field: value}) == message


def test_prompts_of_every_kind_of_row() -> None:
    asked = (U("Hi"), A("Hello"), U("Bye"))
    for values in (
        {"prompt": HH},
        {"prompt": turns(*asked), "chosen": "a", "rejected": "b"},
        {"chosen": HH + "\n\nAssistant: a", "rejected": 3},
        {"messages": turns(*asked, A("Ciao"))},
        {"messages": turns(*asked)},
    ):
        assert prompt_of(values).messages == asked
    kept = prompt_of({"prompt": "2 + 2?", "completion": "4", "gold": 4, "source": "s", "weight": 2}, 3.0)
    assert (kept.columns, kept.source, kept.weight) == ({"completion": "4", "gold": 4}, "s", 6.0)
    assert error_of(prompt_of, {"promt": "x"}) == "promt: unknown field; did you mean prompt?; prompts have prompt"
    assert (
        error_of(prompt_of, {"messages": turns(A("x"))}) == "messages: has no user turn; a prompt ends with a user turn"
    )
