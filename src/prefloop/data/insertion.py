"""A sentence put into a response, and taken from one: what augmentation trains on and audits probe with."""

from __future__ import annotations


def inserted(response: str, sentence: str, *, where: float) -> str:
    """The response with a sentence at one of the ends of its sentences, or before them; `where` in [0, 1) picks one."""
    ends = [0, *(place + 1 for place, mark in enumerate(response[:-1]) if mark in ".!?" and response[place + 1] == " ")]
    ends.append(len(response))
    place = ends[int(where * len(ends))]
    parts = (response[:place].rstrip(" "), sentence, response[place:].lstrip(" "))
    return " ".join(part for part in parts if part)


def sentences_of(response: str) -> list[str]:
    """The sentences of a response, all but the last without their full stop; the whole of it where it has none."""
    parts = [part.strip() for part in response.replace("\n", ". ").split(". ")]
    return [part for part in parts if part] or [response.strip()]
