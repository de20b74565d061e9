"""What SFT, reward and preference training share: encoded rows, held-out rows, over-long rows named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from prefloop.console import say
from prefloop.data.split import split_of
from prefloop.types import InputError, PreferencePair

Record = TypeVar("Record")
Row = TypeVar("Row")


def hold_out(
    records: Sequence[Record], prompt_id: Callable[[Record], str], *, eval_fraction: float, seed: int
) -> tuple[list[Record], list[Record]]:
    """Training and held-out records; no prompt is on both sides."""
    sides: dict[str, list[Record]] = {"train": [], "eval": []}
    for record in records:
        sides[split_of(prompt_id(record), eval_fraction=eval_fraction, seed=seed)].append(record)
    return sides["train"], sides["eval"]


def within_length(
    records: Sequence[Record],
    encode: Callable[[Record], Row],
    num_tokens: Callable[[Row], int],
    name: Callable[[Record], str],
    *,
    max_length: int,
    skip_bad: bool,
    what: str,
) -> tuple[list[Record], list[Row]]:
    """Encode records; those longer than `max_length` are named, and stop the command unless `skip_bad`."""
    kept: list[Record] = []
    rows: list[Row] = []
    too_long: list[str] = []
    for record in records:
        row = encode(record)
        if num_tokens(row) > max_length:
            too_long.append(f"{name(record)} ({num_tokens(row)} tokens)")
        else:
            kept.append(record)
            rows.append(row)
    if too_long:
        shown = ", ".join(too_long[:5]) + (", ..." if len(too_long) > 5 else "")
        if not skip_bad:
            raise InputError(
                f"{len(too_long)} of {len(records)} {what} are longer than {max_length} tokens: {shown}",
                field="max_length",
                remedy="raise it, or leave them out with --skip-bad",
            )
        say(f"left out {len(too_long)} of {len(records)} {what} longer than {max_length} tokens: {shown}")
    if not rows:
        raise InputError(f"no usable {what} are left", field="data")
    return kept, rows


def check_disjoint(train: Sequence[PreferencePair], held_out: Sequence[PreferencePair]) -> None:
    """Say so if held-out prompts occur in training."""
    shared = {pair.prompt.prompt_id for pair in train} & {pair.prompt.prompt_id for pair in held_out}
    if shared:
        say(f"warning: {len(shared)} prompts of the held-out pairs are also in the training data")
