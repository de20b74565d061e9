"""The one alarm that may stop a run: a held-out score falls while the score that is optimised rises.

Only a scorer that nothing was optimised against, trained on other annotators' labels, is independent evidence; one
trained on the same labels shares their bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


@dataclass
class HeldOut:
    """The looks so far, each as mean, squared standard error, and mean of the score that is optimised."""

    looks: list[tuple[float, float, float]] = field(default_factory=list)

    def add(self, held_out: Floats, scores: Floats, *, tail: float) -> tuple[float, float] | None:
        """Note a look; (mean, limit) where it is below the best one before by more than chance explains, else None.

        `tail` is the chance of a single comparison; it is divided by the number of earlier looks, since the best of
        them was picked. The limit is the best mean less what chance explains.
        """
        mean, error = float(held_out.mean()), float(held_out.var(ddof=1) / len(held_out))
        proxy = float(scores.mean())
        fallen = None
        if self.looks:
            best, best_error, best_proxy = max(self.looks)
            reach = float(stats.norm.isf(tail / len(self.looks))) * math.sqrt(error + best_error)
            if mean < best - reach and proxy > best_proxy:
                fallen = (mean, best - reach)
        self.looks.append((mean, error, proxy))
        return fallen
