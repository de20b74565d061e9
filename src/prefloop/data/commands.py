"""The commands `data check`, `data convert` and `data split`: each answers with JSON values and prints nothing."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from prefloop.data.config import DataCheckConfig, DataConvertConfig, DataSplitConfig
from prefloop.data.dialogue import is_dialogue
from prefloop.data.fields import Kind, kind_of
from prefloop.data.read import iter_demonstrations, iter_distinct_prompts, iter_pairs, nothing_usable
from prefloop.data.rows import Row, stream_rows
from prefloop.data.split import Record, conversation_key, fold_of, prompt_key, split_of
from prefloop.data.stream import (
    Source,
    Tally,
    demonstrations_of_file,
    pairs_of_file,
    prompts_of_file,
    unpaired_of_file,
)
from prefloop.data.summary import MAX_LISTED, Summary
from prefloop.data.write import needs_messages, record_files
from prefloop.types import InputError

FileReader = Callable[[Source, Tally], Iterator[tuple[int, Record]]]

READERS: dict[str, FileReader] = {
    "pairs": pairs_of_file,
    "demonstrations": demonstrations_of_file,
    "unpaired": unpaired_of_file,
    "prompts": prompts_of_file,
}

RECORD_KINDS: dict[Kind, str] = {"rankings": "pairs", "ratings": "pairs", "judgments": "pairs"}
"""What the rows of a kind become, where it is not the kind itself."""

CONVERTERS: dict[str, Callable[..., Iterator[Record]]] = {
    "pairs": iter_pairs,
    "demonstrations": iter_demonstrations,
    "prompts": iter_distinct_prompts,
}

ROWS_LOOKED_AT = 100
"""How many rows decide what a file holds."""

NEXT: dict[str, str] = {
    "pairs": "prefloop train sft --data {file}{skip_bad}",
    "demonstrations": "prefloop train sft --data {file}{skip_bad}",
    "unpaired": "prefloop train sft --data {file}{skip_bad}",
    "prompts": "prefloop train policy --model MODEL --reward REWARD_MODEL --prompts {file}{skip_bad}",
}


def check(config: DataCheckConfig) -> dict[str, Any]:
    """What the file holds, and every row that cannot be used (the first 20 with line, field and problem).

    Raises InputError that names the lines of the bad rows, unless `skip_bad`; and where no row can be used.
    """
    kind, example = _recognise(config.file, config.kind)
    tally, summary = Tally(skip_bad=True), Summary(config.max_chars)
    for line, record in READERS[kind](Source(config.file), tally):
        summary.add(line, record)
    if not config.skip_bad:
        _refuse_bad(tally)
    if not summary.num_records:
        raise nothing_usable(tally, config.file)
    return {
        "file": config.file,
        "kind": kind,
        "format": _format(example.values),
        **_rows(tally),
        **summary.answer(),
        "next": _next(kind, config.file, tally),
    }


def convert(config: DataConvertConfig) -> dict[str, Any]:
    """Write the file's records in the standard columns of `to`; nothing appears unless all of it can be written."""
    reader = CONVERTERS[config.to]
    tally = Tally(config.skip_bad)
    # Two passes: whether the columns must be message lists is known only at the end of the first.
    as_messages, num_records = _survey(reader([config.file], tally=tally))
    if not num_records:
        raise nothing_usable(tally, config.file)
    with record_files([Path(config.out)], as_messages=as_messages) as (write,):
        for record in reader([config.file], skip_bad=True):
            write(record)
    return {
        "file": config.file,
        "to": config.to,
        "out": config.out,
        **_rows(tally),
        "num_records": num_records,
        "next": f"prefloop data check {shlex.quote(config.out)}",
    }


def split(config: DataSplitConfig) -> dict[str, Any]:
    """Write train.jsonl and eval.jsonl, or the folds, under `out`: all of them, or none.

    No prompt is in two of them, nor are two turns of one conversation.
    """
    if config.folds == 1:
        raise InputError("one fold is no split", field="folds", remedy="give 2 or more, or 0 for train and eval")
    kind, _ = _recognise(config.file, config.kind)
    tally = Tally(config.skip_bad)
    source = Source(config.file)
    as_messages, _ = _survey(record for _, record in READERS[kind](source, tally))
    names = [f"fold-{fold}" for fold in range(config.folds)] or ["train", "eval"]
    paths = [Path(config.out) / f"{name}.jsonl" for name in names]
    records: Counter[str] = Counter()
    prompts: dict[str, set[str]] = {name: set() for name in names}
    with record_files(paths, as_messages=as_messages) as writers:
        write = dict(zip(names, writers, strict=True))
        for _, record in READERS[kind](source, Tally(skip_bad=True)):
            name = _side(conversation_key(record), config)
            write[name](record)
            records[name] += 1
            prompts[name].add(prompt_key(record))
        if empty := [name for name in names if not records[name]]:
            raise InputError(
                f"no prompt of {sum(map(len, prompts.values()))} falls into {empty[0]}",
                path=config.file,
                remedy="give more prompts, another seed or other shares",
            )
    return {
        "file": config.file,
        "kind": kind,
        "out": config.out,
        "seed": config.seed,
        **_rows(tally),
        "files": {
            name: {"path": str(path), "num_records": records[name], "num_prompts": len(prompts[name])}
            for name, path in zip(names, paths, strict=True)
        },
        "next": _next_of_split(kind, paths),
    }


def _side(key: str, config: DataSplitConfig) -> str:
    if config.folds:
        return f"fold-{fold_of(key, num_folds=config.folds, seed=config.seed)}"
    return split_of(key, eval_fraction=config.eval_fraction, seed=config.seed)


def _survey(records: Iterator[Record]) -> tuple[bool, int]:
    """Whether any record needs message lists, and how many there are."""
    as_messages, count = False, 0
    for record in records:
        count += 1
        as_messages = as_messages or needs_messages(record)
    return as_messages, count


def _recognise(file: str, wanted: str) -> tuple[str, Row]:
    """The kind of record that most of the first rows become, or `wanted` if that is not "auto", and such a row."""
    errors: list[InputError] = []
    kinds: Counter[str] = Counter()
    examples: dict[str, Row] = {}
    for row in islice(stream_rows(file, errors.append), ROWS_LOOKED_AT):
        try:
            kind = kind_of(row.values)
        except InputError as error:
            errors.append(
                InputError(error.problem, path=row.path, line=row.line, field=error.field, remedy=error.remedy)
            )
            continue
        record_kind = RECORD_KINDS.get(kind, kind)
        kinds[record_kind] += 1
        examples.setdefault(record_kind, row)
    if not kinds:
        raise errors[0]
    (most, _), *_ = kinds.most_common(1)
    return (most, examples[most]) if wanted == "auto" else (wanted, examples.get(wanted, examples[most]))


def _refuse_bad(tally: Tally) -> None:
    """Stop at the first bad row, but say how many there are and where."""
    if not tally.bad:
        return
    first = tally.bad[0]
    lines = ("line " if len(tally.bad) == 1 else "lines ") + ", ".join(str(row.line) for row in tally.bad[:MAX_LISTED])
    more = ", ..." if len(tally.bad) > MAX_LISTED else ""
    raise InputError(
        first.problem,
        path=first.path,
        line=first.line,
        field=first.field,
        remedy=(
            f"{len(tally.bad)} of {tally.num_rows} rows cannot be used ({lines}{more}): "
            "correct them, or --skip-bad leaves such rows out and lists them"
        ),
    )


def _rows(tally: Tally) -> dict[str, Any]:
    """The account of the rows that every answer gives."""
    return {
        "num_rows": tally.num_rows,
        "num_bad": len(tally.bad),
        "bad_rows": [{"line": row.line, "field": row.field, "problem": row.problem} for row in tally.bad[:MAX_LISTED]],
        "no_record": dict(sorted(tally.counts.items())),
    }


def _format(values: Mapping[str, Any]) -> str:
    """How the first row is written, for people."""
    names = ", ".join(name for name in values if values[name] is not None)
    implicit = values.get("prompt") is None
    text = values.get("chosen" if implicit else "prompt", values.get("messages"))
    if isinstance(text, list | tuple):
        form = "lists of messages"
    elif isinstance(text, str) and is_dialogue(text):
        form = "dialogues as text (Human: ... Assistant: ...)"
    else:
        form = "plain text"
    return f"{names}; {form}" + ("; the prompt is inside the dialogue" if implicit else "")


def _next(kind: str, file: str, tally: Tally) -> str:
    return NEXT[kind].format(file=shlex.quote(file), skip_bad=" --skip-bad" if tally.bad else "")


def _next_of_split(kind: str, paths: list[Path]) -> str:
    if len(paths) > 2 or paths[0].name != "train.jsonl":
        train, held_out = " ".join(shlex.quote(str(path)) for path in paths[1:]), shlex.quote(str(paths[0]))
    else:
        train, held_out = shlex.quote(str(paths[0])), shlex.quote(str(paths[1]))
    if kind == "prompts":
        return NEXT[kind].format(file=train, skip_bad="")
    return NEXT[kind].format(file=train, skip_bad="") + f" --eval-data {held_out}"
