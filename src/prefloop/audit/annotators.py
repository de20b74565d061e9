"""The people behind the labels: do they agree, does anybody click at random, does the side decide?

Takes votes on comparisons, of judgment files or of pairs that name their annotator.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from prefloop.audit.config import Thresholds
from prefloop.audit.table import CHOICES, Votes
from prefloop.statistics.agreement import Agreement, cohen_kappa, krippendorff_alpha
from prefloop.statistics.clustered import clustered_sign_test, clustered_wilson, holm, sign_test
from prefloop.types import Finding, Severity

Unit = Mapping[int, int]
"""Annotator -> choice (a place in CHOICES) on one comparison."""

SKIP = CHOICES.index("skip")
DECIDED = (CHOICES.index("a"), CHOICES.index("b"))
MIRRORED = dict(zip(DECIDED, DECIDED[::-1], strict=True))
MAX_NAMED = 5


@dataclass(frozen=True)
class PairAgreement:
    """How often two annotators who both decided for A or B decided alike; each comparison counts once."""

    value: float
    interval: tuple[float, float]
    num_comparisons: int


@dataclass(frozen=True)
class Careless:
    """An annotator who agrees with the others no more often than a coin would."""

    name: str
    agreed: int
    judged: int


def units_of(votes: Votes) -> list[Unit]:
    """The last vote of each named annotator on each comparison, skips left out.

    Which response is called A is drawn by the comparison's id: in the common order it is the first by alphabet, and
    where that goes with quality, one choice would be rare and chance agreement overstated.
    """
    units: dict[int, dict[int, int]] = defaultdict(dict)
    for comparison, annotator, choice in zip(votes.comparisons, votes.annotators, votes.choices, strict=True):
        if annotator >= 0:
            units[comparison][annotator] = MIRRORED.get(choice, choice) if comparison % 2 else choice
    return [{name: choice for name, choice in unit.items() if choice != SKIP} for unit in units.values()]


def pair_agreement(units: Sequence[Unit], limits: Thresholds) -> PairAgreement | None:
    """Agreement on A or B. None where too few comparisons were decided by two annotators."""
    alike, pairs = [], []
    for unit in units:
        decided = Counter(choice for choice in unit.values() if choice in DECIDED)
        n = sum(decided.values())
        if n >= 2:
            pairs.append(math.comb(n, 2))
            alike.append(sum(math.comb(count, 2) for count in decided.values()))
    if len(pairs) < limits.min_pairs:
        return None
    return PairAgreement(sum(alike) / sum(pairs), clustered_wilson(alike, pairs), len(pairs))


def annotator_finding(votes: Votes, units: Sequence[Unit], limits: Thresholds) -> Finding:
    """Krippendorff's alpha over all choices, kappa of the two busiest, and who seems not to read."""
    if not len(votes.names):
        return Finding("annotators", None, "ok", "not looked at: the rows name no annotator (annotator_id)")
    shared = [unit for unit in units if len(unit) >= 2]
    if len(shared) < limits.min_pairs:
        message = (
            f"agreement is unknown: {len(votes.names)} annotators have {len(shared)} comparisons in common, "
            f"{limits.min_pairs} are needed"
        )
        remedy = f"have {limits.min_pairs} or more comparisons, better 100, judged by a second person"
        return Finding("annotators", None, "ok", message, num_pairs=len(shared), remedy=remedy)
    alpha = krippendorff_alpha(shared)
    careless = careless_annotators(shared, votes, limits)
    severity: Severity = "warn" if careless else "ok"
    if alpha.value < limits.alpha_warn:
        severity = "block" if alpha.interval[1] < limits.alpha_block else "warn"
    names = ", ".join(f"{each.name} ({each.agreed} of {each.judged})" for each in careless[:MAX_NAMED])
    more = ", ..." if len(careless) > MAX_NAMED else ""
    message = f"Krippendorff's alpha {alpha.value:.2f} over {len(shared)} comparisons" + _kappa_text(shared, votes)
    if careless:
        message += f"; agree with the others no more than a coin would: {names}{more}"
    remedy = "leave out the votes of " + ", ".join(each.name for each in careless) if careless else ""
    if severity != "ok" and not remedy:
        remedy = "make the guidelines clearer with the pairs on which people differ, and judge these again"
    known = math.isfinite(alpha.value)
    return Finding(
        name="annotators",
        value=alpha.value if known else None,
        interval=alpha.interval if known else None,
        threshold=limits.alpha_warn,
        severity=severity,
        num_pairs=len(shared),
        message=message if known else "agreement is undefined: everybody always made the same choice",
        remedy=remedy,
    )


def careless_annotators(units: Sequence[Unit], votes: Votes, limits: Thresholds) -> list[Careless]:
    """Annotators whose choices of A or B are clearly below the agreement of the rest, and not clearly above a coin.

    Each is compared with the plurality of the others. Clearly below: a sign test of the shortfall, Holm over the
    annotators, against the rate of all others together.
    """
    names = {number: name for name, number in votes.names.items()}
    record: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for unit in units:
        for annotator, choice in unit.items():
            others = Counter(other for name, other in unit.items() if name != annotator and other in DECIDED)
            if choice in DECIDED and others and len(set(others.values())) == len(others):
                record[annotator][0] += choice == others.most_common(1)[0][0]
                record[annotator][1] += 1
    tested = [annotator for annotator, (_, judged) in record.items() if judged >= limits.min_pairs]
    p_values = [_shortfall(annotator, record) for annotator in tested]
    return [
        Careless(names[annotator], record[annotator][0], record[annotator][1])
        for annotator, p_value in zip(tested, holm(p_values), strict=True)
        if p_value < limits.significance and not _beats_a_coin(record[annotator], limits)
    ]


def _shortfall(annotator: int, record: Mapping[int, Sequence[int]]) -> float:
    """P(as few agreements or fewer) at the rate of the other annotators."""
    agreed, judged = record[annotator]
    rest = np.array([counts for other, counts in record.items() if other != annotator])
    if not len(rest):
        return 1.0
    return float(stats.binom.cdf(agreed, judged, rest[:, 0].sum() / max(1, rest[:, 1].sum())))


def _beats_a_coin(counts: Sequence[int], limits: Thresholds) -> bool:
    agreed, judged = counts
    return 2 * agreed > judged and sign_test(agreed, judged) < limits.significance


def _kappa_text(units: Sequence[Unit], votes: Votes) -> str:
    """Cohen's kappa of the two annotators with the most comparisons in common."""
    together = Counter(pair for unit in units for pair in combinations(sorted(unit), 2))
    (first, second), count = together.most_common(1)[0]
    both = [unit for unit in units if first in unit and second in unit]
    kappa: Agreement = cohen_kappa([unit[first] for unit in both], [unit[second] for unit in both])
    if not math.isfinite(kappa.value):
        return ""
    names = {number: name for name, number in votes.names.items()}
    low, high = kappa.interval
    who = f"{names[first]} and {names[second]}"
    return f"; Cohen's kappa of {who} {kappa.value:.2f} ({low:.2f} to {high:.2f}) over {count}"


def position_finding(votes: Votes, limits: Thresholds) -> Finding:
    """How often the response that was shown first was chosen."""
    won = np.frombuffer(votes.first_won, dtype=np.int8)
    known = won >= 0
    if not known.any():
        message = "not looked at: only judgments say which response was shown first"
        return Finding("position", None, "ok", message, threshold=0.5 + limits.position_warn)
    _, clusters = np.unique(np.frombuffer(votes.clusters, dtype=np.uint64)[known], return_inverse=True)
    sizes = np.bincount(clusters)
    wins = np.bincount(clusters[won[known] == 1], minlength=len(sizes))
    rate, interval = int(wins.sum()) / int(sizes.sum()), clustered_wilson(wins, sizes)
    p_value = clustered_sign_test(wins, sizes - wins)
    severity: Severity = "ok"
    enough = len(sizes) >= limits.min_pairs
    if enough and p_value < limits.significance and abs(rate - 0.5) >= limits.position_warn:
        clearly = max(interval[0] - 0.5, 0.5 - interval[1]) >= limits.position_block
        severity = "block" if clearly else "warn"
    return Finding(
        name="position",
        value=rate if enough else None,
        interval=interval if enough else None,
        p_value=p_value if enough else None,
        threshold=0.5 + limits.position_warn,
        severity=severity,
        num_pairs=int(sizes.sum()),
        message=f"the response shown first was chosen in {rate:.0%} of {int(sizes.sum())} votes"
        + ("" if enough else f": too few to tell, votes on {limits.min_pairs} conversations are needed"),
        remedy="show the two responses in random order, and judge these pairs again" if severity != "ok" else "",
    )
