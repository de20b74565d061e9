"""What is watched: one visible list of numbers that a response has, each with what an alarm on it asks for.

Signals of the text and of the score tell after the fact that a policy writes differently, not that it writes worse: an
alarm on them asks for a look. Only what nothing was optimised against may stop a run (`held_out.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prefloop.monitor.rows import Observed
from prefloop.signals.citations import cited
from prefloop.signals.measures import SIGNALS
from prefloop.signals.reading import Reading, words_of
from prefloop.types import Action

Floats = NDArray[np.float64]
OPENING_WORDS = 4
"""Words by which two responses open alike."""
SHARES = ("hedging", "confidence", "citation", "disclaimer", "flattery", "list_format", "exclamation", "refusal")


@dataclass(frozen=True)
class Measure:
    """A number for each response of a look; its mean is what is watched."""

    name: str
    what: str
    """The mean, in words."""
    kind: Literal["share", "mean"]
    """A share must change by a number of points to be worth an alarm, a mean by a part of itself."""
    values: Callable[[Sequence[Observed]], Floats]
    """[n], nan where it does not apply."""
    action: Action = "review"
    both_ways: bool = False
    """Whether a fall is an alarm, too."""
    counted: bool = False
    """Whether a response either has it or not."""
    pairwise: bool = False
    """Whether a response's value compares it with the others."""


def _of_text(name: str) -> Callable[[Sequence[Observed]], Floats]:
    signal = SIGNALS[name]

    def values(rows: Sequence[Observed]) -> Floats:
        found = [signal(row.response) for row in rows]
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    return values


def _any_of(name: str) -> Callable[[Sequence[Observed]], Floats]:
    """1 where the response has any of it, else 0."""
    count = _of_text(name)

    def values(rows: Sequence[Observed]) -> Floats:
        found = count(rows)
        return np.where(np.isnan(found), np.nan, found > 0)

    return values


def openings(rows: Sequence[Observed]) -> Floats:
    """For each response the share of the responses to other prompts that begin with the same words."""
    begun = [tuple(words_of(row.response)[:OPENING_WORDS]) for row in rows]
    alike, own = Counter(begun), Counter(zip(begun, (row.prompt_id for row in rows), strict=True))
    prompts = Counter(row.prompt_id for row in rows)
    return np.array(
        [
            (alike[words] - own[words, row.prompt_id]) / others
            if (others := len(rows) - prompts[row.prompt_id])
            else 0.0
            for words, row in zip(begun, rows, strict=True)
        ]
    )


def _foreign(rows: Sequence[Observed]) -> Floats:
    languages = [Reading(row.response).language for row in rows]
    return np.array([np.nan if language == "unknown" else language == "other" for language in languages], dtype=float)


def _cut_off(rows: Sequence[Observed]) -> Floats:
    return np.array([np.nan if row.finished is None else not row.finished for row in rows], dtype=float)


def _far(rows: Sequence[Observed]) -> Floats:
    return np.array([np.nan if row.far is None else row.far for row in rows], dtype=float)


def _spread(rows: Sequence[Observed]) -> Floats:
    return np.array([np.nan if row.score_spread is None else row.score_spread for row in rows], dtype=float)


def _unverified(known: frozenset[str]) -> Callable[[Sequence[Observed]], Floats]:
    return lambda rows: np.array([float(bool(cited(row.response) - known)) for row in rows])


def measures(sources: frozenset[str] | None = None) -> tuple[Measure, ...]:
    """Everything that is watched in a response; with `sources` also citations of what is not among them."""
    marked = tuple(
        Measure(
            name,
            f"responses with {SIGNALS[name].what}",
            "share",
            _any_of(name),
            both_ways=name == "refusal",
            counted=True,
        )
        for name in SHARES
    )
    verified = (
        ()
        if sources is None
        else (
            Measure(
                "unverified_citation",
                "responses that cite an unknown source",
                "share",
                _unverified(sources),
                counted=True,
            ),
        )
    )
    return (
        Measure("length", "characters", "mean", _of_text("length")),
        Measure("repetition", "repeated three-word runs", "share", _of_text("repetition")),
        *marked,
        *verified,
        Measure("openings", "other responses that open alike", "share", openings, pairwise=True),
        Measure("language", "responses that are not English", "share", _foreign, both_ways=True, counted=True),
        Measure("cut_off", "responses that were cut off", "share", _cut_off, counted=True),
        Measure("score_spread", "disagreement of the ensemble", "mean", _spread),
        Measure(
            "out_of_distribution",
            "responses out of the reward model's distribution",
            "share",
            _far,
            counted=True,
        ),
    )
