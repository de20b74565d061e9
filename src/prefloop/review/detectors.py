"""What makes a response suspicious: one visible list of detectors, each a reason that a row has, and how rare it is.

A detector looks at numbers that a log has, and compares responses with the others of the log. None of them knows what
is good: a reason says "read this", and how often it is right is measured on verdicts of people (`precision.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

TAIL = 0.05
"""Share of a log that is far out in one number."""
UPPER = 0.75
"""Quantile above which both score and spread must lie: of unrelated ones a sixteenth does."""
ALARM, MONITOR, RANDOM = "alarm", "monitor", "random"
"""`alarm:SIGNAL`: shown by an alarm of the run. `monitor:SIGNAL`: in a look in which the signal was beyond its limit,
and beyond it itself. `random`: drawn by lot."""


@dataclass(frozen=True)
class Logged:
    """A response of a log with what is known of it."""

    prompt_id: str
    prompt: str
    response: str
    score: float
    step: int
    kl: float | None = None
    score_spread: float | None = None
    held_out_score: float | None = None
    out_of_distribution: float | None = None
    """1 or 0, or a distance."""
    finish_reason: str | None = None
    policy_version: str = ""
    alarms: tuple[str, ...] = ()
    """Signals whose alarm shows this response."""
    beyond: tuple[str, ...] = ()
    """Signals beyond their limit in its look, and in itself."""


@dataclass(frozen=True)
class Suspicion:
    """How a row stands among the others."""

    reasons: tuple[str, ...]
    value: float
    """Sum over the families of its reasons of -log(share of the log that is at least as far out)."""

    @property
    def alarms(self) -> int:
        """How many alarms show it."""
        return sum(reason.startswith(f"{ALARM}:") for reason in self.reasons)


FAMILIES: Mapping[str, str] = {
    "kl": "distance",
    "out_of_distribution": "distance",
    "score_and_spread": "score",
    f"{MONITOR}:out_of_distribution": "distance",
    f"{MONITOR}:score_spread": "score",
    "held_out_gap": "held_out",
}
"""Reasons that say much the same count once. All others are of the family "text"."""


def suspicions(rows: Sequence[Logged]) -> list[Suspicion]:
    """The reasons of each row, and how far out it is."""
    found: list[dict[str, float]] = [{} for _ in rows]
    for name, (statistic, flagged) in _numbers(rows).items():
        share = _share_as_far(statistic)
        for place in np.flatnonzero(flagged).tolist():
            found[place][name] = float(share[place])
    for prefix, marks in ((MONITOR, [row.beyond for row in rows]), (ALARM, [row.alarms for row in rows])):
        counts: dict[str, int] = {}
        for names in marks:
            for name in names:
                counts[name] = counts.get(name, 0) + 1
        for place, names in enumerate(marks):
            found[place] |= {f"{prefix}:{name}": counts[name] / len(rows) for name in names}
    return [Suspicion(tuple(sorted(shares)), _combined(shares)) for shares in found]


def _combined(shares: Mapping[str, float]) -> float:
    """Rare in several respects is rarer still: Fisher's (1932) sum, of the rarest reason of each family."""
    rarest: dict[str, float] = {}
    for name, share in shares.items():
        family = FAMILIES.get(name, "text")
        rarest[family] = min(share, rarest.get(family, 1.0))
    return 0.0 - math.fsum(math.log(share) for share in rarest.values())


def _numbers(rows: Sequence[Logged]) -> dict[str, tuple[Floats, Flags]]:
    """By detector: its statistic, nan where it is not known, and which rows it flags."""
    score = _quantiles(_column(rows, lambda row: row.score))
    spread = _quantiles(_column(rows, lambda row: row.score_spread))
    held_out = _column(rows, lambda row: row.held_out_score)
    gap = _quantiles(np.where(np.isnan(held_out), np.nan, _column(rows, lambda row: row.score))) - _quantiles(held_out)
    kl = _column(rows, lambda row: row.kl)
    outside = _column(rows, lambda row: row.out_of_distribution)
    return {
        "score_and_spread": (np.minimum(score, spread), (score >= UPPER) & (spread >= UPPER)),
        "held_out_gap": (gap, _is_far(gap) & (gap > 0)),
        "kl": (kl, _is_far(kl)),
        "out_of_distribution": (outside, outside == 1 if _is_yes_or_no(outside) else _is_far(outside)),
    }


def _column(rows: Sequence[Logged], value: Callable[[Logged], float | None]) -> Floats:
    return np.array([math.nan if (each := value(row)) is None else each for row in rows], dtype=np.float64)


def _quantiles(values: Floats) -> Floats:
    """Share of the known values that are smaller, equal ones counted half; nan where nothing is known."""
    known = ~np.isnan(values)
    found = np.full(len(values), math.nan)
    if known.any():
        found[known] = (rankdata(values[known]) - 0.5) / known.sum()
    return found


def _share_as_far(values: Floats) -> Floats:
    """Share of all rows whose value is known and at least as high."""
    known = np.sort(values[~np.isnan(values)])
    at_least: Floats = (len(known) - np.searchsorted(known, values, side="left")) / len(values)
    return np.maximum(at_least, 1 / len(values))


def _is_far(values: Floats) -> Flags:
    """The highest twentieth of what is known; none of it where so many are equal that more would be."""
    far: Flags = _share_as_far(values) * len(values) <= TAIL * (~np.isnan(values)).sum()
    return far & ~np.isnan(values)


def _is_yes_or_no(values: Floats) -> bool:
    known = values[~np.isnan(values)]
    return bool(len(known)) and bool(np.isin(known, (0.0, 1.0)).all())
