"""A run watched while it writes its log: rows are taken as they come, and looked at when there are enough.

All that is known comes from the log, so a run that goes on after a crash reads it again and stands where it stood.
"""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path

from prefloop.monitor.config import TrainingMonitor
from prefloop.monitor.limits import FEWEST
from prefloop.monitor.rows import Observed, observed
from prefloop.monitor.watch import Watch
from prefloop.types import Alarm


class LogWatch:
    """Reads `rollouts.jsonl` on. The first steps are the reference, whole looks of whole steps follow."""

    def __init__(self, settings: TrainingMonitor) -> None:
        self.settings = settings
        self.watch: Watch | None = None
        self._place = 0
        self._rows: list[Observed] = []

    def read_on(self, path: Path) -> list[Alarm]:
        """Take the rows that were added, which end with a whole step; the alarms that they raise."""
        with path.open("rb") as file:
            file.seek(self._place)
            lines = file.readlines()
            self._place = file.tell()
        steps: dict[int, list[Observed]] = {}
        for line in lines:
            row = observed(json.loads(line))
            steps.setdefault(row.step, []).append(row)
        return [alarm for step in sorted(steps) for alarm in self._step(steps[step])]

    def _step(self, rows: list[Observed]) -> list[Alarm]:
        self._rows += rows
        if self.watch is None:
            enough = len({row.prompt_id for row in self._rows}) >= FEWEST
            if enough and len(self._rows) >= self.settings.reference_responses:
                self.watch, self._rows = Watch(self.settings, self._rows), []
            return []
        if len(self._rows) < self.settings.responses:
            return []
        look, self._rows = self._rows, []
        return self.watch.look(look)

    def newest(self, step: int) -> dict[str, float]:
        """What was measured in a look that ended with `step`."""
        if self.watch is None:
            return {}
        newest = takewhile(lambda signal: signal.step == step, reversed(self.watch.signals))
        return {signal.name: signal.value for signal in newest}
