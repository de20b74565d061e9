"""One row of each kind to the records of `types.py`. Raises InputError with the field, without file and line.

A prompt is text (one user message, or a dialogue in text form) or a list of messages; a response is text, or a list of
messages of which the last is the response. Where `prompt` is absent, whole dialogues in the response fields carry it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast, get_args

from prefloop.data.dialogue import (
    full_prompt,
    is_dialogue,
    is_strict_dialogue,
    messages_of,
    parse_dialogue,
    prompt_id_of,
    prompt_messages,
    require_prompt,
    short_hash,
    text_of,
)
from prefloop.data.fields import extra_columns, missing, required
from prefloop.data.rows import describe, shown
from prefloop.types import (
    Choice,
    Comparison,
    Demonstration,
    InputError,
    Judgment,
    LabelledResponse,
    Message,
    Messages,
    PreferencePair,
    Prompt,
)

Values = Mapping[str, Any]
CHOICES: tuple[Choice, ...] = get_args(Choice)


def make_prompt(messages: Messages, *, source: str = "", columns: Values | None = None, weight: float = 1.0) -> Prompt:
    """A Prompt with the id that its text has."""
    return Prompt(prompt_id_of(messages), messages, source=source, columns=columns or {}, weight=weight)


def make_pair(prompt: Prompt, chosen: str, rejected: str, **others: Any) -> PreferencePair:
    """A PreferencePair with the id that its texts have; `others` are further fields of the record."""
    return PreferencePair(short_hash(prompt.prompt_id, chosen, rejected), prompt, chosen, rejected, **others)


def pair_of(values: Values, weight: float = 1.0) -> PreferencePair:
    """A row with `chosen` and `rejected`. Raises where they do not answer the same prompt, or are the same."""
    given, text_form = _given_prompt(values)
    chosen_prompt, chosen = _response(required(values, "chosen", "pairs"), "chosen", given, text_form)
    rejected_prompt, rejected = _response(required(values, "rejected", "pairs"), "rejected", given, text_form)
    if chosen_prompt != rejected_prompt:
        raise InputError(
            "chosen and rejected share no prompt: they differ before the last turn",
            field="rejected",
            remedy="give two answers to the same prompt",
        )
    if chosen.strip() == rejected.strip():
        raise InputError("chosen and rejected are identical", field="rejected", remedy="give two different responses")
    return make_pair(
        _prompt(chosen_prompt, values),
        chosen,
        rejected,
        source=optional_text(values, "source"),
        strength=_strength(values),
        num_judgments=_num_judgments(values),
        weight=weight * row_weight(values),
        annotator_id=annotator_of(values),
        tie=_tie(values),
    )


def judged_of(values: Values) -> tuple[Comparison, Judgment]:
    """A row with two responses and one annotator's choice between them."""
    required(values, "prompt", "judgments")
    if values.get("weight") is not None:
        raise InputError("a vote has no weight", field="weight", remedy="weight the whole file: PATH@WEIGHT")
    given, text_form = _given_prompt(values)
    prompt, response_a = _response(required(values, "response_a", "judgments"), "response_a", given, text_form)
    prompt_b, response_b = _response(required(values, "response_b", "judgments"), "response_b", given, text_form)
    if prompt != prompt_b:
        raise InputError("response_a and response_b share no prompt", field="response_b")
    if response_a.strip() == response_b.strip():
        raise InputError("response_a and response_b are identical", field="response_b")
    choice = required(values, "choice", "judgments")
    if choice not in CHOICES:
        raise InputError(f"unknown choice {shown(choice)}", field="choice", remedy=f"give one of {', '.join(CHOICES)}")
    strength = values.get("strength")
    if strength not in (None, "slightly", "clearly"):
        raise InputError(f"unknown strength {shown(strength)}", field="strength", remedy="give slightly or clearly")
    record = _prompt(prompt, values)
    comparison_id = short_hash(record.prompt_id, response_a, response_b)
    comparison = Comparison(
        comparison_id,
        record,
        response_a,
        response_b,
        model_a=optional_text(values, "model_a"),
        model_b=optional_text(values, "model_b"),
    )
    shown_first = values.get("shown_first")
    if shown_first not in (None, "a", "b"):
        raise InputError(f"is {shown(shown_first)}", field="shown_first", remedy="give a or b")
    seconds = values.get("seconds")
    judgment = Judgment(
        comparison_id,
        annotator_of(values),
        choice,
        strength=strength,
        shown_first=shown_first or "a",
        seconds=None if seconds is None else _number(seconds, "seconds"),
        guideline_version=optional_text(values, "guideline_version"),
        at=optional_text(values, "at"),
    )
    return comparison, judgment


def compared_responses(values: Values, field: str) -> tuple[Prompt, list[str], list[float]]:
    """The prompt, the responses and one number for each of them: the row's `field`.

    `responses` are two or more, each as `chosen` may be. Raises where two of them are identical.
    """
    kind = "ratings" if field == "ratings" else "rankings"
    given, text_form = _given_prompt(values)
    responses = required(values, "responses", kind)
    if not isinstance(responses, list | tuple):
        raise InputError(f"is {describe(responses)}", field="responses", remedy="a list of responses belongs here")
    if len(responses) < 2:
        raise InputError(f"holds {len(responses)} of at least 2 responses", field="responses")
    read = [_response(item, f"responses[{index}]", given, text_form) for index, item in enumerate(responses)]
    seen: dict[str, int] = {}
    for index, (prompt, response) in enumerate(read):
        if prompt != read[0][0]:
            raise InputError("shares no prompt with responses[0]", field=f"responses[{index}]")
        if (first := seen.setdefault(response.strip(), index)) != index:
            raise InputError(f"responses[{first}] and responses[{index}] are identical", field="responses")
    numbers = required(values, field, kind)
    if not isinstance(numbers, list | tuple):
        raise InputError(f"is {describe(numbers)}", field=field, remedy="a list of numbers belongs here")
    if len(numbers) != len(responses):
        raise InputError(f"holds {len(numbers)} numbers for {len(responses)} responses", field=field)
    checked = [_number(number, f"{field}[{index}]") for index, number in enumerate(numbers)]
    return _prompt(read[0][0], values), [response for _, response in read], checked


def demonstration_of(values: Values, weight: float = 1.0) -> Demonstration:
    """A row with `prompt` and `completion`, or with `messages`."""
    prompt: Messages = ()
    if values.get("completion") is None and values.get("messages") is not None:
        completion = _dialogue(values["messages"], "messages")
        if all(message.role != "user" for message in completion):
            raise InputError("has no user turn", field="messages")
        if (asked := _given_prompt(values)[0]) is not None:
            full_prompt(completion, asked, "messages")
    else:
        given, text_form = _given_prompt(values)
        prompt, completion = _demonstrated(required(values, "completion", "demonstrations"), given, text_form)
    _require_answer(completion, "messages" if not prompt else "completion")
    return make_demonstration(
        prompt, completion, source=optional_text(values, "source"), weight=weight * row_weight(values)
    )


def make_demonstration(
    prompt: Messages, completion: Messages, *, source: str = "", weight: float = 1.0
) -> Demonstration:
    """A Demonstration with the id that its texts have."""
    parts = [part for message in (*prompt, *completion) for part in (message.role, message.content)]
    return Demonstration(short_hash(str(len(prompt)), *parts), prompt, completion, source, weight)


def labelled_of(values: Values, weight: float = 1.0) -> LabelledResponse:
    """A row with `prompt`, `completion` and `label` (true where the response was wanted)."""
    given, text_form = _given_prompt(values)
    messages, response = _response(required(values, "completion", "unpaired"), "completion", given, text_form)
    label = required(values, "label", "unpaired")
    if not isinstance(label, bool):
        raise InputError(f"is {describe(label)}", field="label", remedy="true or false belongs here")
    prompt = _prompt(messages, values)
    return LabelledResponse(
        short_hash(prompt.prompt_id, response),
        prompt,
        response,
        label,
        source=optional_text(values, "source"),
        weight=weight * row_weight(values),
        annotator_id=annotator_of(values),
    )


def prompt_of(values: Values, weight: float = 1.0) -> Prompt:
    """The prompt of a row of any kind; further columns, `completion` and `label` among them, are kept."""
    if values.get("prompt") is not None:
        messages = prompt_messages(values["prompt"])
    elif values.get("messages") is not None:
        messages = _dialogue(values["messages"], "messages")
        while messages and messages[-1].role == "assistant":
            messages = messages[:-1]
        require_prompt(messages, "messages")
    elif (field := next((name for name in ("chosen", "completion") if values.get(name) is not None), None)) is not None:
        messages, _ = _response(values[field], field, None, False)
    else:
        raise missing("prompt", values, "prompts")
    columns = extra_columns(values, keep_answers=True)
    return make_prompt(
        messages, source=optional_text(values, "source"), columns=columns, weight=weight * row_weight(values)
    )


def _given_prompt(values: Values) -> tuple[Messages | None, bool]:
    """The row's `prompt`, if it has one, and whether it is in text form (responses are stripped then)."""
    value = values.get("prompt")
    if value is None:
        return None, False
    return prompt_messages(value), isinstance(value, str) and is_dialogue(value)


def _prompt(messages: Messages, values: Values) -> Prompt:
    return make_prompt(messages, source=optional_text(values, "source"), columns=extra_columns(values))


def _demonstrated(value: Any, given: Messages | None, text_form: bool) -> tuple[Messages, Messages]:
    """The prompt and all turns after it where the row says which those are; else the completion is the last turn."""
    field = "completion"
    if isinstance(value, list | tuple) and given is not None:
        messages = messages_of(value, field)
        if messages[: len(given)] == given:
            messages = messages[len(given) :]
        if messages and messages[0].role == "assistant":
            return given, messages
    prompt, response = _response(value, field, given, text_form)
    return prompt, (Message("assistant", response),)


def _response(value: Any, field: str, given: Messages | None, text_form: bool) -> tuple[Messages, str]:
    """The whole prompt and the response, which is the last turn. `given` is the row's `prompt`."""
    if isinstance(value, str):
        text = text_of(value, field)
        if given is not None and not is_strict_dialogue(text):
            messages: Messages = (Message("assistant", text.strip() if text_form else text),)
        elif is_dialogue(text):
            messages = parse_dialogue(text)
        else:
            raise InputError(
                f"missing, and {field} is not a whole dialogue",
                field="prompt",
                remedy=f"add prompt, or give {field} as messages or with Human: and Assistant: before each turn",
            )
    else:
        messages = messages_of(value, field)
    _require_answer(messages[-1:], field)
    prompt = full_prompt(messages[:-1], given, field)
    require_prompt(prompt, field)
    return prompt, messages[-1].content


def _dialogue(value: Any, field: str) -> Messages:
    if isinstance(value, str):
        if not is_dialogue(text_of(value, field)):
            remedy = "a list of messages, or text with Human: and Assistant: before each turn"
            raise InputError("is text but no dialogue", field=field, remedy=remedy)
        return parse_dialogue(value)
    return messages_of(value, field)


def _require_answer(messages: Messages, field: str) -> None:
    """Raise unless the assistant says something in these turns."""
    answers = [message for message in messages if message.role == "assistant"]
    if not answers:
        role = messages[-1].role if messages else "user"
        raise InputError(f"ends with a {role} turn", field=field, remedy="the response is an assistant turn at the end")
    if not any(message.content.strip() for message in answers):
        raise InputError("is empty", field=field, remedy="a response says something")


def optional_text(values: Values, field: str) -> str:
    """A text field that may be absent or null: then ""."""
    value = values.get(field)
    return "" if value is None else text_of(value, field)


def annotator_of(values: Values) -> str:
    """The row's annotator, "" if it names none. Annotators are often numbered, so whole numbers pass."""
    value = values.get("annotator_id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return optional_text(values, "annotator_id")


def _strength(values: Values) -> float | None:
    """How much better the chosen response is, under either of its two names, in the file's own unit."""
    given = {name: _number(values[name], name) for name in ("strength", "margin") if values.get(name) is not None}
    if len(set(given.values())) > 1:
        raise InputError("strength and margin differ", field="margin", remedy="give one of them")
    return next(iter(given.values()), None)


def _num_judgments(values: Values) -> int:
    value = values.get("num_judgments")
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError("is not a whole number above 0", field="num_judgments")
    return value


def _tie(values: Values) -> bool:
    """Whether the row says that neither response was preferred."""
    value = values.get("tie")
    if value is not None and not isinstance(value, bool):
        raise InputError(f"is {describe(value)}", field="tie", remedy="true or false belongs here")
    return bool(value)


def row_weight(values: Values) -> float:
    """How much the row counts, 1 if it does not say."""
    value = values.get("weight")
    weight = 1.0 if value is None else _number(value, "weight")
    if weight <= 0:
        raise InputError("is not above 0", field="weight")
    return weight


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"is {describe(value)}", field=field, remedy="a number belongs here")
    number = float(cast(float, value)) if abs(value) < 1e300 else math.inf
    if not math.isfinite(number):
        raise InputError("is not a finite number", field=field)
    return number
