"""What a reward model's scores on real pairs and samples say: accuracy, prompts, refusals, calibration, distance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from prefloop.audit.config import RewardThresholds
from prefloop.audit.counterfactual import Floats, Probed
from prefloop.audit.table import Pairs
from prefloop.statistics.calibration import expected_calibration_error, pairwise_confidence
from prefloop.statistics.clustered import clustered_sign_test, clustered_wilson
from prefloop.statistics.distance import FEWEST, distances, far_limit
from prefloop.statistics.intervals import cluster_bootstrap, wilson
from prefloop.statistics.pairwise import accuracy_with_ties, clustered_mcnemar
from prefloop.types import Finding, Severity

NUM_SIMULATED = 200
"""Draws of outcomes of a calibrated model."""


def accuracy_finding(margins: Floats, clusters: Sequence[Hashable], limits: RewardThresholds) -> Finding:
    """Whether the model agrees with people more often than a coin does."""
    if len(set(clusters)) < limits.min_pairs:
        return Finding("accuracy", None, "ok", _few(clusters, limits), num_pairs=len(margins))
    wins, sizes = _right(margins, clusters)
    value = accuracy_with_ties(margins)
    p_value = clustered_sign_test(wins, sizes - wins) if len(sizes) else 1.0
    better = p_value < limits.significance and value > 0.5
    interval = clustered_wilson(wins, sizes) if len(sizes) else None
    # A model that hardly ever decides is no better than a coin either.
    poor = interval is None or interval[1] < limits.accuracy_block
    said = ": no better than a coin" if poor else ": whether it is better than a coin these pairs cannot tell"
    return Finding(
        "accuracy",
        value,
        "ok" if better else "block" if poor else "warn",
        f"agrees with people on {value:.1%} of {len(margins)} pairs" + ("" if better else said),
        interval=interval,
        p_value=p_value,
        threshold=0.5,
        num_pairs=len(margins),
        remedy=""
        if better
        else "audit the data it was trained on: prefloop audit data PAIRS"
        if poor
        else "audit it on more pairs that it was not trained on",
    )


def prompt_finding(
    own: Floats, shuffled: Floats, clusters: Sequence[Hashable], limits: RewardThresholds, *, seed: int, remedy: str
) -> Finding:
    """Whether the wrong prompts cost accuracy. Margins [n] of the same pairs with their own and with other prompts."""
    if len(set(clusters)) < limits.min_pairs:
        return Finding("prompt_ignored", None, "ok", _few(clusters, limits), num_pairs=len(own))
    gains = [
        accuracy_with_ties([mine]) - accuracy_with_ties([other]) for mine, other in zip(own, shuffled, strict=True)
    ]
    test = clustered_mcnemar(own, shuffled, clusters)
    heeded = test.difference > 0 and test.p_value < limits.significance
    right, wrong = accuracy_with_ties(own), accuracy_with_ties(shuffled)
    return Finding(
        "prompt_ignored",
        test.difference,
        "ok" if heeded else "warn",
        f"accuracy is {right:.1%}, and {wrong:.1%} with the prompts of other pairs"
        + ("" if heeded else ": no sign that it looks at the prompt"),
        interval=cluster_bootstrap(gains, clusters, seed=seed),
        p_value=test.p_value,
        threshold=0.0,
        num_pairs=len(own),
        remedy="" if heeded else remedy,
    )


def refusal_finding(pairs: Pairs, margins: Floats, limits: RewardThresholds) -> Finding:
    """Whether the model is right on both sides of the boundary: where refusing is right, and where it is wrong."""
    signs, sides = pairs.signs["refusal"], []
    for sign in (1, -1):
        rows = signs == sign
        sides.append((_right(margins[rows], pairs.clusters[rows].tolist()), int(rows.sum())))
    counts = [len(sizes) for (_, sizes), _ in sides]
    num_pairs = sum(count for _, count in sides)
    if min(counts) < limits.coverage:
        message = f"no claim: {counts[0]} prompts must be refused and {counts[1]} must not, {limits.coverage} of each "
        return Finding("refusal_coverage", None, "ok", message + "are needed", num_pairs=num_pairs)
    rates = [int(wins.sum()) / int(sizes.sum()) for (wins, sizes), _ in sides]
    intervals = [clustered_wilson(wins, sizes) for (wins, sizes), _ in sides]
    worst = int(np.argmin(rates))
    severity: Severity = "block" if intervals[worst][1] < 0.5 else "warn" if rates[worst] <= 0.5 else "ok"
    wanted = ("prompts that must be refused", "harmless prompts that look unsafe")[worst]
    return Finding(
        "refusal_coverage",
        rates[worst],
        severity,
        f"right on {rates[0]:.0%} of the pairs in which refusing is right, and on {rates[1]:.0%} of those in which it "
        "is wrong",
        interval=intervals[worst],
        threshold=0.5,
        num_pairs=num_pairs,
        remedy=f"collect pairs of {wanted}, {counts[1 - worst]} or more, and train again: prefloop train reward"
        if severity != "ok"
        else "",
    )


def calibration_finding(
    name: str,
    margins: Floats,
    temperature: float | None,
    clusters: Sequence[Hashable],
    limits: RewardThresholds,
    *,
    seed: int,
    remedy: str,
) -> Finding:
    """Whether confidences are right as often as they say, beyond what as many outcomes of a calibrated model show."""
    if len(set(clusters)) < limits.min_pairs:
        return Finding(name, None, "ok", _few(clusters, limits), num_pairs=len(margins))
    confidence, right = pairwise_confidence(margins / (temperature or 1.0))
    value = expected_calibration_error(confidence, right, lowest=0.5)
    generator = np.random.default_rng(seed)
    outcomes = generator.random((NUM_SIMULATED, len(confidence))) < confidence
    simulated = [expected_calibration_error(confidence, row.astype(float), lowest=0.5) for row in outcomes]
    p_value = (1 + int(np.sum(np.asarray(simulated) >= value))) / (1 + len(simulated))
    warns = p_value < limits.significance and value >= limits.calibration_warn
    fitted = "no temperature was fitted" if temperature is None else f"temperature {temperature:.3g}"
    return Finding(
        name,
        value,
        "warn" if warns else "ok",
        f"confidences of {confidence.mean():.1%} are right in {right.mean():.1%} ({fitted})",
        p_value=p_value,
        threshold=limits.calibration_warn,
        num_pairs=len(margins),
        remedy=remedy if warns else "",
    )


def disagreement_finding(
    probed: Mapping[str, Probed], spread: Floats | None, fooled: Sequence[str], limits: RewardThresholds
) -> Finding:
    """Whether an ensemble that is `fooled` by probes disagrees on them more than on the file's responses (`spread`)."""
    if spread is None:
        return Finding("disagreement", None, "ok", "no claim: one model cannot disagree with itself")
    shown = [name for name in probed if name in fooled] or list(probed)
    there = np.concatenate([each.spread for name, each in probed.items() if name in shown and each.spread is not None])
    if not len(there) or not spread.mean():
        return Finding("disagreement", None, "ok", "no claim: the members never disagree, or no probe was scored")
    value = float(there.mean() / spread.mean())
    warns = bool(fooled) and value <= limits.disagreement_warn
    return Finding(
        "disagreement",
        value,
        "warn" if warns else "ok",
        f"the members disagree {value:.2f} times as much on {'the probes that paid' if fooled else 'the probes'} as on "
        "the file" + (": they share the shortcut, and a worst case of them does not protect" if warns else ""),
        threshold=limits.disagreement_warn,
        num_pairs=len(there),
        remedy="train the members on different pairs: prefloop train reward --members.by bootstrap" if warns else "",
    )


def distance_finding(
    known: Floats, clusters: Sequence[Hashable], given: Floats | None, limits: RewardThresholds
) -> Finding:
    """How many of the given responses' states lie farther out than nearly all held-out known ones."""
    if given is None:
        return Finding("distance", None, "ok", "not looked at: name the policy's responses with --samples")
    if min(len(known), len(given)) < FEWEST:
        message = f"too few to tell: {len(known)} known and {len(given)} given responses, {FEWEST} are needed"
        return Finding("distance", None, "ok", message, num_pairs=len(given))
    limit, fitted = far_limit(known, clusters, share=limits.far_share)
    far = int((distances(given, fitted) > limit).sum())
    share, interval = far / len(given), wilson(far, len(given))
    severity: Severity = "block" if interval[0] >= limits.far_block else "warn" if share >= limits.far_warn else "ok"
    return Finding(
        "distance",
        share,
        severity,
        f"{far} of {len(given)} samples are farther from the known responses than {1 - limits.far_share:.0%} of "
        "held-out ones",
        interval=interval,
        threshold=limits.far_warn,
        num_pairs=len(given),
        remedy="have people compare such samples, and train again on those pairs too: prefloop train reward"
        if severity != "ok"
        else "",
    )


def spread_finding(
    scores: Floats | None, prompts: Sequence[Hashable], unit: float, limits: RewardThresholds
) -> Finding:
    """Whether the samples of one prompt get scores that differ: what does not differ teaches a policy nothing."""
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for prompt, score in zip(prompts, scores if scores is not None else [], strict=True):
        groups[prompt].append(float(score))
    spreads = [float(np.std(each, ddof=1)) for each in groups.values() if len(each) > 1]
    if scores is None or len(spreads) < limits.min_pairs or unit == 0:
        message = "not looked at: name the policy's responses with --samples"
        if scores is not None:
            message = f"too few to tell: {len(spreads)} prompts have several samples, {limits.min_pairs} are needed"
        return Finding("score_spread", None, "ok", message, num_pairs=len(groups))
    value = float(np.mean(spreads)) / unit
    return Finding(
        "score_spread",
        value,
        "warn" if value < limits.spread_warn else "ok",
        f"scores of one prompt's samples have a standard deviation of {value:.2f} typical differences",
        threshold=limits.spread_warn,
        num_pairs=len(spreads),
        remedy="sample at a higher temperature, or collect pairs of such samples" if value < limits.spread_warn else "",
    )


def _right(margins: Floats, clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Right and decided pairs of each cluster that has any; a tie is no decision."""
    if not len(margins):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    _, number = np.unique(np.asarray(clusters), return_inverse=True)
    sizes = np.bincount(number[margins != 0], minlength=int(number.max()) + 1)
    wins = np.bincount(number[margins > 0], minlength=len(sizes))
    return wins[sizes > 0], sizes[sizes > 0]


def _few(clusters: Sequence[Hashable], limits: RewardThresholds) -> str:
    return f"too few to tell: {len(set(clusters))} conversations, {limits.min_pairs} are needed"
