"""What is in a data file, as numbers: lengths, turns, sources, repetitions, and how often the longer response won.

Grows with the number of records (ids and lengths), not with their text.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prefloop.data.fields import suggestion
from prefloop.data.split import Record, conversation_key, prompt_key
from prefloop.types import Demonstration, LabelledResponse, Messages, PreferencePair, Prompt

MAX_LISTED = 20
"""How many bad or over-long rows an answer lists; it counts them all."""


@dataclass
class Lengths:
    """Lengths of many texts, in characters (code points) and in words (between white space)."""

    characters: array[int] = field(default_factory=lambda: array("L"))
    words: array[int] = field(default_factory=lambda: array("L"))

    def add(self, text: str) -> None:
        self.characters.append(len(text))
        self.words.append(len(text.split()))

    def summary(self) -> dict[str, dict[str, float]]:
        return {"characters": _quantiles(self.characters), "words": _quantiles(self.words)}


def _quantiles(lengths: array[int]) -> dict[str, float]:
    values = np.asarray(lengths)
    median, p95 = np.percentile(values, [50, 95])
    return {"mean": float(values.mean()), "median": float(median), "p95": float(p95), "max": int(values.max())}


@dataclass
class LongerChosen:
    """In how many pairs the longer response was chosen."""

    num_longer_words: int = 0
    by_prompt: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Prompt -> pairs, those in which chosen has more characters than rejected, those in which it has fewer."""

    def add(self, prompt: str, chosen: str, rejected: str) -> None:
        """Count one pair."""
        pairs, longer, shorter = self.by_prompt.get(prompt, (0, 0, 0))
        more, fewer = len(chosen) > len(rejected), len(chosen) < len(rejected)
        self.by_prompt[prompt] = (pairs + 1, longer + more, shorter + fewer)
        self.num_longer_words += len(chosen.split()) > len(rejected.split())

    def answer(self) -> dict[str, float]:
        """Shares of all pairs; pairs of equal length count as not longer. `by_prompt` weighs every prompt alike."""
        counts = np.array(list(self.by_prompt.values()))
        num_pairs, num_longer, num_shorter = counts.sum(axis=0)
        return {
            "share": float(num_longer / num_pairs),
            "share_by_words": self.num_longer_words / int(num_pairs),
            "share_by_prompt": float((counts[:, 1] / counts[:, 0]).mean()),
            "num_equal": int(num_pairs - num_longer - num_shorter),
        }


@dataclass(frozen=True)
class _View:
    """What the summary looks at in a record of any type."""

    record_id: str
    turns: Messages
    """The prompt, or the whole dialogue of a demonstration."""
    responses: dict[str, str]
    columns: Iterable[str] = ()


def _view(record: Record) -> _View:
    match record:
        case Prompt():
            return _View(record.prompt_id, record.messages, {}, record.columns)
        case PreferencePair():
            responses = {"chosen": record.chosen, "rejected": record.rejected}
            return _View(record.pair_id, record.prompt.messages, responses, record.prompt.columns)
        case LabelledResponse():
            responses = {"completion": record.response}
            return _View(record.response_id, record.prompt.messages, responses, record.prompt.columns)
        case Demonstration():
            answers = [message.content for message in record.completion if message.role == "assistant"]
            turns = (*record.prompt, *record.completion)
            return _View(record.demonstration_id, turns, {"completion": "\n".join(answers)})


@dataclass
class Summary:
    """Takes the records of a file one by one."""

    max_chars: int
    num_records: int = 0
    ids: set[str] = field(default_factory=set)
    prompts: set[str] = field(default_factory=set)
    conversations: set[str] = field(default_factory=set)
    lengths: dict[str, Lengths] = field(default_factory=dict)
    turns: Counter[int] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    num_over_long: int = 0
    over_long: list[dict[str, Any]] = field(default_factory=list)
    longer: LongerChosen = field(default_factory=LongerChosen)

    def add(self, line: int, record: Record) -> None:
        """Count one record that stands on `line`."""
        view, prompt = _view(record), prompt_key(record)
        self.num_records += 1
        self.ids.add(view.record_id)
        self.prompts.add(prompt)
        self.conversations.add(conversation_key(record))
        self.turns[sum(message.role != "system" for message in view.turns)] += 1
        self.sources[record.source] += 1
        # As a list: from a mapping, Counter would take the values for counts.
        self.columns.update(list(view.columns))
        asked = "\n".join(message.content for message in view.turns if message.role == "user")
        self.lengths.setdefault("prompt", Lengths()).add(asked)
        for name, text in view.responses.items():
            self.lengths.setdefault(name, Lengths()).add(text)
            if len(text) > self.max_chars:
                self.num_over_long += 1
                if len(self.over_long) < MAX_LISTED:
                    self.over_long.append({"line": line, "field": name, "characters": len(text)})
        if isinstance(record, PreferencePair):
            self.longer.add(prompt, record.chosen, record.rejected)

    def answer(self) -> dict[str, Any]:
        """All of it, as plain JSON values. Needs at least one record."""
        answer: dict[str, Any] = {
            "num_records": self.num_records,
            "num_duplicates": self.num_records - len(self.ids),
            "num_prompts": len(self.prompts),
            "num_conversations": len(self.conversations),
            "turns": {str(count): self.turns[count] for count in sorted(self.turns)},
            "sources": {source or "(none)": count for source, count in self.sources.most_common()},
            "columns": dict(sorted(self.columns.items())),
            "hints": [
                f"{name}: kept as a further column; did you mean {meant}?"
                for name in sorted(self.columns)
                if (meant := suggestion(name))
            ],
            "lengths": {name: lengths.summary() for name, lengths in self.lengths.items()},
            "max_chars": self.max_chars,
            "num_over_long": self.num_over_long,
            "over_long": self.over_long,
        }
        if self.longer.by_prompt:
            answer["longer_chosen"] = self.longer.answer()
        return answer
