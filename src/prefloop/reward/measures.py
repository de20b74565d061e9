"""What the margins of a scorer on preference pairs say: the answer of `reward eval`. Numbers in, numbers out; no model.

A margin is the score of the chosen minus that of the rejected response. Accuracy never stands alone: rulers that read
no text, the model with the prompts shuffled, and tables by source and by length stand beside it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefloop.data.split import conversation_key
from prefloop.statistics.calibration import (
    expected_calibration_error,
    fit_temperature,
    log_loss,
    pairwise_confidence,
    reliability_bins,
)
from prefloop.statistics.intervals import cluster_bootstrap
from prefloop.statistics.pairwise import (
    accuracy_with_ties,
    clustered_mcnemar,
    independent_pairs,
    smallest_detectable_difference,
)
from prefloop.types import PreferencePair

FEW_CONVERSATIONS = 20
"""Below this a bootstrap over conversations is too narrow for a claim (`statistics/intervals.py`)."""
LENGTH_BINS = 5
Floats = NDArray[np.float64]


def summarise(
    pairs: Sequence[PreferencePair],
    margins: Sequence[float],
    shuffled: Sequence[float | None],
    *,
    num_resamples: int,
    seed: int,
    temperature: float | None = None,
) -> dict[str, Any]:
    """The answer of `reward eval` from the margins with the right and with shuffled prompts.

    Length is a ruler in both directions: where people chose the shorter response, beating the longer one is no feat.
    `majority` is the better of the two: what one constant answer reaches that may look at the labels. Log-loss, ECE
    and reliability are those of margin / `temperature` (None: of the margins as they are); `best_temperature` is what
    these pairs would divide them by once more, 1 where they are calibrated.
    """
    swapped = [margin for margin in shuffled if margin is not None]
    longer = _longer(pairs)
    clusters = [conversation_key(pair) for pair in pairs]
    calibrated = np.asarray(margins, dtype=np.float64) / (temperature or 1.0)
    confidence, right = pairwise_confidence(calibrated)

    def row(where: Sequence[int]) -> dict[str, Any]:
        return _accuracy_row(margins, longer, clusters, where, num_resamples=num_resamples, seed=seed)

    everywhere = row(range(len(pairs)))
    rulers = {"longer": everywhere["longer"], "shorter": 1.0 - everywhere["longer"]}
    answer = {
        "accuracy": everywhere["accuracy"],
        "accuracy_interval": everywhere["interval"],
        "log_loss": log_loss(calibrated),
        "ece": expected_calibration_error(confidence, right, lowest=0.5),
        "temperature": temperature,
        "best_temperature": fit_temperature(calibrated),
        "num_pairs": len(pairs),
        "num_prompts": len({pair.prompt.prompt_id for pair in pairs}),
        "num_conversations": len(set(clusters)),
        "baselines": {
            **rulers,
            "majority": max(rulers.values()),
            "shuffled_prompt": accuracy_with_ties(swapped) if swapped else None,
        },
        "against_longer": compare_margins(margins, longer, clusters, num_resamples=num_resamples, seed=seed),
        "against_shorter": compare_margins(
            margins, [-more for more in longer], clusters, num_resamples=num_resamples, seed=seed
        ),
        "where_shorter_is_right": row([place for place, more in enumerate(longer) if more < 0]),
        "where_longer_is_right": row([place for place, more in enumerate(longer) if more > 0]),
        "best_of_k": best_of_k(pairs, margins, num_resamples=num_resamples, seed=seed),
        "reliability": reliability_table(calibrated),
        "by_source": [{"source": name, **row(where)} for name, where in _sources(pairs)],
        "by_length_difference": [
            {"from_characters": int(low), "to_characters": int(high), **row(where)}
            for low, high, where in _length_bins(longer)
        ],
    }
    return answer | few_conversations_note(answer["num_conversations"])


def few_conversations_note(num_conversations: int) -> dict[str, str]:
    """What an answer on few conversations says of itself; nothing where there are enough."""
    if num_conversations >= FEW_CONVERSATIONS:
        return {}
    problem = f"{num_conversations} conversations are too few for a claim: below {FEW_CONVERSATIONS} the intervals are"
    return {"note": f"{problem} narrower than they should be"}


def _longer(pairs: Sequence[PreferencePair]) -> list[float]:
    """Characters that the chosen response has more than the rejected one."""
    return [float(len(pair.chosen) - len(pair.rejected)) for pair in pairs]


def _accuracy_row(
    margins: Sequence[float],
    longer: Sequence[float],
    clusters: Sequence[str],
    where: Sequence[int],
    *,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Accuracy with its interval on the pairs `where`, and what the longer one reaches there; null without pairs."""
    if not where:
        return {"num_pairs": 0, "accuracy": None, "interval": None, "longer": None}
    correct = [accuracy_with_ties([margins[place]]) for place in where]
    names = [clusters[place] for place in where]
    return {
        "num_pairs": len(where),
        "accuracy": float(np.mean(correct)),
        "interval": list(cluster_bootstrap(correct, names, num_resamples=num_resamples, seed=seed)),
        "longer": accuracy_with_ties([longer[place] for place in where]),
    }


def reliability_table(margins: Floats) -> list[dict[str, Any]]:
    """For each bin of the confidence sigmoid(|margin|): what was promised, and how often that bet was right."""
    confidence, right = pairwise_confidence(margins)
    return [
        {
            "from_confidence": each.low,
            "to_confidence": each.high,
            "num_pairs": each.count,
            "confidence": each.mean_probability,
            "accuracy": each.mean_outcome,
        }
        for each in reliability_bins(confidence, right, lowest=0.5)
    ]


def _sources(pairs: Sequence[PreferencePair]) -> list[tuple[str, list[int]]]:
    """The places of each source's pairs, by name; none where the data names no source."""
    found: dict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        found[pair.source].append(place)
    return [] if set(found) == {""} else sorted(found.items())


def _length_bins(longer: Sequence[float]) -> list[tuple[float, float, list[int]]]:
    """Bins of about as many pairs each, by how many characters the chosen response has more, ends included."""
    edges = np.quantile(longer, np.linspace(0, 1, LENGTH_BINS + 1)[1:-1])
    place = np.searchsorted(np.unique(edges), longer, side="left")
    bins = []
    for number in np.unique(place):
        where = [int(index) for index in np.flatnonzero(place == number)]
        inside = [longer[index] for index in where]
        bins.append((min(inside), max(inside), where))
    return bins


def best_of_k(
    pairs: Sequence[PreferencePair], margins: Sequence[float], *, num_resamples: int, seed: int
) -> dict[str, Any] | None:
    """How often the best of k >= 3 responses to a prompt gets the highest score; None without such groups.

    A group is a response that won every pair it is in, with at least two others that it was preferred to (so rankings
    form groups). A shared highest score counts as the share of a fair draw. `chance` is the mean of 1 / k.
    """
    beaten = {(pair.prompt.prompt_id, pair.rejected) for pair in pairs}
    groups: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    conversations: dict[tuple[str, str], str] = {}
    for pair, margin in zip(pairs, margins, strict=True):
        best = (pair.prompt.prompt_id, pair.chosen)
        if best not in beaten:
            groups[best][pair.rejected] = margin
            conversations[best] = conversation_key(pair)
    right, chance, clusters = [], [], []
    for best, others in groups.items():
        if len(others) >= 2:
            lowest = min(others.values())
            right.append(0.0 if lowest < 0 else 1.0 / (1 + sum(margin == 0 for margin in others.values())))
            chance.append(1.0 / (1 + len(others)))
            clusters.append(conversations[best])
    if not right:
        return None
    return {
        "num_groups": len(right),
        "accuracy": float(np.mean(right)),
        "interval": list(cluster_bootstrap(right, clusters, num_resamples=num_resamples, seed=seed)),
        "chance": float(np.mean(chance)),
        "mean_k": float(np.mean([1 / share for share in chance])),
    }


def compare_margins(
    margins: Sequence[float], others: Sequence[float], clusters: Sequence[str], *, num_resamples: int, seed: int
) -> dict[str, Any]:
    """Accuracy of `margins` less that of `others` on the same pairs: interval, exact test, smallest visible difference.

    All [n]. The test flips the signs of whole clusters (`clustered_mcnemar`).
    """
    gains = [accuracy_with_ties([mine]) - accuracy_with_ties([its]) for mine, its in zip(margins, others, strict=True)]
    found = clustered_mcnemar(margins, others, clusters)
    discordant = float(((np.asarray(margins) > 0) != (np.asarray(others) > 0)).mean())
    # Pairs of one conversation are not independent: what can be seen depends on how many would be.
    num_independent = max(1.0, independent_pairs(margins, others, clusters))
    detectable = smallest_detectable_difference(num_independent, discordant_rate=discordant) if discordant else math.inf
    return {
        "difference": found.difference,
        "interval": list(cluster_bootstrap(gains, clusters, num_resamples=num_resamples, seed=seed)),
        "p_value": found.p_value,
        "smallest_detectable": detectable if math.isfinite(detectable) else None,
    }
