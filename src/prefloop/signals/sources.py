"""References that no list of known ones has, and whether a text owns up to not knowing. By shape and by English
phrases, without a model or the net: a reference that is not on the list may still exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from prefloop.signals.citations import cited, normal_source
from prefloop.signals.lexicons import PhraseIndex
from prefloop.signals.reading import Reading

_FURTHER = re.compile(
    r"\b10\.\d{4,9}/[^\s,;)]*\w"  # a DOI
    r"|\barXiv:\s?\d{4}\.\d{4,5}"
    r"|\[\d{1,3}\]"  # [3]
    r"|\b[A-Z][\w'-]+ et al\b"
    r"|\b(?:[Vv]olume|[Vv]ol\.|[Cc]hapter|ISBN) \d[\d-]*"
)
"""What looks like a reference beside the forms that `cited` reads."""
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


def unknown_references(text: str, known: Iterable[str] = ()) -> list[str]:
    """The references of a text that `known` does not list, sorted: links, DOIs, [3], (Name, year), pages, volumes."""
    listed = [*known]
    # A reference that is listed is gone with all its parts: name and year, page and volume.
    for source in sorted(listed, key=len, reverse=True):
        text = text.replace(source, " ")
    found = cited(text) - {normal_source(source) for source in listed}
    return sorted({*found, *_FURTHER.findall(text)})


def admits_not_knowing(text: str) -> bool:
    """Whether an English text says that it does not know, or that what it was asked about does not exist."""
    reading = Reading(text)
    return _ADMISSIONS.count(reading.words, reading.vocabulary) > 0
