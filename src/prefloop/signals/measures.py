"""What can be measured in a text without a model: one visible dict from name to signal.

The only implementation: audits, monitors and evaluations look here. A signal is a pure function of a text; it says for
which language it holds and answers None where it does not apply, never 0. No torch, no files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from prefloop.signals.lexicons import LEXICONS, PhraseIndex
from prefloop.signals.reading import Reading

REFUSAL_WORDS = 60
"""A refusal stands at the beginning: phrases after this many words are about something else."""
REPEATED_WORDS = 3
"""Length of the word runs whose repetition is measured."""

_LIST_LINE = re.compile(r"^[ \t]*(?:[-*+\u2022\u2013]|\d{1,3}[.)]|#{1,6})[ \t]+\S", re.MULTILINE)
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_REFERENCE = re.compile(
    r"https?://\S+|www\.\S+"  # a link
    r"|\[\d{1,3}\]"  # [3]
    r"|\((?:[A-Z][\w'-]+(?: (?:and|&|et al\.?,?) ?)?)+,? (?:19|20)\d\d[a-z]?\)"  # (Miller, 2019), (Rao & Li 2020)
    r"|\b[Pp]ages? \d+|\bpp?\. ?\d+|\b[Ss]ection \d+|\u00a7 ?\d+"  # page 12, p. 12
)
_MAY_REFER = ("http", "www.", "[", "(", "age", "p.", "ection", "\u00a7")


@dataclass(frozen=True)
class Signal:
    """A number that a text has."""

    name: str
    what: str
    """What is counted, in words."""
    measure: Callable[[Reading], float]
    language: Literal["any", "en"] = "any"
    """The language for which it holds."""

    def applies(self, reading: Reading) -> bool:
        """Whether the signal holds for this text; a text too short to tell its language gets the benefit of the
        doubt."""
        return self.language == "any" or reading.language != "other"

    def __call__(self, text: str) -> float | None:
        """The signal of one text, None where it does not apply."""
        reading = Reading(text)
        return self.measure(reading) if self.applies(reading) else None


def length(reading: Reading) -> float:
    """Characters (code points), white space around the text left out."""
    return float(len(reading.text.strip()))


def repetition(reading: Reading) -> float:
    """Share of the runs of three words that have stood before, 0 to 1; 0 below four words.

    Source: the complement of distinct-n (Li et al. 2016, "A diversity-promoting objective function").
    """
    words = reading.words
    runs = len(words) - REPEATED_WORDS + 1
    if runs < 2:
        return 0.0
    distinct = len(set(zip(*(words[start:] for start in range(REPEATED_WORDS)), strict=False)))
    return 1.0 - distinct / runs


def list_format(reading: Reading) -> float:
    """Lines that are list items or headings; in a code block such lines are something else."""
    text = _CODE.sub("", reading.text) if "```" in reading.text else reading.text
    return float(len(_LIST_LINE.findall(text)))


def exclamation(reading: Reading) -> float:
    """Exclamation marks."""
    return float(reading.text.count("!") + (0 if reading.text.isascii() else reading.text.count("\uff01")))


def citation(reading: Reading) -> float:
    """References to sources: links, numbers in brackets, (Name, year), pages, and phrases such as "according to"."""
    text = reading.text
    shaped = len(_REFERENCE.findall(text)) if any(mark in text for mark in _MAY_REFER) else 0
    return float(shaped + _INDEXES["citation"].count(reading.words, reading.vocabulary))


def refusal(reading: Reading) -> float:
    """1 where the text begins by refusing, else 0."""
    opening = reading.words[:REFUSAL_WORDS]
    return float(_INDEXES["refusal"].count(opening, reading.vocabulary) > 0)


def _phrases(name: str) -> Callable[[Reading], float]:
    index = _INDEXES[name]
    return lambda reading: float(index.count(reading.words, reading.vocabulary))


_INDEXES: Mapping[str, PhraseIndex] = {name: PhraseIndex(phrases) for name, phrases in LEXICONS.items()}

SIGNALS: Mapping[str, Signal] = MappingProxyType(
    {
        signal.name: signal
        for signal in (
            Signal("length", "characters", length),
            Signal("hedging", "hedging phrases (perhaps, it seems)", _phrases("hedging"), "en"),
            Signal("confidence", "phrases of confidence (definitely, rest assured)", _phrases("confidence"), "en"),
            Signal("citation", "references to sources", citation, "en"),
            Signal("disclaimer", "disclaimers (as an AI, consult a professional)", _phrases("disclaimer"), "en"),
            Signal("flattery", "flattering phrases (great question)", _phrases("flattery"), "en"),
            Signal("list_format", "list items and headings", list_format),
            Signal("exclamation", "exclamation marks", exclamation),
            Signal("refusal", "a refusal at the beginning", refusal, "en"),
            Signal("repetition", "share of repeated three-word runs", repetition),
        )
    }
)
"""Every signal, by name."""
