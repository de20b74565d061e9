"""How noisy are the labels, and is a ruler as good as words at predicting them?"""

from __future__ import annotations

import numpy as np

from prefloop.audit.annotators import PairAgreement
from prefloop.audit.config import Thresholds
from prefloop.audit.learnable import Yardsticks
from prefloop.statistics.clustered import clustered_sign_test, clustered_wilson, holm, smallest_visible_rate
from prefloop.statistics.label_noise import error_rate
from prefloop.statistics.pairwise import accuracy_with_ties, clustered_mcnemar
from prefloop.types import Finding, Severity

MIN_LEARNABLE = 100
"""Conversations below which five folds of a word model tell nothing."""


def ruler_finding(sticks: Yardsticks, limits: Thresholds) -> Finding:
    """Whether length alone predicts the labels as well as a small model of words does, on pairs neither has seen."""
    n, conversations = len(sticks.ruler), len(set(sticks.clusters))
    if conversations < MIN_LEARNABLE:
        message = f"too few to tell: {conversations} conversations, {MIN_LEARNABLE} are needed for five folds"
        return Finding("ruler", None, "ok", message, num_pairs=n)
    wins, sizes = _right(sticks.ruler, sticks.clusters)
    ruler, words = accuracy_with_ties(sticks.ruler), accuracy_with_ties(sticks.words)
    test = clustered_mcnemar(sticks.words, sticks.ruler, sticks.clusters)
    informative = clustered_sign_test(wins, sizes - wins) < limits.significance and ruler > 0.5
    beaten = test.difference > 0 and test.p_value < limits.significance
    warns = informative and not beaten
    relation = "beats" if test.difference < 0 and test.p_value < limits.significance else "ties with"
    said = "a small model of words beats it" if beaten else f"it {relation} a small model of words"
    return Finding(
        name="ruler",
        value=ruler,
        interval=clustered_wilson(wins, sizes),
        p_value=test.p_value,
        threshold=words,
        severity="warn" if warns else "ok",
        num_pairs=n,
        message=f"a ruler alone predicts {ruler:.1%} of the labels; {said} ({words:.1%}, five folds by conversation)"
        + ("" if informative else "; neither end of the ruler is clearly preferred"),
        remedy="compare every reward model with the ruler (prefloop reward eval prints it), and collect pairs of "
        "equal length"
        if warns
        else "",
    )


def noise_finding(sticks: Yardsticks, agreement: PairAgreement | None, limits: Thresholds) -> Finding:
    """Estimated share of wrong labels: from annotators who judged the same pairs, else whether anything predicts them.

    The second can only say that labels may be noise: what a ruler and a model of words cannot learn, a better one may.
    """
    if agreement is not None:
        return _noise_of_annotators(agreement, limits)
    n, conversations = len(sticks.words), len(set(sticks.clusters))
    if conversations < MIN_LEARNABLE:
        message = f"too few to tell: {conversations} conversations, {MIN_LEARNABLE} are needed without annotators"
        return Finding("label_noise", None, "ok", message, num_pairs=n, threshold=1 - limits.learnable)
    counts = [_right(margins, sticks.clusters) for margins in (sticks.words, sticks.ruler)]
    # A stick that is wrong more often than not has learnt nothing: one-sided.
    p_values = [
        clustered_sign_test(wins, sizes - wins) / 2 if 2 * wins.sum() > sizes.sum() else 1.0 for wins, sizes in counts
    ]
    p_value = min(holm(p_values))
    accuracies = [accuracy_with_ties(margins) for margins in (sticks.words, sticks.ruler)]
    best = int(np.argmax(accuracies))
    interval = clustered_wilson(*counts[best])
    severity: Severity = "ok"
    if p_value >= limits.significance:
        severity = "block" if all(clustered_wilson(*count)[1] < limits.learnable for count in counts) else "warn"
    visible = smallest_visible_rate(conversations)
    noisy = severity != "ok"
    return Finding(
        name="label_noise",
        value=1 - accuracies[best],
        interval=(1 - interval[1], 1 - interval[0]),
        p_value=p_value,
        threshold=1 - limits.learnable,
        severity=severity,
        num_pairs=n,
        message=(
            f"neither a small model of words ({accuracies[0]:.1%}) nor a ruler ({accuracies[1]:.1%}) predicts the "
            f"labels of {n} pairs better than a coin (an accuracy of {visible:.0%} would have been seen): they may be "
            "noise"
            if noisy
            else f"the labels can be learnt: {max(accuracies):.1%} are predicted by "
            f"{'a small model of words' if best == 0 else 'a ruler'}; how many are wrong, only a second annotator tells"
        ),
        remedy="have 100 of these pairs judged again by a second person, and compare" if noisy else "",
    )


def _noise_of_annotators(agreement: PairAgreement, limits: Thresholds) -> Finding:
    rate = error_rate(agreement.value)
    low, high = error_rate(agreement.interval[1]), error_rate(agreement.interval[0])
    severity: Severity = "block" if low >= limits.noise_block else "warn" if rate >= limits.noise_warn else "ok"
    return Finding(
        name="label_noise",
        value=rate,
        interval=(low, high),
        threshold=limits.noise_warn,
        severity=severity,
        num_pairs=agreement.num_comparisons,
        message=f"two annotators agree on {agreement.value:.1%} of the pairs both decided: about {rate:.1%} of single "
        f"labels are wrong, and no model can agree with more than {1 - rate:.1%} of them",
        remedy="have each pair judged by three people, and take the majority" if severity != "ok" else "",
    )


def _right(margins: np.ndarray, clusters: object) -> tuple[np.ndarray, np.ndarray]:
    """Right and decided pairs of each cluster; a tie is no decision."""
    _, number = np.unique(np.asarray(clusters), return_inverse=True)
    sizes = np.bincount(number[margins != 0], minlength=int(number.max()) + 1)
    wins = np.bincount(number[margins > 0], minlength=len(sizes))
    return wins[sizes > 0], sizes[sizes > 0]
