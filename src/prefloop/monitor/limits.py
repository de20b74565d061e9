"""How far a mean may go by chance: limits from the reference policy's own responses.

Prompts are drawn with replacement from the reference sample, twice: as many as a look has, and as many as the sample
itself has, since its own mean is uncertain, too. The difference of the two means is what chance does. An alarm needs
`patience` looks in a row beyond a quantile of it, so that with S signals

    false alarms a look = S * a^patience,  a = (wanted a look / S)^(1 / patience)

which can be reached with a few thousand draws. Looks are taken as independent given the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DRAWS = 4000
FEWEST = 10
"""Prompts below which nothing is learnt of what chance does."""


@dataclass(frozen=True)
class Sample:
    """A reference sample by prompt: sums [P] and counts [P] of the values that apply."""

    sums: Floats
    counts: Floats

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum())


def sample_of(values: Floats, prompts: Sequence[str]) -> Sample | None:
    """The sample of n values with the prompt of each, nan left out; None where fewer than FEWEST prompts have one."""
    applies = ~np.isnan(values)
    names, place = np.unique(np.asarray(prompts)[applies], return_inverse=True)
    if len(names) < FEWEST:
        return None
    return Sample(
        np.bincount(place, weights=values[applies]).astype(np.float64),
        np.bincount(place).astype(np.float64),
    )


def level(false_alarms: float, num_signals: int, patience: int) -> float:
    """The tail probability of a single look for so many false alarms in 1,000 looks over all signals."""
    return float(min(0.5, (false_alarms / 1000 / max(1, num_signals)) ** (1 / patience)))


def chance(sample: Sample, num_prompts: int, tail: float, *, seed: int) -> tuple[float, float]:
    """By how much the mean of a look at `num_prompts` prompts is below and above the sample's mean, by chance: the
    quantiles `tail` and 1 - `tail`."""
    generator = np.random.default_rng([seed, num_prompts])
    own = _means(sample, len(sample.sums), generator)
    others = _means(sample, num_prompts, generator)
    low, high = np.quantile(others - own, [tail, 1 - tail])
    return float(low), float(high)


def _means(sample: Sample, num_prompts: int, generator: np.random.Generator) -> Floats:
    """[DRAWS] means of resampled prompts."""
    found: Floats = np.empty(DRAWS)
    for start in range(0, DRAWS, 500):
        drawn = generator.integers(len(sample.sums), size=(500, num_prompts))
        found[start : start + 500] = sample.sums[drawn].sum(1) / sample.counts[drawn].sum(1)
    return found
