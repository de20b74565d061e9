"""Take out of a preference file the rows that an audit found against it, or those that tip a balance.

Shortcuts are balanced together. Each pair says of each named signal whether the chosen response has more of it (1),
less (-1) or as much (0). Every such combination has its mirror image; of the two the larger loses pairs at random until
both have as many. Then the labels prefer each signal in exactly one half of the pairs that differ in it, and so they do
among the pairs in which it comes with more of another one, and among those in which it comes with less.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefloop.audit.config import DataBalanceConfig
from prefloop.audit.data import conversations
from prefloop.audit.table import NOT_APPLICABLE, Table
from prefloop.data.read import nothing_usable
from prefloop.data.stream import Source, Tally, pairs_of_file
from prefloop.data.write import needs_messages, record_files
from prefloop.signals.measures import SIGNALS
from prefloop.types import InputError, PreferencePair

Kept = NDArray[np.bool_]


def balance(config: DataBalanceConfig) -> dict[str, Any]:
    """Write the pairs that stay, in their order. Judgments become pairs, as in `data convert`; votes are not kept.

    Raises InputError where nothing is asked for, where held-out files are named for nothing or are missing, and where
    no pair would stay.
    """
    _require_sense(config)
    tally, table, as_messages = Tally(config.skip_bad), Table(), False
    for line, pair in pairs_of_file(Source(config.file), tally):
        table.add(line, pair)
        as_messages = as_messages or needs_messages(pair)
    if not len(table.ids):
        raise nothing_usable(tally, config.file)
    kept, dropped = np.ones(len(table.ids), dtype=bool), {}
    for name, stays in _steps(table, config):
        before = int(kept.sum())
        kept &= stays(kept)
        dropped[name] = before - int(kept.sum())
    if not kept.any():
        raise InputError(
            "no pair would be left", path=config.file, remedy="name fewer signals, or collect pairs of the other kind"
        )
    with record_files([Path(config.out)], as_messages=as_messages) as (write,):
        for pair in _where(kept, config.file):
            write(pair)
    return {
        "file": config.file,
        "out": config.out,
        "num_pairs": len(kept),
        "num_kept": int(kept.sum()),
        "dropped": dropped,
        "num_bad": len(tally.bad),
        "next": f"prefloop audit data {shlex.quote(config.out)}",
    }


def _require_sense(config: DataBalanceConfig) -> None:
    if not config.signals and not config.drop:
        raise InputError("nothing to do", field="signals", remedy="name signals, or what to drop")
    if unknown := [name for name in config.signals if name not in SIGNALS]:
        raise InputError(f"no signal is called {unknown[0]!r}", field="signals", remedy=f"known: {', '.join(SIGNALS)}")
    if ("leakage" in config.drop) != bool(config.eval_data):
        raise InputError(
            "held-out files and the dropping of what they share belong together",
            field="eval_data",
            remedy="give both --drop leakage and --eval-data, or neither",
        )


def _steps(table: Table, config: DataBalanceConfig) -> Iterator[tuple[str, Callable[[Kept], Kept]]]:
    """What is dropped, by name: functions from the rows that are left to those of them that stay."""
    ids, near = _column(table.ids), _column(table.near)
    comparisons, clusters = _column(table.comparisons), _column(table.clusters)
    rules = {
        "duplicates": lambda kept: _first_of_each(ids, kept),
        "near_duplicates": lambda kept: _first_of_each(near, kept),
        "conflicts": lambda kept: ~_contradicted(comparisons, ids),
        "leakage": lambda kept: ~np.isin(clusters, np.array(sorted(conversations(config.eval_data)), dtype=np.uint64)),
    }
    yield from ((name, rule) for name, rule in rules.items() if name in config.drop)
    if config.signals:
        names = list(SIGNALS)
        signs = np.frombuffer(table.signs, dtype=np.int8).reshape(len(ids), len(names))
        columns = signs[:, [names.index(name) for name in config.signals]]
        yield "signals", lambda kept: balanced(columns, ids, kept, seed=config.seed)


def _column(values: Any) -> NDArray[np.uint64]:
    return np.frombuffer(values, dtype=np.uint64)


def _first_of_each(values: NDArray[np.uint64], kept: Kept) -> Kept:
    places = np.flatnonzero(kept)
    _, first = np.unique(values[places], return_index=True)
    stays = np.zeros(len(values), dtype=bool)
    stays[places[first]] = True
    return stays


def _contradicted(comparisons: NDArray[np.uint64], ids: NDArray[np.uint64]) -> Kept:
    """Which rows stand in the file in both orders."""
    _, first = np.unique(ids, return_index=True)
    values, counts = np.unique(comparisons[first], return_counts=True)
    return np.isin(comparisons, values[counts > 1])


def balanced(signs: NDArray[np.int8], ids: NDArray[np.uint64], kept: Kept, *, seed: int) -> Kept:
    """Of the rows `kept` those that stay: of each combination of signs [rows, signals] as many pairs as of the mirrored
    one. Copies of a pair (the same id) count once, and stay or go together."""
    told = np.where(signs == NOT_APPLICABLE, 0, signs).astype(np.int64)
    codes = told @ 3 ** np.arange(told.shape[1])
    places = np.flatnonzero(kept)
    different, first = np.unique(ids[places], return_index=True)
    code_of = codes[places[first]]
    order = np.random.default_rng(seed).permutation(len(different))
    stays: list[NDArray[np.uint64]] = [different[code_of == 0]]
    for code in np.unique(np.abs(code_of[code_of != 0])):
        sides = [order[code_of[order] == sign * code] for sign in (1, -1)]
        stays += [different[side[: min(map(len, sides))]] for side in sides]
    return kept & np.isin(ids, np.concatenate(stays))


def _where(kept: Kept, file: str) -> Iterator[PreferencePair]:
    pairs = pairs_of_file(Source(file), Tally(skip_bad=True))
    return (pair for stays, (_, pair) in zip(kept, pairs, strict=True) if stays)
