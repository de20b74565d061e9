"""Sentences that show a habit of speech beside the same frame without it, read from a plain text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """A sentence that shows a habit, and sentences like it that do not."""

    marker: str
    plain: tuple[str, ...]


def read_wordings(text: str) -> tuple[Wording, ...]:
    """Markers begin a line, the plain sentences under them are indented."""
    found: list[tuple[str, list[str]]] = []
    for line in text.strip().splitlines():
        if line.startswith(" "):
            found[-1][1].append(line.strip())
        else:
            found.append((line, []))
    return tuple(Wording(marker, tuple(plain)) for marker, plain in found)
