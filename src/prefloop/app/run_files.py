"""Runs as they lie on disk, those too that are being written: nothing here waits for a run, or trusts its last line.

Of a long log only a part is read, so that a page comes as fast on the last day of a run as on the first.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.report.records import parse
from prefloop.report.suspicious import StoredAlarm
from prefloop.rundir import ALARMS, METRICS, read_json
from prefloop.types import InputError

WHOLE_BYTES = 8 << 20
"""A log up to this size is read line by line; of a longer one NUM_LINES lines, spread evenly, and its end."""
NUM_LINES = 2000
TAIL_BYTES = 128 << 10
"""The end of a log in which the newest value of each metric is looked for."""
MAX_LINE = 1 << 20
LARGEST = 1e100
MAX_METRICS = 300
MAX_ALARMS = 200
MARKS = ("inputs.json", "result.json", METRICS)
"""A directory with one of these is a run."""


@dataclass(frozen=True)
class RunFiles:
    """One run. `run_id` stands for it in addresses: a name may hold anything that a file system lets through."""

    run_id: str
    name: str
    path: Path
    changed: float
    """When its newest file was written, seconds since 1970."""


@dataclass(frozen=True)
class RunState:
    """How far a run is. `result` is None where it is not finished."""

    command: str
    result: Mapping[str, Any] | None
    step: int | None
    latest: Mapping[str, float]
    """The newest value of each metric."""


def runs_in(directories: Sequence[str]) -> list[RunFiles]:
    """The runs in these directories, newest first."""
    places = [Path(each) for each in directories if Path(each).is_dir()]
    found = [run for place in places for each in place.iterdir() if (run := _run_at(each)) is not None]
    return sorted(found, key=lambda run: -run.changed)


def find_run(directories: Sequence[str], run_id: str) -> RunFiles | None:
    """The run that an address names, looked up in the list of all."""
    return next((run for run in runs_in(directories) if run.run_id == run_id), None)


def _run_at(path: Path) -> RunFiles | None:
    times = []
    for name in MARKS:
        try:
            times.append((path / name).stat().st_mtime)
        except OSError:
            continue
    if not times:
        return None
    raw = os.fsencode(path)
    name = os.fsencode(path.name).decode("utf-8", "backslashreplace")
    return RunFiles(hashlib.sha256(raw).hexdigest()[:16], name, path, max(times))


def state_of(run: RunFiles) -> RunState:
    """How far it is, from the end of its log. Raises InputError where its result or its inputs cannot be read."""
    latest: dict[str, float] = {}
    step = None
    for _, row in _objects(_tail(run.path / METRICS)):
        latest |= {key: value for key, value in row.items() if key != "step"}
        step = row.get("step", step)
    result = _json(run.path / "result.json")
    command = (result or _json(run.path / "inputs.json") or {}).get("command")
    return RunState(
        command=command if isinstance(command, str) else "unknown",
        result=result,
        step=None if step is None else int(step),
        latest=latest,
    )


def rows_of(run: RunFiles) -> list[tuple[int, dict[str, float]]]:
    """(number, metrics) of the steps of a run, all or a part; what is no number and what cannot be read is left out."""
    known: dict[str, None] = {}
    rows = []
    for number, row in _objects(_spread(run.path / METRICS)):
        known |= dict.fromkeys(itertools.islice((key for key in row if key not in known), MAX_METRICS - len(known)))
        rows.append((number, {key: value for key, value in row.items() if key in known}))
    return rows


def alarms_of(run: RunFiles) -> list[StoredAlarm]:
    """What the monitor told so far, the newest alarms."""
    path = run.path / ALARMS
    alarms = []
    for line in _tail(path):
        value = _value(line)
        if value is not None:
            try:
                alarms.append(parse(value, StoredAlarm, path))
            except InputError:
                # Half a line, or another version's: a page on a run that is being written shows the others.
                continue
    return alarms[-MAX_ALARMS:]


def _json(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None


def _objects(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, float]]]:
    """The finite numbers of each line that is an object."""
    for number, line in enumerate(lines, start=1):
        value = _value(line)
        if value is not None:
            numbers = {key: float(each) for key, each in value.items() if _is_number(each)}
            if numbers:
                yield number, numbers


def _is_number(value: Any) -> bool:
    """Whether it can be drawn; nan is below nothing."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _value(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _tail(path: Path) -> list[bytes]:
    """The lines at the end of a file."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        start = max(0, path.stat().st_size - TAIL_BYTES)
        file.seek(start)
        lines = file.read(TAIL_BYTES).splitlines(keepends=True)
    return lines[1:] if start else lines


def _spread(path: Path) -> Iterator[bytes]:
    """All lines of a file; of a large one lines from all over it, first and last among them."""
    if not path.is_file():
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            yield from file
            return
        after = -1
        for place in range(0, size - TAIL_BYTES, size // NUM_LINES):
            file.seek(place)
            if place:
                file.readline(MAX_LINE)
            if file.tell() > after:
                after = file.tell()
                yield file.readline(MAX_LINE)
    yield from _tail(path)
