"""Rows of a data file, one at a time, each with the line it stands on.

Accepts `.jsonl`, `.json` (a list of objects, or objects one after another), both also as `.gz`, and `.parquet`.
JSON Lines and Parquet are streamed; a `.json` file is held in memory as text. A line that is not a JSON object goes to
`on_bad`, which either raises or notes it; what makes the rest of the file unreadable always raises.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from prefloop.types import InputError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
UTF8_MARK = b"\xef\xbb\xbf"
PARQUET_BATCH_ROWS = 1024
MAX_REASON = 200
"""How much of another library's message an error repeats, in characters."""
MAX_SHOWN = 60
"""How much of a wrong value an error repeats, in characters."""

OnBad = Callable[[InputError], None]


@dataclass(frozen=True)
class Row:
    """One object of a data file. `line` counts from 1; in Parquet it is the number of the row."""

    path: str
    line: int
    values: Mapping[str, Any]


def raise_bad(error: InputError) -> None:
    """The default of every `on_bad`: the first bad row stops the reading."""
    raise error


def stream_rows(path: str | Path, on_bad: OnBad = raise_bad) -> Iterator[Row]:
    """Yield the rows of `path` in order.

    Raises InputError for a missing, empty, undecodable or unknown kind of file; calls `on_bad` for a single bad line.
    """
    path = Path(path)
    suffix = next((known for known in reversed(SUFFIXES) if path.name.lower().endswith(known)), None)
    if path.is_dir():
        raise InputError("is a directory", path=path, remedy=f"give a file ({', '.join(SUFFIXES)})")
    if not path.exists():
        raise InputError("no such file", path=path)
    if suffix is None:
        raise InputError("unknown kind of data file", path=path, remedy=f"give one of {', '.join(SUFFIXES)}")
    if suffix == ".parquet":
        rows = _parquet_rows(path)
    elif suffix.startswith(".jsonl"):
        rows = _jsonl_rows(path, on_bad)
    else:
        rows = _json_rows(path, on_bad)
    return rows


def _jsonl_rows(path: Path, on_bad: OnBad) -> Iterator[Row]:
    empty = True
    for line, raw in _lines(path):
        if not raw.strip():
            continue
        empty = False
        try:
            values = _decode(raw.rstrip(b"\r\n").decode("utf-8"))
            _require_object(values)
        except UnicodeDecodeError as error:
            on_bad(_not_utf8(path, line, error))
        except InputError as error:
            on_bad(InputError(error.problem, path=path, line=line, remedy=error.remedy))
        else:
            yield Row(str(path), line, values)
    if empty:
        raise _no_rows(path)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Raw lines with their numbers; text mode would also split at U+2028 and other separators inside JSON strings."""
    line = 0
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
            for raw in file:
                line += 1
                yield line, raw.removeprefix(UTF8_MARK) if line == 1 else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"broken gzip data after line {line} ({error})", path=path, remedy="compress or download the file again"
        ) from error


def _json_rows(path: Path, on_bad: OnBad) -> Iterator[Row]:
    """The objects of a `.json` file. Decoded one by one, so that each row is known by the line it begins on."""
    data = b"".join(raw for _, raw in _lines(path))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, data.count(b"\n", 0, error.start) + 1, error) from error
    place = _skip_space(text, 0)
    if place == len(text):
        raise _no_rows(path)
    is_list = text[place] == "["
    place = _skip_space(text, place + 1) if is_list else place
    line, counted = 1, 0
    empty = True
    while place < len(text) and not (is_list and text[place] == "]"):
        line, counted = line + text.count("\n", counted, place), place
        try:
            values, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise _broken_json(error, path, text) from error
        empty = False
        try:
            _require_object(values)
        except InputError as error:
            on_bad(InputError(error.problem, path=path, line=line, remedy=error.remedy))
        else:
            yield Row(str(path), line, values)
        place = _after_value(text, _skip_space(text, end), path, is_list)
    if is_list and place == len(text):
        raise InputError("the list does not end: ']' is missing", path=path, remedy="the file may be cut off")
    if is_list and _skip_space(text, place + 1) != len(text):
        raise InputError("more text follows the list", path=path, remedy="give one list of objects")
    if empty:
        raise _no_rows(path)


def _after_value(text: str, place: int, path: Path, is_list: bool) -> int:
    """Where the next value, the closing bracket or the end of the text stands."""
    if not is_list or place == len(text) or text[place] == "]":
        return place
    if text[place] != ",":
        raise _broken_json(json.JSONDecodeError("Expecting ',' delimiter", text, place), path, text)
    following = _skip_space(text, place + 1)
    if following < len(text) and text[following] == "]":
        raise _broken_json(json.JSONDecodeError("Expecting value", text, following), path, text)
    return following


def _parquet_rows(path: Path) -> Iterator[Row]:
    line = 0
    for batch in _parquet_batches(path):
        for values in batch:
            line += 1
            yield Row(str(path), line, values)
    if line == 0:
        raise _no_rows(path)


def _parquet_batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows of a Parquet file, some at a time. Raises InputError that names the rows that could not be read."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise InputError("reading Parquet needs pyarrow", path=path, remedy="pip install 'prefloop[hf]'") from error
    with path.open("rb") as stream:
        done = 0
        try:
            for batch in parquet.ParquetFile(stream).iter_batches(batch_size=PARQUET_BATCH_ROWS):
                rows = batch.to_pylist()
                yield rows
                done += len(rows)
        # pyarrow tells a damaged page by its own errors, by an OSError without a number, and a value that Python
        # cannot hold (text that is no UTF-8, times in nanoseconds) by a ValueError.
        except (ArrowException, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            where = f" after row {done}" if done else ""
            reason = " ".join(str(error).split())[:MAX_REASON]
            raise InputError(
                f"broken Parquet file{where} ({reason})", path=path, remedy="write or download it again"
            ) from error


def _decode(text: str) -> Any:
    """One line of JSON. Raises InputError that names the column."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise _broken_json(error, None, text) from error


def _broken_json(error: ValueError | RecursionError, path: Path | None, text: str) -> InputError:
    line = None
    if isinstance(error, RecursionError):
        problem = "JSON nested too deeply"
    elif isinstance(error, json.JSONDecodeError):
        # Some of Python's messages end in "at", since a position follows.
        reason = (error.msg[:1].lower() + error.msg[1:]).removesuffix(" at").removesuffix(" starting")
        if reason == "extra data":
            reason = "more text follows the JSON object"
        problem, line = f"broken JSON at column {error.colno}: {reason}", error.lineno
    else:
        # The hooks below, and Python's own limit on the digits of an integer, know no column.
        problem = f"broken JSON: {str(error).split(';')[0]}"
    return InputError(problem, path=path, line=line, remedy="give one JSON object per row")


def _require_object(values: Any) -> None:
    if not isinstance(values, dict):
        raise InputError(f"the row is {describe(values)}", remedy="give one JSON object per row")


def _not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> InputError:
    byte = error.object[error.start]
    return InputError(f"not UTF-8 (byte 0x{byte:02x})", path=path, line=line, remedy="save the file as UTF-8")


def _no_rows(path: Path) -> InputError:
    return InputError("the file holds no rows", path=path, remedy="give one JSON object per row")


def _skip_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits} is too large")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float)


def shown(value: Any) -> str:
    """A wrong value as a message repeats it: cut off where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def describe(value: Any) -> str:
    """What kind of JSON value it is, as a person would say it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"
