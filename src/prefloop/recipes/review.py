"""`review list`, `review export`: a rollout log, what the monitor says of it, and what people should read of it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prefloop.console import say
from prefloop.data.formats import prompt_of
from prefloop.data.read import nothing_usable, tell_left_out
from prefloop.data.rows import Row, stream_rows
from prefloop.data.stream import Source, Tally, parsed_rows
from prefloop.monitor.config import MonitorSettings
from prefloop.monitor.limits import FEWEST
from prefloop.monitor.rows import Observed, looks_of, observed
from prefloop.monitor.watch import EXAMPLE_CHARS, Watch
from prefloop.recipes.review_config import ReviewExportConfig, ReviewListConfig, ReviewSettings
from prefloop.review.detectors import Logged, suspicions
from prefloop.review.queue import as_row, make_queue, ranked
from prefloop.review.text import as_table
from prefloop.reward.remote import prompt_text
from prefloop.rundir import ALARMS, output_file, write_rows
from prefloop.types import InputError, Told

Shown = tuple[int, str, str]
"""Step and the beginnings of prompt and response, by which an alarm names its examples."""


@dataclass(frozen=True)
class _Read:
    """A row of a log as the monitor sees it, and what the monitor leaves aside."""

    row: Observed
    values: Mapping[str, Any]


@dataclass(frozen=True)
class _Log:
    """A log with what is suspicious in it."""

    file: Path
    rows: list[Logged]
    num_bad: int
    warnings: list[str]


def list_suspicious(config: ReviewListConfig) -> Told:
    """The most suspicious responses. Raises InputError where the log cannot be used."""
    log = _read_log(config)
    found = suspicions(log.rows)
    order = ranked(log.rows, found, per_prompt=config.per_prompt)
    shown = [
        {
            "rank": each.rank,
            "step": log.rows[each.place].step,
            "score": log.rows[each.place].score,
            "suspicion": each.suspicion.value,
            "reasons": list(each.suspicion.reasons),
            "prompt": log.rows[each.place].prompt,
            "response": log.rows[each.place].response,
        }
        for each in order[: config.top]
    ]
    following = f"prefloop review export {shlex.quote(config.log)} --out queue.jsonl"
    counts = Counter(reason for each in found for reason in each.reasons)
    values = {
        "file": str(log.file),
        "num_rows": len(log.rows),
        "num_bad": log.num_bad,
        "num_suspicious": sum(bool(each.reasons) for each in found),
        "num_ranked": len(order),
        "reasons": dict(counts.most_common()),
        "warnings": log.warnings,
        "suspicious": shown,
        "next": following,
    }
    return Told(values, as_table(values))


def export(config: ReviewExportConfig) -> dict[str, Any]:
    """Write the queue. Raises InputError where the log cannot be used or the file not be written."""
    out = output_file(config.out)
    log = _read_log(config)
    items = make_queue(
        log.rows,
        suspicions(log.rows),
        size=config.size,
        random_fraction=config.random_fraction,
        per_prompt=config.per_prompt,
        seed=config.seed,
        run=config.log,
    )
    write_rows(out, map(as_row, items))
    return {
        "out": str(out),
        "num_items": len(items),
        "num_suspicious": sum(item.rank is not None for item in items),
        "num_random": sum(item.draws for item in items),
        "num_rows": len(log.rows),
        "num_bad": log.num_bad,
        "warnings": log.warnings,
        "next": f"prefloop label import {shlex.quote(config.out)}",
    }


def _read_log(config: ReviewSettings) -> _Log:
    given = Path(config.log)
    file = given / "rollouts" / "rollouts.jsonl" if given.is_dir() else given
    if given.is_dir() and not file.exists():
        raise InputError("holds no rollouts", path=given, field="log", remedy="give a run of train policy, or a file")
    read, num_bad = _read_rows(file, skip_bad=config.skip_bad)
    warnings: list[str] = []
    watch, beyond = _watched([each.row for each in read], config, warnings)
    alarms = _alarms(given / ALARMS, watch)
    rows = [
        _logged(each, alarms, beyond.get(place, ()))
        for place, each in enumerate(read)
        if each.row.step >= config.from_step
    ]
    if not rows:
        last = max(each.row.step for each in read)
        raise InputError(f"has no step from {config.from_step} on, its last is {last}", path=file, field="from_step")
    return _Log(file, rows, num_bad, warnings)


def _read_rows(file: Path, *, skip_bad: bool) -> tuple[list[_Read], int]:
    tally = Tally(skip_bad)
    has_steps: list[bool] = []

    def parse(row: Row) -> _Read:
        # Responses of one policy have no steps; one row without a step among others is a mistake.
        has_steps.append("step" in row.values if not has_steps else has_steps[0])
        if not has_steps[0] and "step" in row.values:
            raise InputError("the rows before have none", field="step", remedy="give all rows a step, or none")
        return _Read(observed(row.values if has_steps[0] else {**row.values, "step": 0}), row.values)

    read = [made for _, made in parsed_rows(Source(str(file)), tally, parse)]
    if not read:
        raise nothing_usable(tally, str(file))
    tell_left_out(tally)
    return sorted(read, key=lambda each: each.row.step), len(tally.bad)


def _logged(read: _Read, alarms: Mapping[Shown, tuple[str, ...]], beyond: Sequence[str]) -> Logged:
    row, values = read.row, read.values
    version, finish = values.get("policy_version"), values.get("finish_reason")
    return Logged(
        *(row.prompt_id, prompt_text(prompt_of(values)), row.response, row.score, row.step),
        kl=row.kl,
        score_spread=row.score_spread,
        held_out_score=row.held_out_score,
        out_of_distribution=_outside(values.get("out_of_distribution")),
        finish_reason=finish if isinstance(finish, str) else None,
        policy_version=version if isinstance(version, str) else "",
        alarms=alarms.get(_shown(row.step, row.prompt, row.response), ()),
        beyond=tuple(beyond),
    )


def _outside(value: Any) -> float | None:
    """0 or 1, or a distance; true and false count as 1 and 0."""
    return float(value) if isinstance(value, int | float) else None


def _watched(
    rows: Sequence[Observed], config: ReviewSettings, warnings: list[str]
) -> tuple[Watch | None, dict[int, list[str]]]:
    """The log as the monitor sees it; by place of a row, the signals beyond their limit in its look and in itself."""
    reference, start = _reference(rows, config)
    if start == len(rows) or len({row.prompt_id for row in reference}) < FEWEST:
        told = f"there is no reference of {FEWEST} prompts with something to compare with it; name one with --reference"
        warnings.append(f"the monitor says nothing: {told}")
        say(f"warning: {warnings[-1]}")
        return None, {}
    settings = MonitorSettings()
    watch = Watch(settings, reference)
    beyond: dict[int, list[str]] = {}
    for look in looks_of(rows[start:], settings.responses):
        watch.look(look)
        for place, name in _beyond(watch, look):
            beyond.setdefault(start + place, []).append(name)
        start += len(look)
    return watch, beyond


def _reference(rows: Sequence[Observed], config: ReviewSettings) -> tuple[Sequence[Observed], int]:
    """The reference sample, and the place of the first row that is compared with it."""
    if config.reference is not None:
        return [each.row for each in _read_rows(Path(config.reference), skip_bad=config.skip_bad)[0]], 0
    steps = sorted({row.step for row in rows})
    last = steps[min(config.reference_steps, len(steps)) - 1]
    start = next((place for place, row in enumerate(rows) if row.step > last), len(rows))
    return rows[:start], start


def _beyond(watch: Watch, look: Sequence[Observed]) -> list[tuple[int, str]]:
    """The rows of the newest look that are above the limit of a signal whose mean is."""
    step = max(row.step for row in look)
    means = {signal.name: signal.value for signal in watch.signals if signal.step == step}
    found = []
    for measure in watch.measures:
        limits = watch.limits.get(measure.name)
        if not limits or limits[-1][0] != step or not means[measure.name] > limits[-1][2]:
            continue
        above = np.flatnonzero(measure.values(look) > limits[-1][2])
        found += [(int(place), measure.name) for place in above]
    return found


def _alarms(file: Path, watch: Watch | None) -> dict[Shown, tuple[str, ...]]:
    """By example, the signals whose alarm shows it: those that the run told, or else those of a look at it now."""
    told: dict[Shown, tuple[str, ...]] = {}

    def note(signal: str, examples: Any) -> None:
        for each in examples:
            key = _shown(each["step"], each["prompt"], each["response"])
            told[key] = tuple(dict.fromkeys((*told.get(key, ()), signal)))

    if file.is_file():
        for row in stream_rows(file):
            try:
                note(row.values["signal"], row.values["examples"])
            except (KeyError, TypeError, AttributeError):
                remedy = "restore it, or give rollouts/rollouts.jsonl instead of the run"
                raise InputError("is no alarm of train policy", path=row.path, line=row.line, remedy=remedy) from None
    elif watch is not None:
        for alarm in watch.alarms:
            note(alarm.signal, alarm.examples)
    return told


def _shown(step: int, prompt: str, response: str) -> Shown:
    return step, prompt[:EXAMPLE_CHARS], response[:EXAMPLE_CHARS]
