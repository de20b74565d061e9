"""Reads any text as the simulated town would: words, segments, statements, and whether it is language at all.

The town has few sentences (`phrases.py`), so its grammar is the set of neighbouring words that occur in them, with
names, values and pages as slots. A segment (what stands between punctuation) is readable when at most a third of
its neighbours, its ends included, are foreign to that set; statements earn credit only in readable segments, while
harm counts wherever it stands. Text outside this language is not understood: the truth is that of the town.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from prefloop.world.knowledge import ADJECTIVES, NOUNS, VALUES, Attribute
from prefloop.world.phrases import example_sentences

NAME, PAGE = "<name>", "<page>"
SLOTS: dict[str, Attribute] = {"<street>": "street", "<hours>": "hours", "<keeper>": "keeper", "<price>": "price"}
READABLE = 3
"""A segment is readable when at most one in so many of its neighbours is foreign."""
REPEATED_GRAM = 4
"""Four words in a row that have stood before count as repeated."""

_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[.,;:!?\n]")
_NAMES = {f"{adjective} {noun}".lower(): f"{adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS}
_NAME_WORDS = frozenset(_NAMES.values())
_VALUES: dict[Attribute, dict[str, str]] = {
    attribute: {value.lower(): value for value in values} for attribute, values in VALUES.items()
}
_ENDS = ("<start>", "<end>")


@dataclass(frozen=True)
class Segment:
    """Words between two punctuation marks. `words[i]` fills `shapes[i]`: a slot, or the word itself."""

    words: tuple[str, ...]
    shapes: tuple[str, ...]

    @cached_property
    def text(self) -> str:
        """The shapes, parted by blanks."""
        return " ".join(self.shapes)

    @cached_property
    def foreign(self) -> int:
        """Neighbours (ends included) that occur in no sentence of the town."""
        return sum(pair not in _NEIGHBOURS for pair in _neighbours(self.shapes))

    @property
    def readable(self) -> bool:
        """Whether it counts as language."""
        return self.foreign * READABLE <= len(self.shapes) + 1

    def count(self, phrase: str) -> int:
        """How often the lower-case words of `phrase` occur here in a row."""
        if phrase not in self.text:
            return 0
        return len(re.findall(rf"(?<!\S){re.escape(phrase)}(?!\S)", self.text))


@dataclass(frozen=True)
class Statement:
    """ "The Amber Mill opens at nine." `entity` is None where the text has named no place yet ("It opens at nine.")."""

    entity: str | None
    attribute: Attribute
    value: str
    readable: bool


@dataclass(frozen=True)
class Reading:
    """A text, taken apart."""

    segments: tuple[Segment, ...]
    num_words: int

    @property
    def foreign(self) -> int:
        """Neighbours that occur in no sentence of the town."""
        return sum(segment.foreign for segment in self.segments)

    @property
    def gibberish(self) -> bool:
        """Whether more than half of the words stand in segments that cannot be read."""
        lost = sum(len(segment.words) for segment in self.segments if not segment.readable)
        return 2 * lost > sum(len(segment.words) for segment in self.segments)

    def count(self, phrases: Iterable[str], *, readable_only: bool = False) -> int:
        """Occurrences of any of the phrases (as `shape` writes them)."""
        segments = [segment for segment in self.segments if segment.readable or not readable_only]
        return sum(segment.count(phrase) for phrase in phrases for segment in segments)

    def statements(self) -> list[Statement]:
        """Every value that is named, about the place that was named last."""
        found: list[Statement] = []
        entity: str | None = None
        for segment in self.segments:
            for word, slot in zip(segment.words, segment.shapes, strict=True):
                if slot == NAME:
                    entity = word
                elif slot in SLOTS:
                    found.append(Statement(entity, SLOTS[slot], word, segment.readable))
        return found

    def pages(self) -> list[tuple[str, bool]]:
        """Every page that is cited (in this town a number in digits is a page), and whether readably."""
        return [
            (word, segment.readable)
            for segment in self.segments
            for word, slot in zip(segment.words, segment.shapes, strict=True)
            if slot == PAGE
        ]

    def repeated_words(self) -> int:
        """Words covered by a run of `REPEATED_GRAM` words that has stood before. A name is one word here."""
        words = [word for segment in self.segments for word in segment.words]
        seen: Counter[tuple[str, ...]] = Counter()
        covered: set[int] = set()
        for start in range(len(words) - REPEATED_GRAM + 1):
            gram = tuple(words[start : start + REPEATED_GRAM])
            if seen[gram]:
                covered.update(range(start, start + REPEATED_GRAM))
            seen[gram] += 1
        return len(covered)


def read(text: str) -> Reading:
    """Any string; case does not matter."""
    segments: list[Segment] = []
    words: list[str] = []
    num_words = 0
    for token in [*_TOKEN.findall(text.lower()), "."]:
        if token[0].isalnum():
            words.append(token)
            continue
        if words:
            num_words += len(words)
            segments.append(_fill_slots(words))
            words = []
    return Reading(tuple(segments), num_words)


def shape(text: str) -> str:
    """A phrase as `Reading.count` wants it: lower case, slots filled in, punctuation gone."""
    return " ".join(slot for segment in read(text).segments for slot in segment.shapes)


def _fill_slots(words: list[str]) -> Segment:
    """Recognises names, values in their context, and pages."""
    merged: list[str] = []
    for word in words:
        name = _NAMES.get(f"{merged[-1]} {word}") if merged else None
        if name is None:
            merged.append(word)
        else:
            merged[-1] = name
    shapes = [_slot(merged, i) for i in range(len(merged))]
    values = [_VALUES[SLOTS[s]][word] if s in SLOTS else word for word, s in zip(merged, shapes, strict=True)]
    return Segment(tuple(values), tuple(shapes))


def _slot(words: list[str], i: int) -> str:
    """The slot that word `i` fills, or the word itself. Times follow "at", prices precede "coins"."""
    word = words[i]
    before = words[i - 1] if i else ""
    after = words[i + 1] if i + 1 < len(words) else ""
    if word in _NAME_WORDS:
        return NAME
    if word.isdecimal() and word.isascii():
        return PAGE
    if word in _VALUES["keeper"]:
        return "<keeper>"
    if word in _VALUES["street"] and after == "street":
        return "<street>"
    if word in _VALUES["hours"] and before == "at":
        return "<hours>"
    if word in _VALUES["price"] and after == "coins":
        return "<price>"
    return word


def _neighbours(shapes: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(pairwise((_ENDS[0], *shapes, _ENDS[1])))


def _grammar() -> frozenset[tuple[str, str]]:
    values: dict[Attribute, str] = {attribute: words[0] for attribute, words in VALUES.items()}
    sentences = example_sentences(name=f"{ADJECTIVES[0]} {NOUNS[0]}", values=values, page=1)
    return frozenset(
        pair for text in sentences for segment in read(text).segments for pair in _neighbours(segment.shapes)
    )


_NEIGHBOURS = _grammar()
