"""What is true, and how does each annotator err? Both estimated from the votes alone (Dawid & Skene 1979).

Each item has one true class; each annotator says class l of an item of class j with a chance of their own, whatever
others say and however hard the item is.

Differences from the paper: votes per annotator and item may be any number, also none; `smoothing` adds pseudo-counts,
without which an annotator with few votes gets chances of exactly 0; items whose class is known stay at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
TINY = 1e-300


@dataclass(frozen=True)
class DawidSkene:
    """The fit."""

    posterior: Floats
    """[items, classes]: chance of each true class, given all votes."""
    prevalence: Floats
    """[classes]: share of the items."""
    confusion: Floats
    """[annotators, true class, said class]: rows sum to 1; rows of classes that an annotator never met are alike."""
    log_likelihood: float
    num_iterations: int
    converged: bool


def dawid_skene(
    counts: ArrayLike,
    *,
    smoothing: ArrayLike = 0.0,
    known: Mapping[int, int] | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 1000,
) -> DawidSkene:
    """Fit by EM from the shares of the votes (the paper's start, equation 3.1).

    Args:
        counts: [items, annotators, classes], how often the annotator said the class of the item; an item without votes
            gets the prevalence.
        smoothing: pseudo-votes in each cell of every annotator's confusion, one number or [true class, said class]; 0
            is the paper's maximum likelihood.
        known: item -> true class, for gold questions.
        tolerance: stop when no posterior changes by more.

    EM finds a local maximum near the majority's view: where most err in the same way, so does the fit. With one vote an
    item nothing tells errors from truth, and without smoothing that favours the diagonal the fit may be anything.
    Source: Dawid & Skene (1979), "Maximum likelihood estimation of observer error-rates using the EM algorithm",
    equations 2.3 to 2.5 and 2.7.
    """
    n = np.asarray(counts, dtype=np.float64)
    assert n.ndim == 3 and n.size and (n >= 0).all() and max_iterations >= 1, n.shape
    posterior = _start(n)
    _pin(posterior, known)
    num_iterations, change = 0, np.inf
    while change > tolerance and num_iterations < max_iterations:
        num_iterations += 1
        prevalence, confusion = _maximise(n, posterior, smoothing)
        joint = np.log(prevalence + TINY) + np.einsum("ikl,kjl->ij", n, np.log(confusion + TINY))
        highest = joint.max(axis=1, keepdims=True)
        shares = np.exp(joint - highest)
        evidence = highest[:, 0] + np.log(shares.sum(axis=1))
        updated = shares / shares.sum(axis=1, keepdims=True)
        _pin(updated, known)
        change = float(np.abs(updated - posterior).max())
        posterior = updated
    for item, true in (known or {}).items():
        evidence[item] = joint[item, true]
    return DawidSkene(posterior, prevalence, confusion, float(evidence.sum()), num_iterations, change <= tolerance)


def _start(n: Floats) -> Floats:
    votes = n.sum(axis=1)
    totals = votes.sum(axis=1, keepdims=True)
    everywhere = votes.sum(axis=0) / max(1.0, float(votes.sum()))
    shares: Floats = np.where(totals > 0, votes / np.maximum(totals, 1.0), everywhere)
    return shares


def _pin(posterior: Floats, known: Mapping[int, int] | None) -> None:
    for item, true in (known or {}).items():
        posterior[item] = 0.0
        posterior[item, true] = 1.0


def _maximise(n: Floats, posterior: Floats, smoothing: ArrayLike) -> tuple[Floats, Floats]:
    """Equations 2.3 and 2.4: prevalence, and how each annotator errs."""
    said = np.einsum("ij,ikl->kjl", posterior, n) + np.asarray(smoothing, dtype=np.float64)
    totals = said.sum(axis=2, keepdims=True)
    even = np.full_like(said, 1.0 / n.shape[2])
    return posterior.mean(axis=0), np.where(totals > 0, said / np.maximum(totals, TINY), even)
