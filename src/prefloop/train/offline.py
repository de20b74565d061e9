"""What SFT, reward and preference training share: encoded rows, held-out rows, over-long rows named."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedModel

from prefloop.audits import audit_lookup
from prefloop.console import say
from prefloop.data.commands import RECORD_KINDS
from prefloop.data.fields import Kind, kind_of
from prefloop.data.rows import stream_rows
from prefloop.data.split import split_of
from prefloop.data.stream import parse_source
from prefloop.models.load import max_positions
from prefloop.rundir import InputEntry
from prefloop.types import InputError, LabelledResponse, PreferencePair

Record = TypeVar("Record")
Row = TypeVar("Row")


def input_files(field: str, sources: Sequence[str]) -> dict[str, Path]:
    """The files behind `PATH` or `PATH@WEIGHT`, by the names that a run records its inputs under."""
    return {f"{field}:{source}": Path(parse_source(source).path) for source in sources}


def data_audits(
    sources: Sequence[str], accepted: Sequence[str]
) -> Callable[[Mapping[str, InputEntry]], dict[str, InputEntry]]:
    """The lookup of the audits of those training files that hold preferences (`RunDir`)."""

    def look_up(inputs: Mapping[str, InputEntry]) -> dict[str, InputEntry]:
        preferences = set(pair_files(sources))
        paths = {name: str(path) for name, path in input_files("data", sources).items()}
        commands = {
            name: f"prefloop audit data {shlex.quote(path)}" for name, path in paths.items() if path in preferences
        }
        return audit_lookup(commands, accepted=accepted)(inputs)

    return look_up


def pair_files(sources: Sequence[str]) -> list[str]:
    """Those of the files that hold preference pairs, or what pairs are derived from: by their first usable row."""
    found = []
    for source in sources:
        path = parse_source(source).path
        kind = next(_kinds(path), None)
        if kind is not None and RECORD_KINDS.get(kind, kind) == "pairs":
            found.append(path)
    return found


def _kinds(path: str) -> Iterator[Kind]:
    """The kinds of a file's rows; those that cannot be used are passed over, their reader has named them before."""
    for row in stream_rows(path, lambda _: None):
        with contextlib.suppress(InputError):
            yield kind_of(row.values)


def shell_words(*words: str, skip_bad: bool = False) -> str:
    """Words as one would type them in a shell, with --skip-bad where the data needed it before."""
    return shlex.join([*words, "--skip-bad"] if skip_bad else words)


def hold_out(
    records: Sequence[Record], key: Callable[[Record], str], *, eval_fraction: float, seed: int
) -> tuple[list[Record], list[Record]]:
    """Training and held-out records; no key is on both sides. Raises InputError if nothing is left to train on."""
    sides: dict[str, list[Record]] = {"train": [], "eval": []}
    for record in records:
        sides[split_of(key(record), eval_fraction=eval_fraction, seed=seed)].append(record)
    if records and not sides["train"]:
        raise InputError(
            f"all {len(records)} rows would be held out, none is left to train on",
            field="eval_fraction",
            remedy="lower it, or give another --seed",
        )
    return sides["train"], sides["eval"]


@dataclass(frozen=True)
class LengthLimit:
    """The most tokens a row may have, the setting that says so, and what helps."""

    num_tokens: int
    field: str
    remedy: str


def length_limit(num_tokens: int, field: str, model: PreTrainedModel, *, reserved: int = 0) -> LengthLimit:
    """The setting `field`, or less where the model's positions (without `reserved` ones) end before."""
    positions = max_positions(model)
    if positions is None or num_tokens <= positions - reserved:
        return LengthLimit(num_tokens, field, "raise it")
    if not reserved:
        return LengthLimit(positions, "model", f"its {positions} positions are the limit: take another model")
    return LengthLimit(
        positions - reserved,
        "max_new_tokens",
        f"prompt and {reserved} new tokens must fit the model's {positions} positions: lower it",
    )


def within_length(
    records: Sequence[Record],
    encode: Callable[[Record], Row],
    num_tokens: Callable[[Row], int],
    name: Callable[[Record], str],
    *,
    limit: LengthLimit,
    skip_bad: bool,
    what: str,
    may_be_none: bool = False,
) -> tuple[list[Record], list[Row]]:
    """Encode records; those longer than the limit are named, and stop the command unless `skip_bad`.

    Raises InputError also where all are too long, unless there `may_be_none`.
    """
    kept: list[Record] = []
    rows: list[Row] = []
    too_long: list[str] = []
    for record in records:
        try:
            row = encode(record)
        except InputError as error:
            raise InputError(error.problem, path=name(record), field=error.field, remedy=error.remedy) from error
        if num_tokens(row) > limit.num_tokens:
            too_long.append(f"{name(record)} ({num_tokens(row)} tokens)")
        else:
            kept.append(record)
            rows.append(row)
    if too_long:
        shown = ", ".join(too_long[:5]) + (", ..." if len(too_long) > 5 else "")
        if not skip_bad:
            raise InputError(
                f"{len(too_long)} of {len(records)} {what} are longer than {limit.num_tokens} tokens: {shown}",
                field=limit.field,
                remedy=f"{limit.remedy}, or leave them out with --skip-bad",
            )
        say(f"left out {len(too_long)} of {len(records)} {what} longer than {limit.num_tokens} tokens: {shown}")
    if not rows and not may_be_none:
        raise InputError(f"none of the {len(records)} {what} is short enough", field=limit.field, remedy=limit.remedy)
    return kept, rows


def check_disjoint(
    train: Sequence[PreferencePair | LabelledResponse], held_out: Sequence[PreferencePair | LabelledResponse]
) -> None:
    """Say so if held-out prompts occur in training."""
    shared = {row.prompt.prompt_id for row in train} & {row.prompt.prompt_id for row in held_out}
    if shared:
        say(f"warning: {len(shared)} prompts of the held-out pairs are also in the training data")
