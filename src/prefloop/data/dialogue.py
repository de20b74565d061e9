"""Dialogues: lists of messages, and the text form with `Human:` and `Assistant:` before each turn.

The text form is that of the HH-RLHF data: a text that begins with a blank line and `Human:` has a blank line before
every turn. A text that begins with `Human:` itself may have one line break or two before a turn. White space around a
turn belongs to the form, not to the turn. Everything here raises InputError with the field but without file and line.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any

from prefloop.data.fields import missing
from prefloop.data.rows import describe, shown
from prefloop.types import InputError, Message, Messages, Role

ROLES: tuple[Role, ...] = ("system", "user", "assistant")
SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}

_STRICT_TURN = re.compile(r"\r?\n\r?\n(Human|Assistant):")
_LOOSE_TURN = re.compile(r"^(Human|Assistant):", re.MULTILINE)

ID_LENGTH = 16


def short_hash(*parts: str) -> str:
    """The first 64 bits of a SHA-256 over the parts, as hex; the parts' limits count."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:ID_LENGTH]


def prompt_id_of(messages: Messages) -> str:
    """The id of a prompt, a function of its text alone.

    White space counts as one space and composed and decomposed letters are the same, so that trivial variants of a
    prompt fall on the same side of a split.
    """
    parts: list[str] = []
    for message in messages:
        parts += [message.role, " ".join(unicodedata.normalize("NFC", message.content).split())]
    return short_hash(*parts)


def text_of(value: Any, field: str) -> str:
    """`value` if it is text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise InputError(f"is {describe(value)}", field=field, remedy="text belongs here")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            half = value[error.start].encode("unicode_escape").decode("ascii")
            raise InputError(f"holds half of a surrogate pair ({half})", field=field) from error
    return value


def is_strict_dialogue(text: str) -> bool:
    """Whether the text begins with a blank line and a speaker; no ordinary response does."""
    return _STRICT_TURN.match(text) is not None


def is_dialogue(text: str) -> bool:
    """Whether the text is in the text form, strict or loose."""
    return is_strict_dialogue(text) or text.startswith("Human:")


def parse_dialogue(text: str) -> Messages:
    """The turns of a dialogue in text form. `is_dialogue(text)` must hold."""
    turn = _STRICT_TURN if is_strict_dialogue(text) else _LOOSE_TURN
    starts = list(turn.finditer(text))
    assert starts and starts[0].start() == 0, "not a dialogue in text form"
    ends = [*(match.start() for match in starts[1:]), len(text)]
    return tuple(
        Message(SPEAKERS[match[1]], text[match.end() : end].strip()) for match, end in zip(starts, ends, strict=True)
    )


def messages_of(value: Any, field: str) -> Messages:
    """A list of `{"role", "content"}` objects."""
    if not isinstance(value, list | tuple):
        raise InputError(f"is {describe(value)}", field=field, remedy="text or a list of messages belongs here")
    if not value:
        raise InputError("is an empty list of messages", field=field)
    return tuple(_message_of(item, f"{field}[{index}]") for index, item in enumerate(value))


def _message_of(item: Any, field: str) -> Message:
    if not isinstance(item, dict):
        raise InputError(f"is {describe(item)}", field=field, remedy='a message is {"role": ..., "content": ...}')
    for key in ("role", "content"):
        if key not in item:
            error = missing(key, item, "messages")
            raise InputError(error.problem, field=f"{field}.{error.field}", remedy=error.remedy)
    role = item["role"]
    if role not in ROLES:
        raise InputError(f"unknown role {shown(role)}", field=f"{field}.role", remedy=f"give one of {', '.join(ROLES)}")
    return Message(role, text_of(item["content"], f"{field}.content"))


def prompt_messages(value: Any, field: str = "prompt") -> Messages:
    """The messages of a `prompt`: a list of messages, a dialogue in text form, or the text of one user message.

    A text form that ends with an empty `Assistant:` is a cue to answer and loses it.
    """
    if isinstance(value, str):
        text = text_of(value, field)
        messages = parse_dialogue(text) if is_dialogue(text) else (Message("user", text),)
        if len(messages) > 1 and messages[-1] == Message("assistant", ""):
            messages = messages[:-1]
    else:
        messages = messages_of(value, field)
    require_prompt(messages, field)
    return messages


def require_prompt(messages: Messages, field: str) -> None:
    """Raise unless a policy can be asked this: it ends with a user turn that says something."""
    if all(message.role != "user" for message in messages):
        raise InputError("has no user turn", field=field, remedy="a prompt ends with a user turn")
    if messages[-1].role != "user":
        problem = f"the prompt ends with a turn of the {messages[-1].role}"
        raise InputError(problem, field=field, remedy="a prompt ends with a user turn")
    if not messages[-1].content.strip():
        raise InputError("the last user turn is empty", field=field)


def full_prompt(lead: Messages, given: Messages | None, field: str) -> Messages:
    """The whole prompt of a response that came with `lead` turns before it, where the row's `prompt` is `given`.

    A `lead` may repeat the prompt or hold more turns before or after it (system turns aside), or carry it on;
    anything else contradicts the prompt.
    """
    if given is None:
        return lead
    if not lead:
        return given
    if lead[0].role == "assistant":
        return given + lead
    spoken = _without_system(lead)
    asked = _without_system(given)
    if spoken[: len(asked)] == asked or spoken[-len(asked) :] == asked:
        instructions = () if lead[0].role == "system" else _leading_system(given)
        return instructions + lead
    raise InputError("does not begin with the prompt", field=field, remedy="repeat the prompt exactly, or leave it out")


def _leading_system(messages: Messages) -> Messages:
    return messages[:1] if messages[0].role == "system" else ()


def _without_system(messages: Messages) -> Messages:
    return tuple(Message(m.role, m.content.strip()) for m in messages if m.role != "system")
