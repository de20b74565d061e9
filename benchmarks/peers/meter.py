"""What every measured process shares: it does a step when it is told to, and says what that took.

Of the standard library only, as peers import it too. A process is told on its standard input, a word a line, and
answers with a line of JSON on its standard output; whatever else it prints goes to the standard error. It ends when its
input does.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

Answer = Callable[..., Mapping[str, Any]]


class Meter:
    """Seconds of each step with what was counted during it.

    Seconds are those of this process's CPU with one thread, so that whatever else runs on the machine hardly shows in
    them, and those of the clock on the wall with more.
    """

    def __init__(self, *, threads: int, answers: Mapping[str, Answer] | None = None) -> None:
        """`answers`: what this process can be asked between two steps, by the first word of the question."""
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.clock = time.process_time if threads == 1 else time.perf_counter
        self.answers = {} if answers is None else answers
        self.counts: defaultdict[str, float] = defaultdict(float)
        self.extra_seconds = 0.0
        """Added to every step: its share of what was done once for all of them."""
        self._since = self.clock()

    def ready(self, **facts: Any) -> None:
        """Everything is loaded; wait for the first step."""
        self._tell(facts)
        self._wait()

    def step_done(self) -> None:
        """Report the step; wait for the next. Raises SystemExit at the end of the input."""
        seconds = self.clock() - self._since + self.extra_seconds
        self._tell({"seconds": seconds, **self.counts, "peak_mib": peak_mib()})
        self._wait()

    def _wait(self) -> None:
        while (line := sys.stdin.readline()) and line.split()[0] != "step":
            question, *words = line.split()
            self._tell(self.answers[question](*words))
        if not line:
            raise SystemExit(0)
        self.counts.clear()
        self._since = self.clock()

    def _tell(self, message: Mapping[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()


def peak_mib() -> float:
    """The most memory that this process has held so far, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)
