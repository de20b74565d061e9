"""Which of a run's responses to read first: what an alarm is about, then what is paid most where it is known least."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from prefloop.report.page import Block, Prose
from prefloop.report.records import Record, parse, read_lines
from prefloop.report.run import StoredRollout, rollout_block
from prefloop.report.wording import plain
from prefloop.types import Action

NUM_SHOWN = 10
MOST_OF_ALARMS = 6
"""Of these so many may be examples of alarms, so that others are seen, too."""
CANDIDATES = 200


class StoredExample(Record):
    """A response that an alarm shows."""

    step: int
    prompt: str
    response: str
    score: float


class StoredAlarm(Record):
    """A line of `alarms.jsonl`."""

    signal: str
    step: int
    value: float
    limit: float
    action: Action
    message: str
    examples: tuple[StoredExample, ...] = ()


def suspicious_rollouts(path: Path, alarms: Sequence[StoredAlarm]) -> list[Block]:
    """Ten different responses: examples of alarms in turn, the rest by `doubt`."""
    wanted = dict(_of_alarms(alarms))
    rows: dict[tuple[int, str], StoredRollout] = {}
    for line, value in read_lines(path):
        if (value.get("step"), str(value.get("response"))[:600]) in wanted:
            row = parse(value, StoredRollout, path, line)
            rows.setdefault((row.step, row.response[:600]), row)
    shown = [(rows[key], f"alarm: {plain(signal)}") for key, signal in wanted.items() if key in rows]
    seen = {row.response for row, _ in shown}
    for line, value in heapq.nlargest(CANDIDATES, read_lines(path), key=lambda numbered: doubt(numbered[1])):
        row = parse(value, StoredRollout, path, line)
        if len(shown) == NUM_SHOWN:
            break
        if row.response not in seen:
            seen.add(row.response)
            shown.append((row, _reason(row)))
    told = (
        "Examples of the alarms first, then those with the highest scores, out of the reward model's distribution or "
        "with a large disagreement of the ensemble where that is known."
    )
    return [Prose(told), *(rollout_block(row, label=label, tone="hacked") for row, label in shown)] if shown else []


def doubt(row: dict[str, Any]) -> tuple[bool, float]:
    """What a row is ranked by: out of distribution first, then score plus spread, the most that the members allow."""
    return bool(row.get("out_of_distribution")), float(row.get("score") or 0.0) + float(row.get("score_spread") or 0.0)


def _reason(row: StoredRollout) -> str:
    if row.out_of_distribution:
        return "high score, out of distribution"
    return "high score" if row.score_spread is None else "high score and spread"


def _of_alarms(alarms: Sequence[StoredAlarm]) -> Iterator[tuple[tuple[int, str], str]]:
    """Step and response of the examples, the first of each alarm, then the second, and so on; and the signal."""
    found: dict[str, tuple[int, str]] = {}
    for turn in zip_longest(*(alarm.examples for alarm in alarms)):
        for alarm, example in zip(alarms, turn, strict=True):
            if example is not None and example.response not in found and len(found) < MOST_OF_ALARMS:
                found[example.response] = (example.step, example.response[:600])
                yield found[example.response], alarm.signal
