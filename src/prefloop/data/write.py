"""Records to JSON Lines in the columns that TRL and `datasets` expect.

Texts are strings where every record of the file is one question and one answer, message lists where any is not: mixed
columns would not load as one table. Reading the file back gives the same records. `Prompt.split` is not written: the
files of a split are its sides.
"""

from __future__ import annotations

import contextlib
import datetime
import filecmp
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from prefloop.data.dialogue import is_dialogue, is_strict_dialogue
from prefloop.data.split import Record
from prefloop.rundir import atomic_file
from prefloop.types import Demonstration, InputError, LabelledResponse, Message, Messages, PreferencePair, Prompt


def write_records(path: str | Path, records: Sequence[Record]) -> None:
    """Write all records to a new `.jsonl` file, whole or not at all.

    Raises InputError where `path` exists with other content. The same records give the same bytes.
    """
    as_messages = any(map(needs_messages, records))
    with record_files([Path(path)], as_messages=as_messages) as (write,):
        for record in records:
            write(record)


@contextlib.contextmanager
def record_files(paths: Sequence[Path], *, as_messages: bool) -> Iterator[list[Callable[[Record], None]]]:
    """Open several `.jsonl` files, one writing function each. All appear when the block ends without an error, or none.

    Raises InputError before anything appears where one of them exists with other content.
    """
    for path in paths:
        if path.suffix != ".jsonl" or path.is_dir():
            raise InputError("records are written as JSON Lines", path=path, remedy="name a file that ends in .jsonl")
    with contextlib.ExitStack() as stack:
        for folder in {path.parent: None for path in paths}:
            stack.enter_context(new_folder(folder))
        files = [stack.enter_context(atomic_file(path)) for path in paths]
        yield [partial(_write, file, as_messages) for file in files]
        for file, path in zip(files, paths, strict=True):
            file.flush()
            # A disk may be found full only now; the first file must not appear if the last one cannot.
            os.fsync(file.fileno())
            if path.exists() and not filecmp.cmp(file.name, path, shallow=False):
                raise InputError("exists with other content", path=path, remedy="name another file, or remove it")


def _write(file: IO[str], as_messages: bool, record: Record) -> None:
    file.write(line_of(row_of(record, as_messages=as_messages)))


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Create a folder for output, with its parents; those made here go again if the block ends with an error.

    Raises InputError where a file is in its place.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError("a file is where a folder should be", path=path) from error
    try:
        yield
    except BaseException:
        for folder in made:
            # Somebody else may have put something there meanwhile.
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def needs_messages(record: Record) -> bool:
    """Whether the record cannot be told in plain strings: several turns, a system turn, or text like a dialogue's."""
    match record:
        case Prompt():
            return not _is_plain_prompt(record.messages)
        case PreferencePair():
            plain = _is_plain_response(record.chosen) and _is_plain_response(record.rejected)
            return not (plain and _is_plain_prompt(record.prompt.messages))
        case LabelledResponse():
            return not (_is_plain_response(record.response) and _is_plain_prompt(record.prompt.messages))
        case Demonstration():
            plain = len(record.completion) == 1 and _is_plain_response(record.completion[0].content)
            return not (plain and _is_plain_prompt(record.prompt))


def row_of(record: Record, *, as_messages: bool) -> dict[str, Any]:
    """The JSON object of a record. Fields that have their default are left out."""
    match record:
        case Prompt():
            row = {**record.columns, "prompt": _prompt(record.messages, as_messages)}
        case PreferencePair():
            row = {
                **record.prompt.columns,
                "prompt": _prompt(record.prompt.messages, as_messages),
                "chosen": _response(record.chosen, as_messages),
                "rejected": _response(record.rejected, as_messages),
            }
            if record.strength is not None:
                row["strength"] = record.strength
            if record.num_judgments != 1:
                row["num_judgments"] = record.num_judgments
            if record.tie:
                row["tie"] = True
        case LabelledResponse():
            row = {
                **record.prompt.columns,
                "prompt": _prompt(record.prompt.messages, as_messages),
                "completion": _response(record.response, as_messages),
                "label": record.label,
            }
        case Demonstration():
            row = _demonstration(record, as_messages)
    if record.source:
        row["source"] = record.source
    if isinstance(record, PreferencePair | LabelledResponse) and record.annotator_id:
        row["annotator_id"] = record.annotator_id
    if record.weight != 1.0:
        row["weight"] = record.weight
    return row


def line_of(row: dict[str, Any]) -> str:
    """A row as one line of JSON, readable where UTF-8 can hold its text. Raises InputError for values JSON has not."""
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain_value)
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(row, allow_nan=False, default=_plain_value)
    except ValueError as error:
        raise InputError("a column holds NaN or infinity, which JSON has not", remedy="replace it by null") from error
    return line + "\n"


def _demonstration(record: Demonstration, as_messages: bool) -> dict[str, Any]:
    if not record.prompt:
        return {"messages": _turns(record.completion)}
    completion = _turns(record.completion) if as_messages else record.completion[0].content
    return {"prompt": _prompt(record.prompt, as_messages), "completion": completion}


def _is_plain_prompt(messages: Messages) -> bool:
    return len(messages) == 1 and messages[0].role == "user" and not is_dialogue(messages[0].content)


def _is_plain_response(text: str) -> bool:
    return not is_strict_dialogue(text)


def _prompt(messages: Messages, as_messages: bool) -> Any:
    return _turns(messages) if as_messages else messages[0].content


def _response(text: str, as_messages: bool) -> Any:
    return _turns((Message("assistant", text),)) if as_messages else text


def _turns(messages: Messages) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _plain_value(value: Any) -> str:
    """Parquet has dates, JSON has not."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise InputError(f"a column holds a value of type {type(value).__name__}", remedy="leave that column out")
