"""What a data file holds and lacks: size, language, refusal boundary, repetitions, contradictions, leakage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from prefloop.audit.config import Thresholds
from prefloop.audit.table import Examples, Pairs
from prefloop.data.stream import BadRow
from prefloop.statistics.clustered import clustered_wilson
from prefloop.statistics.intervals import wilson
from prefloop.types import Finding, Severity

MAX_NAMED = 3


def size_finding(pairs: Pairs, limits: Thresholds) -> Finding:
    """Whether there is enough to say anything at all: what is too small passes no audit."""
    conversations = int(pairs.clusters.max()) + 1 if pairs.num_pairs else 0
    small = conversations < limits.min_pairs
    what = f"{pairs.num_pairs} different pairs of {conversations} conversations"
    return Finding(
        name="size",
        value=float(pairs.num_pairs),
        severity="warn" if small else "ok",
        message=f"{what}: too few for any claim, so none is made" if small else what,
        threshold=float(limits.min_pairs),
        num_pairs=pairs.num_pairs,
        remedy=f"collect pairs of at least {limits.min_pairs} conversations, better of some hundreds" if small else "",
    )


def language_finding(pairs: Pairs, limits: Thresholds) -> Finding:
    """The share of pairs that are not English, for which the word lists of tone do not hold."""
    other = int(pairs.other_language.sum())
    share = other / pairs.num_pairs
    deaf = (other > 0 and pairs.num_pairs - other < limits.min_pairs) or share > 0.5
    return Finding(
        name="language",
        value=share,
        severity="warn" if deaf else "ok",
        message=(
            f"{other} of {pairs.num_pairs} pairs are not English: "
            + ("probes of tone do not apply to them, which is no pass" if other else "probes of tone apply to all")
        ),
        threshold=0.5,
        num_pairs=pairs.num_pairs,
        remedy="have people who read the language look at a sample of the pairs" if deaf else "",
    )


def unusable_finding(num_rows: int, bad: Sequence[BadRow], accepted: bool) -> Finding:
    """Rows that could not be read as pairs: empty or identical responses, missing fields."""
    named = ", ".join(f"line {row.line} ({row.problem})" for row in bad[:MAX_NAMED])
    more = ", ..." if len(bad) > MAX_NAMED else ""
    text = f"{len(bad)} of {num_rows} rows cannot be used"
    return Finding(
        name="unusable",
        value=len(bad) / num_rows,
        severity="warn" if bad and not accepted else "ok",
        message=f"{text}: {named}{more}" if bad else text,
        threshold=0.0,
        num_pairs=num_rows,
        remedy="correct these rows; --skip-bad leaves them out" if bad and not accepted else "",
    )


def coverage_finding(pairs: Pairs, examples: Examples, limits: Thresholds) -> Finding:
    """Do people say both "this must be refused" and "this must not"? By the prompts whose two responses differ in it.

    A prompt that must be refused has the refusal chosen; its look-alike has a refusal rejected. Without the one a
    policy learns to help with everything, without the other to refuse whatever sounds dangerous. A side that is there
    but rare is learnt as an exception: what the many pairs of the other side teach goes for it, too.
    """
    signs = pairs.signs["refusal"]
    must, must_not = (len(np.unique(pairs.clusters[signs == sign])) for sign in (1, -1))
    num_pairs = int((np.abs(signs) == 1).sum())
    wanted = max(limits.coverage, math.ceil(limits.coverage_ratio * max(must, must_not)))
    lacking = [
        text
        for count, text in (
            (must, "prompts that must be refused, with the refusal chosen"),
            (must_not, "harmless prompts that look unsafe, with a refusal rejected"),
        )
        if count < wanted
    ]
    # Nothing English to look at: the refusal probe says so already.
    severity: Severity = "warn" if lacking and not pairs.other_language.all() else "ok"
    return Finding(
        name="refusal_coverage",
        value=float(min(must, must_not)),
        severity=severity,
        message=f"refusing was right for {must} prompts and wrong for {must_not}; {limits.coverage} of each are "
        f"needed, and of the rarer at least {limits.coverage_ratio:.0%} of the other: {wanted}",
        threshold=float(wanted),
        num_pairs=num_pairs,
        human_rate=float((signs == 1).sum()) / num_pairs if num_pairs else None,
        remedy=f"collect until there are {wanted} or more " + " and as many ".join(lacking) if severity != "ok" else "",
        examples=(*examples.of("refusal", 1)[:2], *examples.of("refusal", -1)[:2]),
    )


def duplicate_findings(pairs: Pairs, limits: Thresholds) -> list[Finding]:
    """Rows repeated exactly (their copies count nowhere else), and pairs that differ in trifles only."""
    exact = pairs.num_rows - pairs.num_pairs
    near = pairs.num_pairs - len(np.unique(pairs.near))
    return [
        _repeated("duplicates", exact, pairs.num_rows, "rows repeat an earlier one exactly", limits),
        _repeated(
            "near_duplicates",
            near,
            pairs.num_pairs,
            "pairs repeat another one but for case, punctuation, numbers, function words or word order",
            limits,
        ),
    ]


def _repeated(name: str, count: int, total: int, what: str, limits: Thresholds) -> Finding:
    many = total >= limits.min_pairs and count / total >= limits.duplicates_warn
    return Finding(
        name=name,
        value=count / total,
        severity="warn" if many else "ok",
        message=f"{count} of {total} {what}",
        interval=wilson(count, total),
        threshold=limits.duplicates_warn,
        num_pairs=total,
        remedy=f"prefloop data balance FILE --drop {name} --out balanced.jsonl: copies weigh more" if many else "",
    )


def conflict_finding(pairs: Pairs, limits: Thresholds) -> Finding:
    """Pairs that stand in the file in both orders: A was chosen over B, and B over A."""
    _, place, counts = np.unique(pairs.comparisons, return_inverse=True, return_counts=True)
    contradicted = counts[place] > 1
    sizes = np.bincount(pairs.clusters)
    bad = np.bincount(pairs.clusters[contradicted], minlength=len(sizes))
    count, share = int(contradicted.sum()), float(contradicted.mean())
    interval = clustered_wilson(bad, sizes)
    severity: Severity = "ok"
    if pairs.num_pairs >= limits.min_pairs and share >= limits.conflicts_warn:
        severity = "block" if interval[0] >= limits.conflicts_block else "warn"
    return Finding(
        name="conflicts",
        value=share,
        interval=interval,
        threshold=limits.conflicts_warn,
        severity=severity,
        num_pairs=pairs.num_pairs,
        message=f"{count} of {pairs.num_pairs} pairs also stand in the file with the other response chosen",
        remedy="prefloop data balance FILE --drop conflicts --out balanced.jsonl, or have more people judge these pairs"
        if severity != "ok"
        else "",
    )


def leakage_finding(conversations: AbstractSet[int], held_out: AbstractSet[int] | None, limits: Thresholds) -> Finding:
    """Conversations (`Table.clusters`) of the held-out files that the audited file has too; None: no such file."""
    if held_out is None:
        message = "not looked at: name the held-out files with --eval-data"
        return Finding("leakage", None, "ok", message)
    shared = len(held_out & conversations)
    severity: Severity = "ok" if not shared else "warn" if shared < limits.leakage_block * len(held_out) else "block"
    return Finding(
        name="leakage",
        value=shared / len(held_out) if held_out else 0.0,
        interval=wilson(shared, len(held_out)),
        threshold=0.0,
        severity=severity,
        num_pairs=len(held_out),
        message=f"{shared} of {len(held_out)} held-out conversations are in this file too",
        remedy="prefloop data balance FILE --drop leakage --eval-data HELD_OUT --out balanced.jsonl" if shared else "",
    )
