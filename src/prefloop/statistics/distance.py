"""How far vectors lie from a cloud of known ones: Mahalanobis distance, with a limit from held-out vectors."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FEWEST = 50
"""Vectors below which no distribution of them is known."""


class Cloud(NamedTuple):
    """Centre [d] and inverse covariance [d, d] of known vectors."""

    centre: Floats
    precision: Floats


def fit_cloud(known: Floats) -> Cloud:
    """The cloud of vectors [n, d]; the covariance is shrunk towards a multiple of the identity.

    Source: Mahalanobis (1936); Ledoit & Wolf (2004), "A well-conditioned estimator for large-dimensional covariance
    matrices", section 3.
    """
    centre = known.mean(axis=0)
    off = known - centre
    n, d = off.shape
    sample = off.T @ off / n
    scale = float(np.trace(sample)) / d
    spread = float(((sample - scale * np.eye(d)) ** 2).sum()) / d
    # mean_k |x_k x_k' - S|^2 = mean_k |x_k|^4 - |S|^2
    noise = (float(((off**2).sum(axis=1) ** 2).mean()) - float((sample**2).sum())) / (n * d)
    weight = min(1.0, max(0.0, noise) / spread) if spread > 0 else 1.0
    shrunk = weight * scale * np.eye(d) + (1 - weight) * sample
    return Cloud(centre, np.linalg.pinv(shrunk))


def distances(given: Floats, cloud: Cloud) -> Floats:
    """[m] Mahalanobis distance of vectors [m, d]."""
    off = given - cloud.centre
    found: Floats = np.sqrt(np.maximum(0.0, np.einsum("md,de,me->m", off, cloud.precision, off)))
    return found


def far_limit(known: Floats, clusters: Sequence[Hashable], *, share: float) -> tuple[float, Cloud]:
    """The distance beyond which `share` of held-out known vectors [n, d] lie, and the cloud it is measured from.

    A quarter of the clusters is held out; the cloud is that of the others, so that the limit holds for vectors that had
    no part in it.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    held_out = np.array([places[name] % 4 == 0 for name in clusters])
    assert held_out.any() and not held_out.all(), "at least two clusters are needed"
    cloud = fit_cloud(known[~held_out])
    return float(np.quantile(distances(known[held_out], cloud), 1 - share)), cloud
