"""How many requests one client may make: a token bucket for each."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_KEYS = 10_000
"""Clients remembered; the one that was seen longest ago is forgotten first."""


class Rate:
    """Lets `per_minute` requests a minute through for each key, and as many at once after a rest."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self.clock = per_minute, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, key: str) -> float:
        """0 where a request may pass, which is then counted; else the seconds until one may."""
        now, per_second = self.clock(), self.per_minute / 60
        with self._lock:
            left, before = self._left.pop(key, (float(self.per_minute), now))
            left = min(float(self.per_minute), left + (now - before) * per_second)
            passes = left >= 1
            self._left[key] = (left - 1 if passes else left, now)
            if len(self._left) > MOST_KEYS:
                self._left.popitem(last=False)
        return 0.0 if passes else (1 - left) / per_second
