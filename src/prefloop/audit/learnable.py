"""How well a small linear model of words, and a ruler, predict labels that they have not seen.

Both are yardsticks, not reward models: where neither beats a coin the labels may be noise, and where the ruler does as
well as the words, length is what a reward model would learn first.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from prefloop.signals.reading import words_of

NUM_FEATURES = 2**16
NUM_FOLDS = 5
L2 = 3e-3
"""Ridge penalty on the weights, for a mean loss and response vectors of length 1. Of 1e-4 ... 1e-1 the middle of the
flat region on oasst1 and hh-harmless; nothing in an audit is tuned to a file."""


@dataclass(frozen=True)
class LearnablePair:
    """One pair of the sample on which the yardsticks are held."""

    cluster: int
    """Pairs of a cluster are on one side of every fold."""
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Yardsticks:
    """Held-out margins of every pair [n]: above 0 right, 0 a tie, below 0 wrong."""

    words: NDArray[np.float64]
    ruler: NDArray[np.float64]
    clusters: Sequence[Hashable]


def hold_yardsticks(pairs: Sequence[LearnablePair]) -> Yardsticks:
    """Five-fold by cluster: each pair is judged by a model, and a ruler whose end was chosen, without its cluster."""
    folds = np.array([pair.cluster % NUM_FOLDS for pair in pairs])
    features = _differences(pairs)
    lengths = np.array([len(pair.chosen.strip()) - len(pair.rejected.strip()) for pair in pairs], dtype=np.float64)
    words, ruler = np.zeros(len(pairs)), np.zeros(len(pairs))
    for fold in np.unique(folds):
        train, held_out = folds != fold, folds == fold
        if train.any():
            words[held_out] = features[held_out] @ _fit(features[train])
            # Which end of the ruler wins is learnt too: on some data the shorter answer is preferred.
            ruler[held_out] = lengths[held_out] * np.sign(np.sign(lengths[train]).sum())
    return Yardsticks(words, ruler, [pair.cluster for pair in pairs])


def _differences(pairs: Sequence[LearnablePair]) -> sparse.csr_matrix:
    """Word and word-pair features of chosen minus those of rejected, [n, NUM_FEATURES]."""
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for row, pair in enumerate(pairs):
        for text, sign in ((pair.chosen, 1.0), (pair.rejected, -1.0)):
            counts = _hashed(text)
            size = np.sqrt(sum(counts.values())) or 1.0
            rows += [row] * len(counts)
            columns += counts.keys()
            # Square roots of counts: of length 1 together.
            values += [sign * np.sqrt(count) / size for count in counts.values()]
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(pairs), NUM_FEATURES))


def _hashed(text: str) -> Counter[int]:
    words = words_of(text)
    terms = [*words, *map(" ".join, pairwise(words))]
    return Counter(zlib.crc32(term.encode("utf-8")) % NUM_FEATURES for term in terms)


def _fit(features: sparse.csr_matrix) -> NDArray[np.float64]:
    """Weights of the Bradley-Terry model with a linear score: minimises mean log(1 + exp(-x w)) + L2 / 2 |w|^2."""
    transposed = features.T.tocsr()

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = features @ weights
        value = np.logaddexp(0.0, -margins).mean() + L2 / 2 * weights @ weights
        slope = -1.0 / (1.0 + np.exp(np.clip(margins, -500, 500)))
        return float(value), transposed @ slope / len(margins) + L2 * weights

    found = optimize.minimize(
        loss, np.zeros(features.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 50, "maxcor": 5}
    )
    weights: NDArray[np.float64] = found.x
    return weights
