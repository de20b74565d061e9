"""How much to believe a predicted probability, for reward models in particular.

A pairwise reward model says P(chosen wins) = sigmoid(margin), margin = score(chosen) - score(rejected), and the outcome
is 1 by construction: every pair is written with its winner first. Binning those probabilities against outcomes that
are all 1 would call an honest 0.6 "too low". So calibration is measured on the side that the model itself bets on:
`pairwise_confidence` gives max(p, 1 - p) and whether that bet was right, the same for either way of writing a pair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

# The temperature is searched within this factor of the mean absolute margin, either way.
_TEMPERATURE_RANGE = 100.0
FEWEST_FOR_A_TEMPERATURE = 50
"""Pairs; with fewer, the standard error of log T is above a third even where the margins tell much."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The predictions with low <= p < high (the last bin includes its end)."""

    low: float
    high: float
    count: int
    mean_probability: float
    mean_outcome: float


def log_loss(margins: ArrayLike) -> float:
    """Bradley-Terry loss in nats, mean of -log sigmoid(margin), margins [n] of chosen over rejected.

    log 2 for a model that knows nothing. Source: Bradley & Terry (1952); Ouyang et al. (2022), equation 1.
    """
    return float(np.logaddexp(0.0, -_vector(margins)).mean())


def fit_temperature(margins: ArrayLike, outcomes: ArrayLike | None = None) -> float:
    """The T > 0 that minimises the log-loss of sigmoid(margin / T) against outcomes in [0, 1] (default: all 1).

    Margins, outcomes: [n]; 1/2 is a tie. T above 1 says that the model is overconfident. T scales with the margins
    and is searched between 1/100 and 100 times their mean size: the ends are reached by margins without a single
    error, and by margins that order no better than chance. Margins that are all 0 leave T = 1.

    Source: Platt (1999) without the offset, which a pair has not; Guo et al. (2017), section 4.2.
    """
    array = _vector(margins)
    won = np.ones_like(array) if outcomes is None else _probabilities(outcomes)
    assert array.shape == won.shape, (array.shape, won.shape)
    size = float(np.abs(array).mean())
    if size == 0:
        return 1.0

    def loss(log_temperature: float) -> float:
        logits = array / (size * math.exp(log_temperature))
        return float((won * np.logaddexp(0.0, -logits) + (1 - won) * np.logaddexp(0.0, logits)).mean())

    reach = math.log(_TEMPERATURE_RANGE)
    # The loss is convex in 1/T, hence has one valley in log T.
    found = optimize.minimize_scalar(loss, bounds=(-reach, reach), method="bounded", options={"xatol": 1e-9})
    return size * math.exp(float(found.x))


def usable_temperature(margins: ArrayLike) -> tuple[float | None, str]:
    """The temperature of margins [n] if they can tell one, else None and the reason.

    Few pairs, no error at all, or an order no better than chance tell none: the fit would end at a bound or at noise.
    """
    array = _vector(margins)
    if len(array) < FEWEST_FOR_A_TEMPERATURE:
        return None, f"{len(array)} held-out pairs are too few, {FEWEST_FOR_A_TEMPERATURE} are needed"
    if (array > 0).all():
        return None, "the held-out pairs hold no error"
    # The slope of the loss in 1/T at 0: while it is not negative, the best 1/T is 0.
    if array.mean() <= 0:
        return None, "the held-out pairs are ordered no better than by chance"
    return fit_temperature(array), ""


def pairwise_confidence(margins: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(confidence, correct), each [n]: sigmoid(|margin|) in [1/2, 1]; 1 where the margin is above 0, 1/2 at a tie."""
    array = _vector(margins)
    confidence: NDArray[np.float64] = special.expit(np.abs(array))
    return confidence, (np.sign(array) + 1) / 2


def reliability_bins(
    probabilities: ArrayLike, outcomes: ArrayLike, *, num_bins: int = 10, lowest: float = 0.0
) -> tuple[ReliabilityBin, ...]:
    """Equal-width bins over [lowest, 1], the empty ones left out; for pairwise confidence `lowest` is 1/2.

    Probabilities, outcomes: [n], in [0, 1]. Source: Murphy & Winkler (1977).
    """
    predicted, observed = _probabilities(probabilities), _probabilities(outcomes)
    assert predicted.shape == observed.shape, (predicted.shape, observed.shape)
    assert num_bins >= 1, num_bins
    assert 0 <= lowest < 1 and predicted.min() >= lowest, (lowest, predicted.min())
    edges = np.linspace(lowest, 1.0, num_bins + 1)
    place = np.digitize(predicted, edges[1:-1])
    return tuple(
        ReliabilityBin(
            low=float(edges[index]),
            high=float(edges[index + 1]),
            count=int((place == index).sum()),
            mean_probability=float(predicted[place == index].mean()),
            mean_outcome=float(observed[place == index].mean()),
        )
        for index in np.unique(place)
    )


def expected_calibration_error(
    probabilities: ArrayLike, outcomes: ArrayLike, *, num_bins: int = 10, lowest: float = 0.0
) -> float:
    """Sum over bins of (count / n) |mean outcome - mean probability|, 0 to 1.

    For a reward model pass `pairwise_confidence(margins)` and `lowest=0.5`. Biased upwards on few rows: compare models
    on the same rows only. Source: Naeini et al. (2015); Guo et al. (2017), equation 3.
    """
    bins = reliability_bins(probabilities, outcomes, num_bins=num_bins, lowest=lowest)
    gaps = sum(each.count * abs(each.mean_outcome - each.mean_probability) for each in bins)
    return gaps / sum(each.count for each in bins)


def _vector(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    assert array.ndim == 1 and array.size, f"a vector with at least one value is needed, not shape {array.shape}"
    assert np.isfinite(array).all(), "a value is not finite"
    return array


def _probabilities(values: ArrayLike) -> NDArray[np.float64]:
    array = _vector(values)
    assert array.min() >= 0 and array.max() <= 1, f"outside [0, 1]: {array.min()} to {array.max()}"
    return array
