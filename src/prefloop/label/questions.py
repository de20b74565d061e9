"""Rows of a file to items: comparisons, pairs, responses to prompts, a review queue. All of a file, or nothing.

Where a row says which response is better (chosen, rejected) the sides are drawn by the hash of the texts: a is not
always the chosen one, and the same row always gives the same item. An item is known by its texts, so what is imported
again is there already, also with its sides exchanged.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.data.dialogue import is_dialogue, prompt_messages, short_hash, text_of
from prefloop.data.fields import required
from prefloop.data.formats import compared_responses, judged_of, labelled_of, optional_text, pair_of
from prefloop.data.rows import Row, shown, stream_rows
from prefloop.label.columns import FIELDS, Kind, Values, kind_of_row
from prefloop.label.records import GOLD_CHOICES, SKIP, Item
from prefloop.types import InputError, Messages, Prompt

PAIR_GOLD = ("chosen", "rejected", "tie", "both_bad")
MAX_RESPONSES = 64
"""Of one prompt: 2,016 pairs to draw from."""
OURS = ("messages", "comparison_id")
"""Facts with a meaning: a row's column of such a name is never kept as it is, or it would be shown as the prompt."""


@dataclass(frozen=True)
class Found:
    """An item and where it stands in the file."""

    line: int
    item: Item


@dataclass
class _Answers:
    """The responses to one prompt, gathered from rows that have one each."""

    line: int
    prompt: Prompt
    responses: list[tuple[str, str]]
    """Text and model."""


def read_items(path: str | Path, *, pairs_per_prompt: int) -> tuple[list[Found], Counter[str]]:
    """All items of a file in its order, each once, and how many rows gave none of their own, by reason.

    Raises InputError with file, line and field for the first row that cannot be used.
    """
    found: dict[str, Found] = {}
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    gathered: dict[str, _Answers] = {}
    for row in stream_rows(path):
        counts["rows"] += 1
        try:
            for item in _items(row, gathered, pairs_per_prompt):
                _add(Found(row.line, item), found, names, counts)
        except InputError as error:
            raise InputError(
                error.problem, path=row.path, line=row.line, field=error.field, remedy=error.remedy
            ) from None
    for answers in gathered.values():
        if len(answers.responses) < 2:
            counts["single_responses"] += 1
        for item in _drawn_pairs(answers.prompt, answers.responses, pairs_per_prompt):
            _add(Found(answers.line, item), found, names, counts)
    if not found:
        problem = "no prompt has two different responses" if gathered else "no row gives a question"
        raise InputError(problem, path=path, remedy="give at least two responses to a prompt")
    return list(found.values()), counts


def same_question(old: Item, new: Item) -> bool:
    """Whether two items with the same texts ask the same: with the same right answer, if any."""
    flipped = {"a": "b", "b": "a"}
    gold = new.gold if old.response_a == new.response_a else flipped.get(new.gold or "", new.gold)
    return old.gold == gold


def _add(new: Found, found: dict[str, Found], names: dict[str, str], counts: Counter[str]) -> None:
    """Take an item, or count it as a repetition. Raises InputError where it contradicts an earlier one of the file."""
    item = new.item
    earlier = found.get(item.item_id)
    if earlier is not None:
        if not same_question(earlier.item, item):
            raise InputError(f"contradicts line {earlier.line}, which asks the same", field="gold")
        counts["repeated"] += 1
        return
    name = item.facts.get("comparison_id")
    if name is not None and names.setdefault(name, item.item_id) != item.item_id:
        line = found[names[name]].line
        raise InputError(f"{shown(name)} is that of line {line} already, which has other texts", field="comparison_id")
    found[item.item_id] = new


def _items(row: Row, gathered: dict[str, _Answers], pairs_per_prompt: int) -> Iterator[Item]:
    values = row.values
    kind = kind_of_row(values)
    match kind:
        case "comparisons":
            yield _comparison(values)
        case "pairs":
            yield _pair(values)
        case "responses":
            prompt, responses = _responses(values)
            yield from _drawn_pairs(prompt, responses, pairs_per_prompt)
        case "response":
            _gather(row, gathered)
        case "review":
            yield _review(values)


def _comparison(values: Values) -> Item:
    comparison, _ = judged_of({**values, "choice": SKIP})
    facts = _facts(comparison.prompt, "comparisons", values)
    gold = _gold(values, GOLD_CHOICES["pair"])
    texts = (comparison.response_a, comparison.response_b)
    return _pair_item(comparison.prompt, *texts, _plain(values, "model_a"), _plain(values, "model_b"), gold, facts)


def _pair(values: Values) -> Item:
    pair = pair_of({**values, "annotator_id": None})
    gold = _gold(values, PAIR_GOLD)
    first, second, swapped = _sides(pair.prompt, pair.chosen, pair.rejected)
    sides = {"chosen": "b" if swapped else "a", "rejected": "a" if swapped else "b"}
    facts = _facts(pair.prompt, "pairs", values)
    return _pair_item(pair.prompt, first, second, "", "", sides.get(gold or "", gold), facts)


def _responses(values: Values) -> tuple[Prompt, list[tuple[str, str]]]:
    """A prompt and its responses, each with its model. Any numbers that the row ranks them by are only facts."""
    given = required(values, "responses", "rankings")
    places = list(range(len(given))) if isinstance(given, list | tuple) else None
    prompt, responses, _ = compared_responses({**values, "ranks": places}, "ranks")
    if len(responses) > MAX_RESPONSES:
        raise InputError(f"holds {len(responses)} responses", field="responses", remedy=f"at most {MAX_RESPONSES}")
    models = values.get("models")
    if models is None:
        models = [""] * len(responses)
    if not isinstance(models, list | tuple) or len(models) != len(responses):
        raise InputError("is no list of one name for each response", field="models")
    return prompt, [
        (text, text_of(model, f"models[{place}]"))
        for place, (text, model) in enumerate(zip(responses, models, strict=True))
    ]


def _gather(row: Row, gathered: dict[str, _Answers]) -> None:
    """One response of several rows to the same prompt; copies of one text count once."""
    values = row.values
    given = {"prompt": required(values, "prompt", "prompts"), "completion": required(values, "response", "prompts")}
    try:
        labelled = labelled_of({**given, "label": True, "source": values.get("source")})
    except InputError as error:
        field = "response" if error.field == "completion" else error.field
        raise InputError(error.problem, field=field, remedy=error.remedy) from None
    prompt, text = labelled.prompt, labelled.response
    key = short_hash(*(part for each in prompt.messages for part in (each.role, each.content)))
    answers = gathered.setdefault(key, _Answers(row.line, prompt, []))
    if any(text.strip() == known.strip() for known, _ in answers.responses):
        return
    if len(answers.responses) == MAX_RESPONSES:
        raise InputError(f"the prompt has more than {MAX_RESPONSES} responses", field="response")
    answers.responses.append((text, _plain(values, "model")))


def _drawn_pairs(prompt: Prompt, responses: list[tuple[str, str]], at_most: int) -> Iterator[Item]:
    """Pairs of the responses, all where there are few, else by lot."""
    facts = _facts(prompt, None, {})
    pairs = sorted(
        itertools.combinations(responses, 2),
        key=lambda pair: short_hash(prompt.prompt_id, *sorted(text for text, _ in pair)),
    )
    for pair in pairs[:at_most]:
        models = dict(pair)
        first, second, _ = _sides(prompt, *(text for text, _ in pair))
        yield _pair_item(prompt, first, second, models[first], models[second], None, facts)


def _review(values: Values) -> Item:
    prompt = _text(required(values, "prompt", "prompts"), "prompt")
    response = _text(required(values, "response", "prompts"), "response")
    # A policy may answer nothing; what it was asked says something.
    if not prompt.strip():
        raise InputError("is empty", field="prompt")
    item_id = short_hash(prompt, response)
    if values.get("item_id", item_id) != item_id:
        remedy = "export the queue again, or leave item_id out"
        raise InputError("is not the hash of prompt and response", field="item_id", remedy=remedy)
    own = ("prompt", "response", "gold", "item_id", *OURS)
    facts = {name: value for name, value in values.items() if name not in own}
    return Item(item_id, "review", prompt, response, None, None, None, _gold(values, GOLD_CHOICES["review"]), facts)


def _pair_item(
    prompt: Prompt, first: str, second: str, model_a: str, model_b: str, gold: str | None, facts: dict[str, Any]
) -> Item:
    for field, text in (("response_a", first), ("response_b", second)):
        _text(text, field)
    messages = [(each.role, _text(each.content, "prompt")) for each in prompt.messages]
    item_id = short_hash("pair", *itertools.chain(*messages), *sorted((first, second)))
    text = _shown_prompt(prompt.messages)
    return Item(item_id, "pair", text, first, second, model_a or None, model_b or None, gold, facts)


def _sides(prompt: Prompt, first: str, second: str) -> tuple[str, str, bool]:
    """The responses as a and b, by the hash of their texts; whichever comes first in the row."""
    low, high = sorted((first, second))
    is_swapped = int(short_hash("sides", prompt.prompt_id, low, high), 16) % 2 == 1
    a, b = (high, low) if is_swapped else (low, high)
    return a, b, a != first


def _shown_prompt(messages: Messages) -> str:
    """A single user turn as it is, more in the text form of dialogues."""
    if len(messages) == 1:
        return messages[0].content
    speakers = {"user": "Human", "assistant": "Assistant", "system": "System"}
    return "\n\n".join(f"{speakers[each.role]}: {each.content}" for each in messages)


def _facts(prompt: Prompt, kind: Kind | None, values: Values) -> dict[str, Any]:
    """What the row says besides the item's own fields; `messages` where the prompt's text does not tell them."""
    facts: dict[str, Any] = {}
    if kind is not None:
        facts = {name: value for name, value in values.items() if name not in FIELDS[kind] and name not in OURS}
    if name := _plain(values, "comparison_id"):
        facts["comparison_id"] = name
    if prompt.source:
        facts["source"] = _text(prompt.source, "source")
    only = prompt.messages[0].content
    if len(prompt.messages) > 1 or is_dialogue(only) or prompt_messages(only) != prompt.messages:
        facts["messages"] = [dataclasses.asdict(each) for each in prompt.messages]
    return facts


def _gold(values: Values, choices: tuple[str, ...]) -> str | None:
    gold = values.get("gold")
    if gold is not None and gold not in choices:
        raise InputError(f"unknown choice {shown(gold)}", field="gold", remedy=f"give one of {', '.join(choices)}")
    return gold


def _plain(values: Values, field: str) -> str:
    """A short text that may be absent; whole numbers pass, as names often are."""
    value = values.get(field)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return str(value)
    return _text(optional_text(values, field), field)


def _text(value: Any, field: str) -> str:
    """Text that every database can hold: kept as it is, whatever its direction and however little of it is visible."""
    text = text_of(value, field)
    if "\0" in text:
        raise InputError("holds a NUL byte", field=field, remedy="remove it")
    return text


def as_json(facts: Mapping[str, Any]) -> str:
    """Facts as the database holds them. ASCII: a column of somebody else's may hold halves of surrogate pairs."""
    return json.dumps(facts, ensure_ascii=True, default=str)
