"""Numbers and texts of a row of measurements. Errors name the field; file and line are added by the reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from prefloop.console import say
from prefloop.data.read import nothing_usable, tell_left_out
from prefloop.data.rows import Row, shown
from prefloop.data.stream import Source, Tally, parsed_rows
from prefloop.types import InputError

R = TypeVar("R")


def number(values: Mapping[str, Any], field: str, *, low: float | None = None, high: float | None = None) -> float:
    """A finite number, within `low` and `high` where they are given. Raises InputError where it is anything else."""
    value = values.get(field)
    if value is None:
        raise InputError("is missing" if field not in values else "is null", field=field, remedy=_wanted(low, high))
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise InputError(f"is {shown(value)}", field=field, remedy=_wanted(low, high))
    if (low is not None and value < low) or (high is not None and value > high):
        raise InputError(f"is {shown(value)}", field=field, remedy=_wanted(low, high))
    return float(value)


def _wanted(low: float | None, high: float | None) -> str:
    if low is None:
        return "give a number"
    return f"give a number from {low:g} to {high:g}" if high is not None else f"give a number of at least {low:g}"


def read_rows(path: str, parse: Callable[[Row], R], *, skip_bad: bool) -> tuple[list[R], Tally]:
    """What `parse` makes of every row. Raises InputError for a bad row (unless `skip_bad`), and where none is good."""
    tally = Tally(skip_bad)
    parsed = [made for _, made in parsed_rows(Source(path), tally, parse)]
    if not parsed:
        raise nothing_usable(tally, path)
    tell_left_out(tally)
    return parsed, tally


def warn(warnings: list[str], text: str) -> None:
    """Say it now, and keep it for the answer."""
    say(f"warning: {text}")
    warnings.append(text)
