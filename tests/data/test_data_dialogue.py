"""The text form of dialogues, message lists, and ids of prompts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.data.dialogue import (
    full_prompt,
    is_dialogue,
    messages_of,
    parse_dialogue,
    prompt_id_of,
    prompt_messages,
    short_hash,
    text_of,
)
from prefloop.types import InputError, Message

S, U, A = (lambda text, role=role: Message(role, text) for role in ("system", "user", "assistant"))

KNOWN_ROLES = "give one of system, user, assistant"
MESSAGE_SHAPE = "messages have role, content"


def test_strict_form_needs_a_blank_line_before_each_turn() -> None:
    text = "\n\nHuman: Say:\nHuman: is a word\n\nAssistant:  Human: yes \n\nHuman: no\n\nAssistant: \n- one\n\n- two\n"
    assert parse_dialogue(text) == (U("Say:\nHuman: is a word"), A("Human: yes"), U("no"), A("- one\n\n- two"))


def test_loose_form_takes_one_line_break_or_two() -> None:
    assert parse_dialogue("Human: a\nAssistant: b\n\nc\n\nHuman: d\n") == (U("a"), A("b\n\nc"), U("d"))


@pytest.mark.parametrize("text", ["Humans: a", "human: a", " Human: a", "What did Human: say?", "", "Assistant: a"])
def test_other_text_is_no_dialogue(text: str) -> None:
    assert not is_dialogue(text)


def test_prompt_text_is_one_user_message_kept_as_it_is() -> None:
    assert prompt_messages("  def f():\n    pass\n") == (U("  def f():\n    pass\n"),)


def test_prompt_in_text_form_is_parsed_and_an_empty_cue_dropped() -> None:
    assert prompt_messages("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:") == (U("a"), A("b"), U("c"))
    assert prompt_messages("Human: a\n") == (U("a"),)


def test_messages_keep_system_turns_and_nul() -> None:
    value = [{"role": "system", "content": "be\x00kind"}, {"role": "user", "content": "hi", "name": "x"}]
    assert prompt_messages(value) == (S("be\x00kind"), U("hi"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "prompt: is a number; text or a list of messages belongs here"),
        ([], "prompt: is an empty list of messages"),
        (["hi"], 'prompt[0]: is text; a message is {"role": ..., "content": ...}'),
        ([{"role": "human", "content": "hi"}], f"prompt[0].role: unknown role 'human'; {KNOWN_ROLES}"),
        ([{"role": "user", "content": None}], "prompt[0].content: is null; text belongs here"),
        (
            [{"role": "user", "contnet": "hi"}],
            f"prompt[0].contnet: unknown field; did you mean content?; {MESSAGE_SHAPE}",
        ),
        ([{"from": "user", "content": "hi"}], f"prompt[0].from: unknown field; did you mean role?; {MESSAGE_SHAPE}"),
        ([{"role": "system", "content": "hi"}], "prompt: has no user turn; a prompt ends with a user turn"),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            "prompt: the prompt ends with a turn of the assistant; a prompt ends with a user turn",
        ),
        (" \n", "prompt: the last user turn is empty"),
        ("bad \ud83d half", "prompt: holds half of a surrogate pair (\\ud83d)"),
    ],
)
def test_prompts_that_nobody_can_be_asked(value: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        prompt_messages(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("lead", "given_prompt", "whole"),
    [
        ((U("q"),), None, (U("q"),)),
        ((), (U("q"),), (U("q"),)),
        ((U("q"),), (U("q"),), (U("q"),)),
        ((S("s"), U("q")), (U("q"),), (S("s"), U("q"))),
        ((U("q"),), (S("s"), U("q")), (S("s"), U("q"))),
        ((U("q"), A("a"), U("r")), (S("s"), U("q")), (S("s"), U("q"), A("a"), U("r"))),
        ((U("q"), A("a"), U("r")), (U("r"),), (U("q"), A("a"), U("r"))),
        ((A("a"), U("r")), (U("q"),), (U("q"), A("a"), U("r"))),
    ],
)
def test_turns_before_a_response_and_the_prompt_field_agree(lead: tuple, given_prompt: tuple, whole: tuple) -> None:
    assert full_prompt(lead, given_prompt, "chosen") == whole


def test_turns_that_contradict_the_prompt() -> None:
    with pytest.raises(InputError, match="chosen: does not begin with the prompt"):
        full_prompt((U("other"),), (U("q"),), "chosen")


def test_prompt_id_depends_on_text_alone_and_not_on_white_space_or_composition() -> None:
    assert prompt_id_of((U("caf\u00e9  au\nlait "),)) == prompt_id_of((U("cafe\u0301 au lait"),))
    different = [(U("a"),), (S("a"),), (U("a b"),), (U("a"), U("b")), (S("a"), U("b")), (U("ab"),), (U("A"),)]
    assert len({prompt_id_of(messages) for messages in different}) == len(different)


def test_short_hash_is_the_documented_prefix_of_sha256() -> None:
    data = (3).to_bytes(8, "big") + b"abc" + (2).to_bytes(8, "big") + "é".encode()
    assert short_hash("abc", "é") == hashlib.sha256(data).hexdigest()[:16]
    assert short_hash("ab", "c") != short_hash("a", "bc")


turn_text = (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    .map(str.strip)
    .filter(lambda text: text and "Human:" not in text and "Assistant:" not in text)
)


@given(st.lists(turn_text, min_size=1, max_size=5))
def test_formatting_then_parsing_is_the_identity(turns: list[str]) -> None:
    speakers = ["Human", "Assistant"]
    text = "".join(f"\n\n{speakers[i % 2]}: {turn}" for i, turn in enumerate(turns))
    parsed = parse_dialogue(text)
    assert [message.content for message in parsed] == turns
    assert [message.role for message in parsed] == [["user", "assistant"][i % 2] for i in range(len(turns))]


@given(st.text())
def test_text_of_accepts_what_utf8_can_hold(text: str) -> None:
    assert text_of(text, "x") == text


def test_messages_of_accepts_what_it_is_given() -> None:
    assert messages_of([{"role": "assistant", "content": ""}], "chosen") == (A(""),)
