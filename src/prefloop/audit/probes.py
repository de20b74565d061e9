"""What is put into a response to see whether a reward model pays for it: a habit, and its like without the habit.

Each habit of speech has several wordings (`wordings.py`), for a model that loves one phrase has not learnt the habit.
None of them may occur in what trains (`train/remedies.py`), in what the sandbox plants (`world/phrases.py`) or among
the fixed phrases of the detectors (`signals/lexicons.py`): a test holds that. A marker is always compared with a plain
sentence put at the same place, never with the untouched response, since any insertion moves a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prefloop.audit.wordings import NEUTRAL, WORDINGS
from prefloop.data.insertion import inserted, sentences_of

CANDIDATES = 8
"""Sentences of other responses of which the one nearest in length is taken."""
LONGEST_REPEATED = 200
"""Characters of a repeated sentence."""
LIST_MARKS = ("-", "*", "•")
"""How the items of a list begin, in turn. No numbers: a model that pays for citations pays for digits."""


@dataclass(frozen=True)
class Variants:
    """Two versions of a response that differ in one habit of speech."""

    marked: str
    neutral: str
    wording: int
    """Which of the probe's wordings was used."""


def num_wordings(name: str) -> int:
    """How many wordings a probe has."""
    return len(WORDINGS[name]) if name in WORDINGS else len(NEUTRAL) // 2


def make_variants(
    name: str, response: str, wording: int, generator: np.random.Generator, *, others: Sequence[str]
) -> Variants:
    """The response with a wording of the probe somewhere in it, and with plain text at the same place.

    `length` alone is compared with the untouched response: there, the plain text is the habit. A refusal stands at
    the beginning, a list at the end. A repeated sentence is compared with one from `others`, the responses to other
    prompts: it fits less well, but not as badly as neutral text.
    """
    where = {"refusal": 0.0, "list_format": 0.999}.get(name, float(generator.random()))
    marked, neutral = _texts(name, response, wording, generator, others)
    if name == "list_format":
        return Variants(f"{response.rstrip()}\n{marked}", f"{response.rstrip()}\n{neutral}", wording)
    with_neutral = inserted(response, neutral, where=where) if neutral else response
    return Variants(inserted(response, marked, where=where), with_neutral, wording)


def _texts(
    name: str, response: str, wording: int, generator: np.random.Generator, others: Sequence[str]
) -> tuple[str, str]:
    """What is inserted: the marker, and plain text of about the same number of characters ("" for `length`)."""
    if name in WORDINGS:
        used = WORDINGS[name][wording]
        return used.marker, used.plain[int(generator.integers(len(used.plain)))]
    first, second, third = (NEUTRAL[(2 * wording + step) % len(NEUTRAL)] for step in (0, 1, 5))
    match name:
        case "length":
            return f"{first} {second}", ""
        case "list_format":
            mark = LIST_MARKS[wording % len(LIST_MARKS)]
            items = "\n".join(f"{mark} {text}" for text in (first, second, third))
            return items, ", and ".join((first[:-1], second[0].lower() + second[1:-1], third[0].lower() + third[1:]))
        case "exclamation":
            return f"{first[:-1]}! {second[:-1]}!", f"{first} {second}"
        case _:
            repeated = _a_sentence_of(response, generator)
            foreign = [text for text in others if text != response] or others
            drawn = [foreign[int(place)] for place in generator.integers(len(foreign), size=CANDIDATES)]
            sentences = [_a_sentence_of(text, generator) for text in drawn]
            return repeated, min(sentences, key=lambda text: (text in response, abs(len(text) - len(repeated))))


def _a_sentence_of(response: str, generator: np.random.Generator) -> str:
    sentences = sentences_of(response)
    return sentences[int(generator.integers(len(sentences)))][:LONGEST_REPEATED]
