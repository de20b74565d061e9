"""The baseline of `honest_reward`: logistic regression on character n-grams of both responses. numpy and scipy only.

A response is the tf-idf vector of its lower-cased character n-grams, hashed into 2^20 places, of length 1; a pair is
the difference of its two vectors, and the weights minimise Bradley-Terry's loss with an L2 penalty. It reads no prompt.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from prefloop.types import PreferencePair

PLACES = 1 << 20
Floats = NDArray[np.float64]


def counted(texts: Sequence[str], *, longest: int = 4) -> sparse.csr_matrix:
    """[n, PLACES] 1 + log(count) of each text's n-grams of 1 to `longest` characters, a space put around the text."""
    rows, places, values = [], [], []
    for row, text in enumerate(texts):
        spaced = f" {text.lower()} "
        grams = Counter(
            zlib.crc32(spaced[start : start + size].encode()) % PLACES
            for size in range(1, longest + 1)
            for start in range(len(spaced) - size + 1)
        )
        rows += [row] * len(grams)
        places += grams.keys()
        values += [1 + np.log(count) for count in grams.values()]
    return sparse.csr_matrix((values, (rows, places)), shape=(len(texts), PLACES))


def unit_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """The rows divided by their lengths."""
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(lengths, 1e-12)) @ matrix


def logistic(differences: sparse.csr_matrix, *, l2: float) -> Floats:
    """The w that minimises mean log(1 + exp(-x w)) + l2/2 |w|^2 over the rows x."""
    number = differences.shape[0]

    def loss(weights: Floats) -> tuple[float, Floats]:
        margins = differences @ weights
        value = np.logaddexp(0, -margins).mean() + l2 / 2 * weights @ weights
        return float(value), -(differences.T @ (1 / (1 + np.exp(margins)))) / number + l2 * weights

    start = np.zeros(differences.shape[1])
    found: Floats = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return found


def margins_by_fold(pairs: Sequence[PreferencePair], folds: Sequence[int], *, l2: float = 1e-3) -> list[float]:
    """The margin of each pair by the weights of the other folds; idf, too, is counted on those only."""
    chosen, rejected = counted([pair.chosen for pair in pairs]), counted([pair.rejected for pair in pairs])
    fold_of_pair, margins = np.asarray(folds), np.zeros(len(pairs))
    for fold in np.unique(fold_of_pair):
        seen = fold_of_pair != fold
        known = sparse.vstack([chosen[seen], rejected[seen]])
        holders = np.bincount(known.indices, minlength=PLACES)
        idf = sparse.diags(np.log((1 + known.shape[0]) / (1 + holders)) + 1)
        differences = (unit_rows(chosen @ idf) - unit_rows(rejected @ idf)).tocsr()
        used = np.unique(differences[seen].indices)
        differences = differences[:, used]
        margins[~seen] = differences[~seen] @ logistic(differences[seen], l2=l2)
    return [float(margin) for margin in margins]
