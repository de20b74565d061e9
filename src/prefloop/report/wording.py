"""Numbers as words: how a page says what was measured, and what was not.

A difference is called one only beyond two standard errors; everything else is "no measurable change".
"""

from __future__ import annotations

import math
from typing import Literal

from prefloop.statistics.intervals import Estimate

CLEAR_STANDARD_ERRORS = 2.0
MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"

Change = Literal["rose", "fell", "unclear"]


def change(difference: Estimate) -> Change:
    """Whether a difference stands out from its noise."""
    if abs(difference.mean) <= CLEAR_STANDARD_ERRORS * difference.standard_error:
        return "unclear"
    return "rose" if difference.mean > 0 else "fell"


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus sign, never "-0.00"."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """A difference: the sign is written also where it is plus."""
    text = number(value, digits)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def interval(estimate: Estimate) -> str:
    """The 95 % interval, "0.66 to 0.76"."""
    low, high = estimate.interval()
    return f"{number(low)} to {number(high)}"


def difference(estimate: Estimate) -> str:
    """A difference with its interval, "+0.87 (95 % interval 0.82 to 0.92)"."""
    return f"{signed(estimate.mean)} (95{SPACE}% interval {interval(estimate)})"


def short_difference(estimate: Estimate) -> str:
    """A difference with its interval for a table whose header names it, "+0.87 (0.82 to 0.92)"."""
    return f"{signed(estimate.mean)} ({interval(estimate)})"


def percent(share: float) -> str:
    """A share as a whole percentage; not 0 % or 100 % unless it is."""
    if 0 < share < 0.005:
        return f"under 1{SPACE}%"
    if 0.995 <= share < 1:
        return f"over 99{SPACE}%"
    return f"{100 * share:.0f}{SPACE}%"


def duration(seconds: float) -> str:
    """Seconds below two minutes, then minutes and seconds."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def memory(num_bytes: float) -> str:
    """Bytes as MiB or GiB."""
    mebibytes = num_bytes / 2**20
    return f"{mebibytes:.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.2f} GiB"


def count(value: int, noun: str) -> str:
    """ "1 prompt", "1,000 prompts"."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def plain(name: str) -> str:
    """A key of a record as words, "wrong_facts" as "wrong facts"."""
    return name.replace("_", " ")


def compact(value: float) -> str:
    """A metric of unknown size in at most five significant digits."""
    return number(value, 0) if float(value).is_integer() and abs(value) < 1e6 else _general(value)


def _general(value: float) -> str:
    return f"{value:.4g}".replace("-", MINUS) if math.isfinite(value) else str(value)
