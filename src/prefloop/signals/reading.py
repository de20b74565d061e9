"""A text as its words, and which language it seems to be in: what every signal looks at.

The language check knows English and "not English" only, by the share of English function words. It is meant to keep
English word lists away from texts that they say nothing about, not to identify languages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Language = Literal["en", "other", "unknown"]

ENGLISH_SHARE = 0.12
"""From this share of function words on a text is English. Ordinary English has 0.35 to 0.5; German, French, Spanish,
Dutch and Italian have below 0.05 of these words (they leave out those that other languages share, such as "in")."""
FEWEST_WORDS = 8
"""Fewer words than this may hold no function word at all in any language: "unknown"."""
MOSTLY = 0.5
"""Share of letters outside the Latin alphabet from which a text of any length is not English."""

FUNCTION_WORDS = frozenset(
    word
    for line in (
        "the and that is are for with you it this to of have be not your which from they i was as at or we my if about",
        "but there their these those how what why should would can could been its has by don't it's i'm you're when",
        "who where then than them his her she had were because into some any",
    )
    for word in line.split()
)

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'"})
_LAST_LATIN = "\u024f"


def words_of(text: str) -> list[str]:
    """Lower-case words: letters and digits, apostrophes inside a word included, however they are written."""
    return _WORD.findall(text.translate(_QUOTES).lower() if not text.isascii() else text.lower())


def language_of(words: Sequence[str], text: str) -> Language:
    """ "en", "other", or "unknown" for a text too short to tell. `words` are those of `text`."""
    if not words:
        return "unknown"
    if not text.isascii():
        letters = [character for character in text if character.isalpha()]
        if sum(letter > _LAST_LATIN for letter in letters) > MOSTLY * len(letters):
            return "other"
    if len(words) < FEWEST_WORDS:
        return "unknown"
    known = sum(word in FUNCTION_WORDS for word in words)
    return "en" if known >= ENGLISH_SHARE * len(words) else "other"


@dataclass(frozen=True)
class Reading:
    """A text read once, for many signals."""

    text: str

    @cached_property
    def words(self) -> list[str]:
        return words_of(self.text)

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        return frozenset(self.words)

    @cached_property
    def language(self) -> Language:
        return language_of(self.words, self.text)
