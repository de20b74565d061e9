"""How heavy the tail of a reward model's error is.

Optimisation seeks out the largest errors. Where error is independent of what was meant and its tail is light, gold goes
on rising; where it is heavy, what is found in the end is error alone (Kwa et al. 2024, "Catastrophic Goodhart"). That
explains a curve, and decides nothing: error that depends on gold turns a curve over with any tail.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def hill(values: ArrayLike, num_largest: int | None = None) -> float | None:
    """Tail index of the upper tail: P(X > x) falls like x^-index. Below 3 or so: heavy; light tails give large numbers.

    Hill's estimator 1 / mean_i log(x_(i) / x_(k+1)) over the k = `num_largest` largest values, by default the square
    root of twice the number, at least 10. None where x_(k+1) is not above 0, or all are equal. Source: Hill (1975).
    """
    array = np.asarray(values, dtype=np.float64)
    k = max(10, round(math.sqrt(2 * len(array)))) if num_largest is None else num_largest
    if len(array) <= k:
        return None
    largest = np.sort(np.partition(array, len(array) - k - 1)[len(array) - k - 1 :])
    if largest[0] <= 0:
        return None
    mean = float(np.log(largest[1:] / largest[0]).mean())
    return 1 / mean if mean > 0 else None


def proxy_error(proxy: ArrayLike, gold: ArrayLike, clusters: ArrayLike) -> Floats:
    """[M] what of the proxy gold does not explain: residuals of a line through all rows, around their clusters' means.

    `clusters` [M] are numbers from 0. Proxy and gold need not have one scale.
    """
    place = np.asarray(clusters, dtype=np.int64)
    counts = np.bincount(place)

    def centred(values: ArrayLike) -> Floats:
        array = np.asarray(values, dtype=np.float64)
        away: Floats = array - (np.bincount(place, weights=array) / counts)[place]
        return away

    by, worth = centred(proxy), centred(gold)
    spread = float(worth @ worth)
    error: Floats = by - (float(by @ worth) / spread if spread > 0 else 0.0) * worth
    return error
