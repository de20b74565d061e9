"""`monitor`: watch a rollout log, tell people and programs what changed."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefloop.console import say
from prefloop.monitor.config import MonitorConfig
from prefloop.monitor.limits import FEWEST
from prefloop.monitor.rows import Observed, looks_of, read_rollouts
from prefloop.monitor.text import as_table
from prefloop.monitor.watch import Watch, worst_action
from prefloop.report.monitor import render_monitor
from prefloop.rundir import atomic_file, output_file
from prefloop.signals.citations import normal_source
from prefloop.types import InputError, Told


def run(config: MonitorConfig) -> Told:
    """Watch a log from its reference to its end.

    Raises InputError where the log, the reference or the list of sources cannot be used.
    """
    page = None if config.html is None else output_file(config.html, "html")
    rows, num_bad = read_rollouts(config.file, skip_bad=config.skip_bad)
    reference, watched = _reference(config, rows)
    watch = Watch(config.limits, reference, None if config.sources is None else _sources(Path(config.sources)))
    looks = looks_of(watched, config.limits.responses)
    for look in looks:
        watch.look(look)
    following = f"prefloop monitor {shlex.quote(config.file)} --html monitor.html" if page is None else ""
    answer: dict[str, Any] = {
        "file": config.file,
        "num_rows": len(rows),
        "num_bad": num_bad,
        "num_reference": len(reference),
        "num_looks": len(looks),
        "action": worst_action(watch.alarms) or "none",
        "alarms": [dataclasses.asdict(alarm) for alarm in watch.alarms],
        "signals": _series(watch),
    }
    if page is not None:
        with atomic_file(page) as file:
            file.write(render_monitor(config.file, watch.alarms, _series(watch)))
        say(f"page: {page}")
        answer["html"] = str(page)
    return Told({**answer, "next": following}, as_table(config.file, watch, following))


def _reference(config: MonitorConfig, rows: Sequence[Observed]) -> tuple[list[Observed], list[Observed]]:
    """The reference sample, and the rows to watch."""
    if config.reference is not None:
        reference, watched = read_rollouts(config.reference, skip_bad=config.skip_bad)[0], list(rows)
    else:
        steps = sorted({row.step for row in rows})
        last = steps[min(config.reference_steps, len(steps)) - 1]
        reference, watched = [row for row in rows if row.step <= last], [row for row in rows if row.step > last]
        if not watched:
            raise InputError(
                f"has {len(steps)} steps, and the first {config.reference_steps} stand for the reference",
                path=config.file,
                field="reference_steps",
                remedy="lower it, or name a file of the reference's responses with --reference",
            )
    if (num := len({row.prompt_id for row in reference})) < FEWEST:
        raise InputError(
            f"the reference has responses to {num} prompts, {FEWEST} are needed",
            path=config.reference or config.file,
            field="reference" if config.reference else "reference_steps",
            remedy="give more of the reference's responses",
        )
    return reference, watched


def _sources(path: Path) -> frozenset[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as text ({error})", path=path, field="sources") from None
    return frozenset(normal_source(line) for line in lines if line.strip())


def _series(watch: Watch) -> dict[str, list[dict[str, float | int | None]]]:
    """By signal, one row a look: step, value, and the limits where it has some."""
    found: dict[str, list[dict[str, float | int | None]]] = {}
    limits = {(name, step): (low, high) for name, rows in watch.limits.items() for step, low, high in rows}
    for signal in watch.signals:
        low, high = limits.get((signal.name, signal.step), (None, None))
        low = None if low == float("-inf") else low
        row: dict[str, float | int | None] = {"step": signal.step, "value": signal.value, "low": low, "high": high}
        found.setdefault(signal.name, []).append(row)
    return found
