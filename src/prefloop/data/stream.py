"""The rows of one source as records of one type, each with its line, and an account of the rows that gave none.

One row is held at a time. Judgments are the exception: a pair needs all votes on a comparison, so they are gathered and
their pairs come at the end of the file.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from prefloop.data.fields import kind_of, missing
from prefloop.data.formats import (
    Values,
    annotator_of,
    compared_responses,
    demonstration_of,
    judged_of,
    labelled_of,
    make_demonstration,
    pair_of,
    prompt_of,
    row_weight,
)
from prefloop.data.pairs import JudgmentTable, derive_pairs, pairs_by_score, ranks_of_order
from prefloop.data.rows import Row, stream_rows
from prefloop.types import (
    Comparison,
    Demonstration,
    InputError,
    Judgment,
    LabelledResponse,
    Message,
    PreferencePair,
    Prompt,
)

R = TypeVar("R")
OnVote = Callable[[Comparison, Judgment], None]
"""Takes a vote on a comparison whose A and B are in the one order that all votes on these two responses share."""
SKIP_REMEDY = "--skip-bad leaves such rows out"


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    path: str
    line: int
    field: str
    problem: str


@dataclass
class Tally:
    """What a reading met so far. `counts` holds what yielded no record though nothing was wrong with it, by name."""

    skip_bad: bool = False
    keep_ties: bool = False
    """Give ties as pairs that say so, instead of counting them."""
    num_rows: int = 0
    bad: list[BadRow] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def refuse(self, error: InputError) -> None:
        """Note a row that cannot be used, or stop at it."""
        if not self.skip_bad:
            remedy = f"{error.remedy}; {SKIP_REMEDY}" if error.remedy else SKIP_REMEDY
            raise InputError(error.problem, path=error.path, line=error.line, field=error.field, remedy=remedy)
        assert error.line is not None, "a bad row stands on a line"
        self.num_rows += 1
        self.bad.append(BadRow(str(error.path), error.line, error.field or "", error.problem))


@dataclass(frozen=True)
class Source:
    """One data file and how much its records count."""

    path: str
    weight: float = 1.0


def parse_source(text: str) -> Source:
    """`PATH` or `PATH@WEIGHT`. A path that exists is taken whole, and so is one with no number after its last @."""
    path, at, weight_text = text.rpartition("@")
    if not at or not path or Path(text).exists():
        return Source(text)
    try:
        weight = float(weight_text)
    except ValueError:
        if not Path(path).exists():
            return Source(text)
        weight = math.nan
    if not 0 < weight < math.inf:
        raise InputError(f"the weight {weight_text!r} is not a number above 0", path=path, remedy="write PATH@WEIGHT")
    return Source(path, weight)


def pairs_of_file(source: Source, tally: Tally, on_vote: OnVote | None = None) -> Iterator[tuple[int, PreferencePair]]:
    """Pairs of rows with chosen and rejected, rankings, ratings and judgments. `on_vote` is told every judgment."""
    table = JudgmentTable()

    def parse(row: Row) -> list[PreferencePair] | None:
        if kind_of(row.values) == "judgments":
            canonical = table.add(row.line, *judged_of(row.values))
            if on_vote is not None:
                on_vote(*canonical)
            return None
        return _compared(row.values, source.weight, keep_ties=tally.keep_ties)

    for row, pairs in parsed_rows(source, tally, parse):
        if pairs is not None and not pairs:
            tally.counts["ties"] += 1
        for pair in pairs or ():
            yield row.line, pair
    yield from _judged_pairs(table, source.weight, tally)


def demonstrations_of_file(source: Source, tally: Tally) -> Iterator[tuple[int, Demonstration]]:
    """Demonstrations, and of rows of other kinds the best response: chosen, ranked or rated first, label true."""
    table = JudgmentTable()

    def parse(row: Row) -> Demonstration | None:
        kind = kind_of(row.values)
        if kind in ("demonstrations", "prompts"):
            return demonstration_of(row.values, source.weight)
        if kind == "unpaired":
            labelled = labelled_of(row.values, source.weight)
            if not labelled.label:
                tally.counts["labelled_false"] += 1
                return None
            return _demonstrated(labelled.prompt, labelled.response, labelled.weight)
        if kind == "judgments":
            table.add(row.line, *judged_of(row.values))
            return None
        pairs = _compared(row.values, source.weight)
        if not pairs:
            tally.counts["ties"] += 1
            return None
        return _demonstrated(pairs[0].prompt, pairs[0].chosen, pairs[0].weight)

    for row, demonstration in parsed_rows(source, tally, parse):
        if demonstration is not None:
            yield row.line, demonstration
    for line, pair in _judged_pairs(table, source.weight, tally):
        yield line, _demonstrated(pair.prompt, pair.chosen, pair.weight)


def unpaired_of_file(source: Source, tally: Tally) -> Iterator[tuple[int, LabelledResponse]]:
    """Responses with a label of their own."""
    for row, labelled in parsed_rows(source, tally, lambda row: labelled_of(row.values, source.weight)):
        yield row.line, labelled


def judged_comparisons(source: Source, tally: Tally) -> Iterator[tuple[int, Comparison, list[Judgment]]]:
    """The comparisons of a file's judgments, each with its line and all its votes; rows of other kinds give none."""
    table = JudgmentTable()

    def parse(row: Row) -> None:
        if kind_of(row.values) == "judgments":
            table.add(row.line, *judged_of(row.values))

    for _ in parsed_rows(source, tally, parse):
        pass
    yield from table.comparisons()


def prompts_of_file(source: Source, tally: Tally) -> Iterator[tuple[int, Prompt]]:
    """The prompt of every row, of whatever kind."""
    for row, prompt in parsed_rows(source, tally, lambda row: prompt_of(row.values, source.weight)):
        yield row.line, prompt


def parsed_rows(source: Source, tally: Tally, parse: Callable[[Row], R]) -> Iterator[tuple[Row, R]]:
    """The rows that can be used, each with what `parse` made of it; the others go to the tally."""
    for row in stream_rows(source.path, tally.refuse):
        try:
            parsed = parse(row)
        except InputError as error:
            tally.refuse(
                InputError(error.problem, path=row.path, line=row.line, field=error.field, remedy=error.remedy)
            )
            continue
        tally.num_rows += 1
        yield row, parsed


def _compared(values: Values, weight: float, *, keep_ties: bool = False) -> list[PreferencePair]:
    """The pairs of one row; none where all its responses are tied, unless ties are kept."""
    kind = kind_of(values)
    if kind == "pairs":
        pair = pair_of(values, weight)
        return [pair] if keep_ties or not pair.tie else []
    if kind not in ("rankings", "ratings"):
        raise missing("chosen", values, "pairs")
    field_name = "ratings" if kind == "ratings" else "ranks" if values.get("ranking") is None else "ranking"
    if kind == "rankings" and field_name not in values:
        field_name = "ranking"
    prompt, responses, numbers = compared_responses(values, field_name)
    scores = numbers if kind == "ratings" else [-rank for rank in numbers]
    if field_name == "ranking":
        scores = [float(-rank) for rank in ranks_of_order(numbers)]
    return pairs_by_score(
        prompt,
        responses,
        scores,
        keep_difference=kind == "ratings",
        keep_ties=keep_ties,
        weight=weight * row_weight(values),
        annotator_id=annotator_of(values),
    )


def _judged_pairs(table: JudgmentTable, weight: float, tally: Tally) -> Iterator[tuple[int, PreferencePair]]:
    """The pairs of all votes of a file; each stands where the first vote on it stands."""
    for line, comparison, judgments in table.comparisons():
        derived = derive_pairs([(comparison, judgments)], keep_ties=tally.keep_ties)
        tally.counts.update(derived.counts)
        for pair in derived.pairs:
            yield line, dataclasses.replace(pair, weight=weight)


def _demonstrated(prompt: Prompt, response: str, weight: float) -> Demonstration:
    return make_demonstration(prompt.messages, (Message("assistant", response),), source=prompt.source, weight=weight)
