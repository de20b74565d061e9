"""The one alarm that stops a run: a held-out score falls while the score that is optimised rises.

Only a scorer that nothing was optimised against, trained on other annotators' labels, is independent evidence; one
trained on the same labels shares their bias.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from scipy import stats

from prefloop.monitor.limits import Floats, sample_of


@dataclass
class HeldOut:
    """The looks so far, each as mean, squared standard error, and mean of the score that is optimised."""

    looks: list[tuple[float, float, float]] = field(default_factory=list)

    def add(self, held_out: Floats, scores: Floats, prompts: Sequence[str], *, tail: float) -> float | None:
        """Note a look; the limit where its mean is below it, else None.

        The limit is the best mean before, less what chance explains; responses to one prompt count as one observation.
        `tail` is the chance of a single comparison; it is divided by the number of earlier looks, since the best of
        them was picked. A look at too few prompts says nothing.
        """
        sample = sample_of(held_out, prompts)
        if sample is None:
            return None
        proxy, limit = float(scores.mean()), None
        if self.looks:
            best, best_error, best_proxy = max(self.looks)
            reach = float(stats.norm.isf(tail / len(self.looks))) * math.sqrt(sample.variance + best_error)
            if sample.mean < best - reach and proxy > best_proxy:
                limit = best - reach
        self.looks.append((sample.mean, sample.variance, proxy))
        return limit
