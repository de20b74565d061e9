"""Files to records: `read_pairs`, `read_demonstrations`, `read_prompts`, `read_unpaired`, each also as an iterator.

A source is `PATH` or `PATH@WEIGHT`. Rows that cannot be used stop the reading with an InputError, or with `skip_bad`
are counted and listed. The iterators hold one row at a time; only judgments are gathered, because a pair needs all the
votes on it, and come at the end of their file.

Pairs are made of rows with chosen and rejected, rankings, ratings and judgments. Demonstrations are also made of pairs
(the chosen response), rankings and ratings (the best one), judgments (the winner) and unpaired rows (label true).
Prompts are made of every kind.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from prefloop.console import say
from prefloop.data.dialogue import short_hash
from prefloop.data.stream import (
    BadRow,
    Tally,
    demonstrations_of_file,
    pairs_of_file,
    parse_source,
    prompts_of_file,
    unpaired_of_file,
)
from prefloop.types import Demonstration, InputError, LabelledResponse, PreferencePair, Prompt

MAX_NAMED = 5
"""How many of the rows left out are named."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """Everything that the sources hold. `num_rows` counts the bad ones too; `counts` is as in Tally."""

    records: list[T]
    num_rows: int
    bad: list[BadRow]
    counts: dict[str, int]


def read_pairs(sources: Sequence[str], *, skip_bad: bool = False, keep_ties: bool = False) -> Loaded[PreferencePair]:
    """All pairs, with `keep_ties` also those that say they are ties.

    Raises InputError for a bad row (unless `skip_bad`), and where no row can be used.
    """
    return _read(iter_pairs, sources, skip_bad, keep_ties=keep_ties)


def read_demonstrations(sources: Sequence[str], *, skip_bad: bool = False) -> Loaded[Demonstration]:
    """All demonstrations. Raises as `read_pairs` does."""
    return _read(iter_demonstrations, sources, skip_bad)


def read_unpaired(sources: Sequence[str], *, skip_bad: bool = False) -> Loaded[LabelledResponse]:
    """All labelled responses. Raises as `read_pairs` does."""
    return _read(iter_unpaired, sources, skip_bad)


def read_prompts(sources: Sequence[str], *, skip_bad: bool = False) -> Loaded[Prompt]:
    """The prompts, each once for the same columns; repetitions are counted as `repeated_prompts`.

    Raises as `read_pairs` does.
    """
    return _read(iter_distinct_prompts, sources, skip_bad)


def iter_pairs(
    sources: Sequence[str], *, skip_bad: bool = False, tally: Tally | None = None
) -> Iterator[PreferencePair]:
    """Yield the pairs in the order of the files. A given `tally` is filled, and its `skip_bad` holds."""
    tally = tally or Tally(skip_bad)
    for source in map(parse_source, sources):
        for line, pair in pairs_of_file(source, tally):
            yield dataclasses.replace(pair, place=f"{source.path}:{line}")


def iter_demonstrations(
    sources: Sequence[str], *, skip_bad: bool = False, tally: Tally | None = None
) -> Iterator[Demonstration]:
    """Yield the demonstrations in the order of the files; as `iter_pairs`."""
    tally = tally or Tally(skip_bad)
    for source in map(parse_source, sources):
        for line, demonstration in demonstrations_of_file(source, tally):
            yield dataclasses.replace(demonstration, place=f"{source.path}:{line}")


def iter_unpaired(
    sources: Sequence[str], *, skip_bad: bool = False, tally: Tally | None = None
) -> Iterator[LabelledResponse]:
    """Yield the labelled responses in the order of the files; as `iter_pairs`."""
    tally = tally or Tally(skip_bad)
    for source in map(parse_source, sources):
        for line, response in unpaired_of_file(source, tally):
            yield dataclasses.replace(response, place=f"{source.path}:{line}")


def iter_prompts(sources: Sequence[str], *, skip_bad: bool = False, tally: Tally | None = None) -> Iterator[Prompt]:
    """Yield the prompt of every row in the order of the files, repetitions included; as `iter_pairs`."""
    tally = tally or Tally(skip_bad)
    for source in map(parse_source, sources):
        for line, prompt in prompts_of_file(source, tally):
            yield dataclasses.replace(prompt, place=f"{source.path}:{line}")


def iter_distinct_prompts(
    sources: Sequence[str], *, skip_bad: bool = False, tally: Tally | None = None
) -> Iterator[Prompt]:
    """Yield each prompt once for the same columns; holds a hash of each. Else as `iter_pairs`."""
    tally = tally or Tally(skip_bad)
    seen: set[str] = set()
    for prompt in iter_prompts(sources, tally=tally):
        # Parquet has values that JSON has not; what they look like tells them apart.
        columns = json.dumps(prompt.columns, sort_keys=True, default=repr)
        key = short_hash(prompt.prompt_id, columns)
        if key in seen:
            tally.counts["repeated_prompts"] += 1
        else:
            seen.add(key)
            yield prompt


class _Reader(Protocol[T_co]):
    def __call__(self, sources: Sequence[str], *, tally: Tally) -> Iterator[T_co]: ...


def _read(reader: _Reader[T], sources: Sequence[str], skip_bad: bool, *, keep_ties: bool = False) -> Loaded[T]:
    tally = Tally(skip_bad, keep_ties)
    records = list(reader(sources, tally=tally))
    if not records:
        raise nothing_usable(tally, ", ".join(sources))
    tell_left_out(tally)
    return Loaded(records, tally.num_rows, tally.bad, dict(tally.counts))


def tell_left_out(tally: Tally) -> None:
    """Say which rows gave no record: the bad ones by their place, the others by their number."""
    if tally.bad:
        named = [
            f"{row.path}:{row.line} ({f'{row.field}: ' if row.field else ''}{row.problem})"
            for row in tally.bad[:MAX_NAMED]
        ]
        more = ", ..." if len(tally.bad) > MAX_NAMED else ""
        say(f"left out {len(tally.bad)} of {tally.num_rows} rows that cannot be used: {', '.join(named)}{more}")
    counted = {name: count for name, count in tally.counts.items() if count}
    if counted:
        say(f"rows without a record of their own: {', '.join(f'{name} {count}' for name, count in counted.items())}")


def nothing_usable(tally: Tally, path: str) -> InputError:
    """The error for sources that hold rows, none of which gave a record."""
    if not tally.bad:
        counts = ", ".join(f"{name} {count}" for name, count in tally.counts.items())
        return InputError(f"no row of {tally.num_rows} gives a record ({counts})", path=path)
    first = tally.bad[0]
    place = f"{first.field}: {first.problem}" if first.field else first.problem
    return InputError(f"none of {tally.num_rows} rows can be used; here: {place}", path=first.path, line=first.line)
