"""Do the labels reward a habit of speech? A sign test for each signal, on the pairs whose responses differ in it.

Also used for a reward model's choices: what is counted is which of two responses was preferred, whoever preferred it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from prefloop.audit.config import Thresholds
from prefloop.audit.table import NOT_APPLICABLE, Pairs
from prefloop.signals.measures import SIGNALS
from prefloop.statistics.clustered import clustered_sign_test, clustered_wilson, effective_size, holm
from prefloop.types import Finding, Severity

RIGHT_AT_TIMES = frozenset({"refusal"})
"""Signals of which more is right for some prompts: their boundary is judged by `refusal_coverage`, they never block."""

LENGTH_BINS = 5
"""Bins of the difference in length, with as many discordant pairs each."""

REMEDIES: Mapping[str, str] = {
    "length": "prefloop data balance FILE --signals length --out balanced.jsonl, or train with --length-balance "
    "(prefloop train reward), or collect about {needed} pairs in which the {less} response is the better one",
    "refusal": "collect prompts that must not be refused and look as if they must, with the refusal rejected",
}
REMEDY = (
    "prefloop data balance FILE --signals {name} --out balanced.jsonl, or collect about {needed} pairs in which the "
    "response with {less} of it is the better one; then audit again"
)


@dataclass(frozen=True)
class Rate:
    """How often the preferred response had more of something."""

    num_pairs: int
    """Discordant pairs: one response has more."""
    num_clusters: int
    value: float
    interval: tuple[float, float]
    p_value: float
    held: tuple[float, float, float] | None
    """The rate with length held even and its interval: the mean of the rates among pairs in which the response with
    more of it is the longer and in which it is the shorter one, by as much. None where either kind has too few
    conversations."""


def measure_rate(
    signs: NDArray[np.int8], clusters: NDArray[np.int64], difference: NDArray[np.int32], *, min_pairs: int
) -> Rate:
    """The rate of a signal. `signs` [pairs] is 1 where the preferred response has more, -1 where it has less.

    `difference` [pairs]: characters of the preferred response minus those of the other; `clusters` [pairs] are numbers
    from 0.
    """
    wins, sizes = _by_cluster(signs, clusters)
    n = int(sizes.sum())
    value = int(wins.sum()) / n if n else math.nan
    return Rate(
        num_pairs=n,
        num_clusters=len(sizes),
        value=value,
        interval=clustered_wilson(wins, sizes),
        p_value=clustered_sign_test(wins, sizes - wins),
        held=_length_held_even(signs, clusters, difference, min_pairs=min_pairs),
    )


def _by_cluster(signs: NDArray[np.int8], clusters: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Wins and discordant pairs of each cluster that has any."""
    discordant = (signs == 1) | (signs == -1)
    sizes = np.bincount(clusters[discordant], minlength=1)
    wins = np.bincount(clusters[signs == 1], minlength=len(sizes))
    return wins[sizes > 0], sizes[sizes > 0]


def _length_held_even(
    signs: NDArray[np.int8], clusters: NDArray[np.int64], difference: NDArray[np.int32], *, min_pairs: int
) -> tuple[float, float, float] | None:
    """The mean over bins of equal difference in length, each weighted by n_l n_s / (n_l + n_s) of its two kinds.

    Inside a bin length helps the one kind as much as it hurts the other. Weights: Mantel & Haenszel (1959).
    """
    kind = signs * np.sign(difference)
    kinds = [(np.abs(signs) == 1) & (kind == side) for side in (1, -1)]
    if any(len(np.unique(clusters[rows])) < min_pairs for rows in kinds):
        return None
    size = np.abs(difference)
    edges = np.quantile(size[kinds[0] | kinds[1]], np.arange(1, LENGTH_BINS) / LENGTH_BINS)
    bins = np.digitize(size, edges)
    total = weighted = variance = 0.0
    for place in range(LENGTH_BINS):
        sides = [_by_cluster(signs[rows & (bins == place)], clusters[rows & (bins == place)]) for rows in kinds]
        counts = [int(sizes.sum()) for _, sizes in sides]
        if 0 in counts:
            continue
        weight = counts[0] * counts[1] / sum(counts)
        rates, variances = zip(*(_rate_and_variance(wins, sizes) for wins, sizes in sides), strict=True)
        total += weight
        weighted += weight * sum(rates) / 2
        variance += weight**2 * sum(variances) / 4
    if not total:
        return None
    middle, half = weighted / total, float(stats.norm.ppf(0.975)) * math.sqrt(variance) / total
    return middle, max(0.0, middle - half), min(1.0, middle + half)


def _rate_and_variance(wins: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[float, float]:
    rate, n = int(wins.sum()) / int(sizes.sum()), effective_size(wins, sizes)
    # One win and one loss more (Agresti & Coull 1998): a stratum without losses is not known exactly.
    near = (rate * n + 1) / (n + 2)
    return rate, near * (1 - near) / n


def shortcut_findings(pairs: Pairs, limits: Thresholds) -> list[Finding]:
    """One finding for each signal, corrected together. Examples are added by the caller."""
    rates: dict[str, Rate] = {}
    silent: list[Finding] = []
    for name, signs in pairs.signs.items():
        applicable = signs != NOT_APPLICABLE
        rate = measure_rate(
            signs[applicable],
            pairs.clusters[applicable],
            pairs.length_difference[applicable],
            min_pairs=limits.min_pairs,
        )
        if rate.num_clusters >= limits.min_pairs:
            rates[name] = rate
        else:
            silent.append(_silent(name, rate, int(applicable.sum()), pairs.num_pairs, limits))
    adjusted = dict(zip(rates, holm([rate.p_value for rate in rates.values()]), strict=True))
    far = [name for name, rate in rates.items() if _is_far(rate, adjusted[name], limits)]
    notes = _explanations(pairs, rates, far, limits)
    found = {
        name: _finding(name, rate, adjusted[name], pairs.num_pairs, notes.get(name), far=name in far, limits=limits)
        for name, rate in rates.items()
    } | {finding.name: finding for finding in silent}
    return [found[name] for name in SIGNALS if name in found]


def _is_far(rate: Rate, p_value: float, limits: Thresholds) -> bool:
    return p_value < limits.significance and abs(rate.value - 0.5) >= limits.shortcut_warn


@dataclass(frozen=True)
class _Note:
    """What another probe has to do with a rate that is far from one half."""

    text: str
    explained: bool
    """The rate is the other probe's doing: no claim of its own."""


def _explanations(pairs: Pairs, rates: Mapping[str, Rate], far: list[str], limits: Thresholds) -> dict[str, _Note]:
    """Length and the other signals go together: which of them the labels care about, where that can be told.

    A signal loses its claim where its rate with length held even would not warn. Length loses its own where it would
    not among the pairs that are alike in all signals that keep theirs. Where too few pairs tell, both claims stand.
    """
    notes: dict[str, _Note] = {}
    for name in far:
        rate = rates[name]
        if name == "length":
            continue
        if rate.held is not None:
            middle, low, high = rate.held
            loses = not _holds(rate.value, middle, (low, high), limits)
            text = f"with length held even {middle:.0%} ({low:.0%} to {high:.0%})"
            notes[name] = _Note(text + (": length explains it" if loses else ""), loses)
        elif "length" in far:
            notes[name] = _Note("too few pairs tell it from length", False)
    claimed = [name for name in far if name != "length" and not (name in notes and notes[name].explained)]
    if "length" in far and claimed:
        alike = np.all([np.abs(pairs.signs[name]) != 1 for name in claimed], axis=0)
        rest = measure_rate(
            pairs.signs["length"][alike],
            pairs.clusters[alike],
            pairs.length_difference[alike],
            min_pairs=limits.min_pairs,
        )
        if rest.num_clusters >= limits.min_pairs:
            low, high = rest.interval
            loses = not _holds(rates["length"].value, rest.value, rest.interval, limits)
            text = f"of pairs alike in {' and '.join(claimed)} {rest.value:.0%} ({low:.0%} to {high:.0%})"
            notes["length"] = _Note(text + (": these explain it" if loses else ""), loses)
    return notes


def _holds(claimed: float, left: float, interval: tuple[float, float], limits: Thresholds) -> bool:
    """Whether what is left of a rate is on the side that is claimed, clear of one half, as far as warns, and at least
    half of its distance: the rest is what the other probe explains."""
    low, high = interval
    clear = low > 0.5 if claimed > 0.5 else high < 0.5
    return clear and abs(left - 0.5) >= max(limits.shortcut_warn, abs(claimed - 0.5) / 2)


def _finding(
    name: str, rate: Rate, p_value: float, num_pairs: int, note: _Note | None, *, far: bool, limits: Thresholds
) -> Finding:
    severity: Severity = "ok"
    low, high = rate.interval
    if far and rate.value > 0.5 and not (note and note.explained):
        wide = rate.num_pairs >= limits.block_share * num_pairs
        blocks = low - 0.5 >= limits.shortcut_block and wide and name not in RIGHT_AT_TIMES
        severity = "block" if blocks else "warn"
    # What the labels punish is no shortcut: a policy can only leave it out. Of length it can always leave out more.
    elif far and name == "length" and 0.5 - high >= limits.shortcut_block:
        severity = "warn"
    more = "more" if rate.value >= 0.5 else "less"
    less = {"length": {"more": "shorter", "less": "longer"}}.get(name, {"more": "less", "less": "more"})[more]
    remedy = ""
    if severity != "ok":
        needed = abs(2 * round(rate.value * rate.num_pairs) - rate.num_pairs)
        remedy = REMEDIES.get(name, REMEDY).format(name=name, less=less, needed=needed)
    return Finding(
        name=name,
        value=rate.value,
        interval=rate.interval,
        p_value=p_value,
        threshold=0.5 + limits.shortcut_warn,
        severity=severity,
        num_pairs=rate.num_pairs,
        human_rate=rate.value,
        message=_message(name, rate)
        + (f"; {note.text}" if note else "")
        + ("; the labels punish it, which is no shortcut" if far and rate.value < 0.5 and name != "length" else ""),
        remedy=remedy,
    )


def _message(name: str, rate: Rate) -> str:
    low, high = rate.interval
    if name == "length":
        what = "the longer response was chosen"
    elif name == "refusal":
        what = "the response that refuses was chosen"
    else:
        what = f"the response with more {SIGNALS[name].what} was chosen"
    return f"{what} in {rate.value:.0%} ({low:.0%} to {high:.0%}) of {rate.num_pairs} pairs that differ in it"


def _silent(name: str, rate: Rate, applicable: int, num_pairs: int, limits: Thresholds) -> Finding:
    """The finding of a probe that has too little to go by: it claims nothing and says why."""
    if num_pairs and not applicable:
        message = f"does not apply: the word lists are English, and none of the {num_pairs} pairs is"
    else:
        message = (
            f"too few to tell: {rate.num_pairs} pairs of {rate.num_clusters} conversations differ in it, "
            f"{limits.min_pairs} conversations are needed"
        )
    return Finding(name, None, "ok", message, num_pairs=rate.num_pairs, threshold=0.5 + limits.shortcut_warn)
