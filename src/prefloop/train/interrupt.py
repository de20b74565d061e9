"""Ctrl-C and SIGTERM while a loop runs: the first is noted, so that the step in hand can end; a second one cuts in."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STANDARD_ERROR = 2
NOTE = "\ninterrupted: stopping after this step, with a checkpoint; once more stops at once\n"


class StopSignals:
    """While it is open, the first signal sets `requested`; another one raises KeyboardInterrupt where it lands.

    A loop that sees `requested` finishes what it has in hand, saves, and leaves: closing then raises KeyboardInterrupt,
    so no signal is lost. Signals reach the main thread only, so elsewhere nothing is installed; a signal that is
    ignored (`nohup`, a shell's background job) stays ignored.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                previous = signal.getsignal(number)
                # None: installed by something else than Python, which could not be put back.
                if previous not in (signal.SIG_IGN, None):
                    self._previous[number] = previous
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        if self.requested and kind is None:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # Not `print`: the signal may have landed inside one, and streams cannot be entered twice.
        with contextlib.suppress(OSError):
            os.write(STANDARD_ERROR, NOTE.encode())
