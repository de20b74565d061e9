"""Is the gain in score a gain in length? Source: Singhal et al. (2023), "A long way to go", section 3.

The responses of the reference and of a look are put into the same bins of length. What the score would have gained if
only the responses within each bin had changed is the gain within bins; the rest is the longer bins' doing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
BINS = 8
FEWEST = 5
"""Responses of the reference that a bin needs, to say what responses of its length scored before."""


def length_correlation(scores: Floats, lengths: Floats) -> float | None:
    """Spearman's rank correlation; None where either does not vary."""
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(lengths) == 0:
        return None
    return float(stats.spearmanr(scores, lengths).statistic)


def share_within_lengths(
    scores: Floats, lengths: Floats, reference_scores: Floats, reference_lengths: Floats
) -> float | None:
    """Share of the gain in mean score that remains among responses of like length.

    1 where length explains nothing, 0 where it explains all; a response longer (or shorter) than all that the reference
    has gains nothing within a bin. None where the score has not gained more than two standard errors.
    """
    gain = float(scores.mean() - reference_scores.mean())
    error = np.sqrt(scores.var() / len(scores) + reference_scores.var() / len(reference_scores))
    if gain <= 2 * error:
        return None
    edges = np.unique(np.quantile(reference_lengths, np.linspace(0, 1, BINS + 1)))
    inside = (lengths >= edges[0]) & (lengths <= edges[-1])
    places, before = (np.searchsorted(edges[1:-1], each, side="right") for each in (lengths, reference_lengths))
    within = 0.0
    for place in np.unique(places[inside]):
        now, then = inside & (places == place), before == place
        if then.sum() >= FEWEST:
            within += float(now.mean()) * float(scores[now].mean() - reference_scores[then].mean())
    return within / gain
