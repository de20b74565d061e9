"""How far a mean may go by chance: limits from the reference policy's own responses.

An alarm takes `patience` looks in a row beyond a limit. With the mean m in the reference, the error s_look of the mean
of a look, and the error s_ref of m itself, which all looks share, the limit is m + t with

    P(every one of the looks > m + t) = E over z ~ N(0, 1) of Q((t - s_ref z) / s_look)^patience = wanted

where Q is the normal tail. Taking the looks as independent would forget that a reference that is low by chance is low
for all of them. Responses to one prompt count as one observation. Shares are compared as arcsin(sqrt(share)), whose
error hardly depends on the share (Anscombe 1948), so that rare habits get limits that are not too tight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]
FEWEST = 10
"""Prompts below which nothing is learnt of what chance does."""
NODES = 64


@dataclass(frozen=True)
class Sample:
    """The mean of a signal in the reference, over responses to so many prompts."""

    mean: float
    variance: float
    """Of the mean; what it is times `num_prompts` is the variance of a look at one prompt."""
    num_prompts: int
    num_responses: int


def sample_of(values: Floats, prompts: Sequence[str], *, pairwise: bool = False) -> Sample | None:
    """The sample of n values with the prompt of each, nan left out; None where fewer than FEWEST prompts have one.

    `pairwise` values say how each response compares with the others: their mean is a U-statistic of degree two, whose
    variance is four times that of a mean of such values (Hoeffding 1948).
    """
    applies = ~np.isnan(values)
    names, place = np.unique(np.asarray(prompts)[applies], return_inverse=True)
    number = len(names)
    if number < FEWEST:
        return None
    known = values[applies]
    mean = float(known.mean())
    residuals = np.bincount(place, weights=known - mean)
    variance = float((residuals**2).sum()) / len(known) ** 2 * number / (number - 1)
    return Sample(mean, variance * (4 if pairwise else 1), number, len(known))


def limits_of(sample: Sample, num_prompts: int, *, wanted: float, patience: int, is_share: bool) -> tuple[float, float]:
    """The lower and the upper limit of a look at `num_prompts` prompts: beyond either, `patience` looks in a row are by
    chance with probability `wanted`."""
    if not is_share:
        error = math.sqrt(sample.variance)
        reach = error * _reach(wanted, patience, round(sample.num_prompts / num_prompts, 6))
        return sample.mean - reach, sample.mean + reach
    # Half a response with it and half a one without: nothing seen is not nothing there.
    share = (sample.mean * sample.num_responses + 0.5) / (sample.num_responses + 1)
    # As many independent responses as would give this variance.
    number = share * (1 - share) / sample.variance if sample.variance else float(sample.num_prompts)
    error = 0.5 / math.sqrt(min(number, sample.num_responses))
    reach = error * _reach(wanted, patience, round(sample.num_prompts / num_prompts, 6))
    angle = math.asin(math.sqrt(share))
    low, high = max(0.0, angle - reach), min(math.pi / 2, angle + reach)
    return math.sin(low) ** 2, math.sin(high) ** 2


@lru_cache(maxsize=1024)
def _reach(wanted: float, patience: int, ratio: float) -> float:
    """t in units of the reference's error, whose square is that of a look over `ratio`."""
    nodes, weights = hermegauss(NODES)
    weights, look = weights / weights.sum(), math.sqrt(ratio)

    def excess(reach: float) -> float:
        return float(weights @ stats.norm.sf((reach - nodes) / look) ** patience) - wanted

    return float(optimize.brentq(excess, 0.0, 40.0 * (1 + look)))
