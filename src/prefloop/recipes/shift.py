"""What became of a reward model where the newest policy writes: its accuracy and calibration on pairs of that policy
against pairs of the old one, by how far the policy has moved from the incumbent. Numbers in, numbers out; no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prefloop.reward.measures import few_conversations_note
from prefloop.statistics.calibration import expected_calibration_error, log_loss, pairwise_confidence
from prefloop.statistics.intervals import cluster_bootstrap, difference_bootstrap
from prefloop.statistics.pairwise import accuracy_with_ties

NUM_BINS = 4
"""Bins of KL, with about as many new pairs each."""
FEWEST_IN_A_BIN = 20
"""Pairs; with fewer the interval of a bin says nothing, so there are fewer bins."""


@dataclass(frozen=True)
class ScoredPair:
    """A judged pair as the reward model in use sees it."""

    margin: float
    """Score of the chosen minus score of the rejected response, over the model's temperature: log-odds."""
    kl: float
    """Mean KL of the newest policy to the incumbent along the two responses, in nats."""
    conversation: str


def measure_shift(
    new: Sequence[ScoredPair], old: Sequence[ScoredPair], *, num_resamples: int, seed: int
) -> dict[str, Any]:
    """{"old", "new", "difference", "bins"}: the model on all old and on all new pairs, what it lost between them (new
    less old, intervals by a bootstrap over conversations), and the new pairs by KL, each bin less all old pairs."""
    by_kl = sorted(new, key=lambda pair: pair.kl)
    num_bins = max(1, min(NUM_BINS, len(new) // FEWEST_IN_A_BIN))
    # Pairs of equal KL belong together, so the edges are taken between distinct values.
    edges = np.unique(np.quantile([pair.kl for pair in new], np.linspace(0, 1, num_bins + 1)[1:-1]))
    place = np.searchsorted(edges, [pair.kl for pair in by_kl], side="left")
    bins = [[pair for pair, at in zip(by_kl, place, strict=True) if at == number] for number in np.unique(place)]

    def less_old(pairs: Sequence[ScoredPair]) -> dict[str, Any]:
        return difference(pairs, old, num_resamples=num_resamples, seed=seed)

    def row(pairs: Sequence[ScoredPair]) -> dict[str, Any]:
        return summary(pairs, num_resamples=num_resamples, seed=seed)

    num_conversations = min(len({pair.conversation for pair in side}) for side in (new, old))
    return {
        "old": row(old),
        "new": row(new),
        "difference": less_old(new),
        "bins": [
            {"from_kl": inside[0].kl, "to_kl": inside[-1].kl, **row(inside), **_in_a_table(less_old(inside))}
            for inside in bins
        ],
        **few_conversations_note(num_conversations),
    }


def summary(pairs: Sequence[ScoredPair], *, num_resamples: int, seed: int) -> dict[str, Any]:
    """Accuracy with its interval, log-loss and calibration on some pairs."""
    margins = [pair.margin for pair in pairs]
    confidence, right = pairwise_confidence(margins)
    clusters = [pair.conversation for pair in pairs]
    return {
        "num_pairs": len(pairs),
        "num_conversations": len(set(clusters)),
        "mean_kl": float(np.mean([pair.kl for pair in pairs])),
        "accuracy": accuracy_with_ties(margins),
        "interval": list(cluster_bootstrap(right, clusters, num_resamples=num_resamples, seed=seed)),
        "log_loss": log_loss(margins),
        "ece": expected_calibration_error(confidence, right, lowest=0.5),
    }


def difference(
    new: Sequence[ScoredPair], old: Sequence[ScoredPair], *, num_resamples: int, seed: int
) -> dict[str, Any]:
    """New less old: accuracy and log-loss with their intervals, and ECE (biased upwards on fewer pairs) without."""
    clusters = [[pair.conversation for pair in side] for side in (new, old)]
    margins = [np.array([pair.margin for pair in side]) for side in (new, old)]
    bets = [pairwise_confidence(each) for each in margins]
    rights = [right for _, right in bets]
    losses = [np.logaddexp(0.0, -each) for each in margins]

    def interval(values: Sequence[Any]) -> list[float]:
        bounds = {"num_resamples": num_resamples, "seed": seed}
        return list(difference_bootstrap(values[0], clusters[0], values[1], clusters[1], **bounds))

    ece = [expected_calibration_error(*bet, lowest=0.5) for bet in bets]
    return {
        "accuracy": float(rights[0].mean() - rights[1].mean()),
        "accuracy_interval": interval(rights),
        "log_loss": float(losses[0].mean() - losses[1].mean()),
        "log_loss_interval": interval(losses),
        "ece": ece[0] - ece[1],
    }


def _in_a_table(less_old: dict[str, Any]) -> dict[str, Any]:
    return {"accuracy_less_old": less_old["accuracy"], "less_old_interval": less_old["accuracy_interval"]}
