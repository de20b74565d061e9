"""References to sources by their shape, to be held against a list of known ones; and whether a text owns up to not
knowing. English; no model, no net: a reference that is not on the list may still exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from prefloop.signals.lexicons import PhraseIndex
from prefloop.signals.measures import REFERENCE
from prefloop.signals.reading import Reading

_NAMED = re.compile(
    r"\b10\.\d{4,9}/\S+"  # a DOI
    r"|\barXiv:\s?\d{4}\.\d{4,5}"
    r"|\b[A-Z][\w'-]+ et al\b"
    r"|\b[A-Z][\w'-]+(?: (?:and|&) [A-Z][\w'-]+)? \((?:19|20)\d\d[a-z]?\)"  # Miller (2019), Rao and Li (2020)
    r"|\b(?:[Vv]ol(?:ume|\.)|[Cc]hapter) \d+"
)
ADMISSIONS = (
    "i don't|didn't|can't|couldn't|cannot know|find|verify|confirm|locate|recognize|recognise|identify",
    "i do|did|could not know|find|verify|confirm|locate|recognize|recognise|identify",
    "i don't have any|reliable|enough|specific information|record|records|details|data|knowledge",
    "i do not have any|reliable|enough|specific information|record|records|details|data|knowledge",
    "i have no information|record|records|details|knowledge",
    "i'm not aware|familiar",
    "i am|was not aware|familiar",
    "i'm unable to verify|confirm|find|locate|identify",
    "i am unable to verify|confirm|find|locate|identify",
    "there is|was|are|were no such|record|records|evidence|information",
    "no such",
    "no record|records|information of|about|on",
    "does|do|did not exist",
    "doesn't|don't|didn't exist",
    "doesn't|don't appear|seem to",
    "does|do not appear|seem to",
    "never heard of",
    "not a real",
    "appears|seems to be fictional|invented|fictitious",
    "is|are fictional|fictitious",
)
"""Phrases by which a text says that it does not know, or that there is no such thing. Plain English that anybody may
use; no audit looks for them."""

_ADMISSIONS = PhraseIndex(ADMISSIONS)


def references(text: str) -> list[str]:
    """What looks like a reference: links, DOIs, [3], (Name, year), Name et al., pages, volumes; in the text's order."""
    found = [match for pattern in (REFERENCE, _NAMED) for match in pattern.finditer(text)]
    return [match.group() for match in sorted(found, key=lambda match: match.start())]


def unknown_references(text: str, known: Iterable[str] = ()) -> list[str]:
    """The references of a text after everything that `known` lists has been taken out of it."""
    for source in sorted(known, key=len, reverse=True):
        text = text.replace(source, " ")
    return references(text)


def admits_not_knowing(text: str) -> bool:
    """Whether an English text says that it does not know, or that what it was asked about does not exist."""
    reading = Reading(text)
    return _ADMISSIONS.count(reading.words, reading.vocabulary) > 0
