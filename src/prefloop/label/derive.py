"""Preference pairs from votes: by majority, by Bradley-Terry strengths, or by Dawid and Skene's annotators.

Repetitions and gold questions make no pairs. Every vote that makes none is counted under a name. An item that was
adjudicated has that answer, whatever its votes say.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np

from prefloop.data.formats import make_pair
from prefloop.data.pairs import STRENGTHS, DerivedPairs, derive_pairs
from prefloop.label.opinions import SILENT, by_item, deciding, standing
from prefloop.label.records import Adjudication, Item, Vote
from prefloop.label.votes import as_judgments, comparison_of
from prefloop.statistics.dawid_skene import DawidSkene, dawid_skene
from prefloop.statistics.length_control import fit_logistic
from prefloop.types import Comparison, Judgment, PreferencePair

Method = Literal["majority", "bradley-terry", "dawid-skene"]

PRIOR_VOTES = 1.0
"""Bradley-Terry: how strongly a response is held to the mean of its prompt, in votes; without it one vote would be an
infinite strength."""
TIE_MARGIN = 0.1
"""Bradley-Terry: closer strengths (in log-odds) are a tie."""
TRUST = ((4.0, 1.0, 1.0), (1.0, 4.0, 1.0), (1.0, 1.0, 4.0))
"""Dawid-Skene: what is assumed of an annotator, as votes on items whose truth was known: right in four of six. Where
few items have several votes, the votes alone do not tell, and the labels are then those of the majority."""
CLASSES = ("a", "b", "neither")
"""What can be true of a pair; ties and "both bad" are "neither"."""
MIRROR = [1, 0, 2]
"""The classes with the sides exchanged."""
ADJUDICATED = "adjudicated"
"""Column of a pair that an adjudication made; true."""
NONE: Mapping[str, Adjudication] = MappingProxyType({})


def derive(
    items: Mapping[str, Item],
    votes: Iterable[Vote],
    method: Method,
    *,
    keep_ties: bool = False,
    adjudications: Mapping[str, Adjudication] = NONE,
) -> DerivedPairs:
    """The pairs in the order of the first vote on each, then those of the adjudications; and what gave none.

    `keep_ties` makes pairs of the items on which neither is preferred, marked as ties. Votes on adjudicated items make
    no pairs, but still say something of their annotators (Dawid-Skene) and of their responses (Bradley-Terry).
    """
    counted = standing(votes, items, "pair")
    open_votes = deciding(counted, items)
    match method:
        case "majority":
            undecided = [vote for vote in open_votes if vote.item_id not in adjudications]
            derived = derive_pairs(judged(undecided, items), keep_ties=keep_ties)
        case "bradley-terry":
            derived = _by_strength(open_votes, items, keep_ties, adjudications)
        case "dawid-skene":
            derived = _by_annotators(counted, items, keep_ties, adjudications)
    settled = _adjudicated(items, adjudications, keep_ties)
    others = Counter(
        repetitions=sum(vote.is_repeat for vote in counted),
        gold_votes=sum(items[vote.item_id].gold is not None and not vote.is_repeat for vote in counted),
    )
    return DerivedPairs([*derived.pairs, *settled.pairs], derived.counts + settled.counts + others)


def judged(votes: Sequence[Vote], items: Mapping[str, Item]) -> list[tuple[Comparison, list[Judgment]]]:
    """The votes gathered by comparison, in the order of the first vote on each."""
    found: dict[str, tuple[Comparison, list[Judgment]]] = {}
    for comparison, judgment in as_judgments(votes, items):
        found.setdefault(comparison.comparison_id, (comparison, []))[1].append(judgment)
    return list(found.values())


def annotator_fit(
    votes: Iterable[Vote], items: Mapping[str, Item], adjudications: Mapping[str, Adjudication] = NONE
) -> tuple[DawidSkene, list[str], list[str]]:
    """Dawid and Skene's fit of the standing votes on pairs, its items and its annotators by number.

    Gold questions and adjudicated items are held at their answer: they say who errs. Which response is called a means
    nothing, so every item is fitted with its sides exchanged as well (its second half of the fit's rows).
    """
    opinions = by_item(votes)
    names = list(opinions)
    people = sorted({annotator for unit in opinions.values() for annotator in unit})
    place = {name: number for number, name in enumerate(people)}
    counts = np.zeros((len(names), len(people), len(CLASSES)))
    for row, name in enumerate(names):
        for annotator, vote in opinions[name].items():
            counts[row, place[annotator], _class_of(vote.choice)] += 1
    both = np.concatenate([counts, counts[:, :, MIRROR]])
    answers = {name: items[name].gold for name in names} | {name: each.choice for name, each in adjudications.items()}
    sure = {row: _class_of(answer) for row, name in enumerate(names) if (answer := answers[name]) is not None}
    known = sure | {len(names) + row: MIRROR[true] for row, true in sure.items()}
    return dawid_skene(both, smoothing=TRUST, known=known, tolerance=1e-6), names, people


def _class_of(choice: str) -> int:
    return CLASSES.index(choice) if choice in CLASSES else CLASSES.index("neither")


def _adjudicated(items: Mapping[str, Item], adjudications: Mapping[str, Adjudication], keep_ties: bool) -> DerivedPairs:
    """The pairs of adjudications: each is one judgment, that of who settled it."""
    pairs: list[PreferencePair] = []
    counts: Counter[str] = Counter()
    for name, each in adjudications.items():
        if items[name].kind != "pair":
            continue
        comparison, is_side = comparison_of(items[name]), each.choice in ("a", "b")
        if not is_side and not (keep_ties and each.choice == "tie"):
            counts["ties" if each.choice == "tie" else each.choice] += 1
            continue
        chosen, rejected = comparison.response_a, comparison.response_b
        if each.choice == "b":
            chosen, rejected = rejected, chosen
        pairs.append(
            make_pair(
                dataclasses.replace(comparison.prompt, columns={ADJUDICATED: True}),
                chosen,
                rejected,
                source=comparison.prompt.source,
                strength=STRENGTHS[each.strength] if each.strength else None,
                annotator_id=each.annotator_id,
                tie=not is_side,
            )
        )
    return DerivedPairs(pairs, counts)


def _by_annotators(
    votes: Sequence[Vote], items: Mapping[str, Item], keep_ties: bool, adjudications: Mapping[str, Adjudication]
) -> DerivedPairs:
    """The most probable class of each item; a pair's strength is P(chosen) - P(rejected)."""
    opinions = by_item(votes)
    if not opinions:
        return _made([], votes, items, keep_ties, adjudications, lambda item_id: 0.0)
    fit, names, _ = annotator_fit(votes, items, adjudications)
    chances = dict(zip(names, fit.posterior[: len(names)].tolist(), strict=True))

    def strength(item_id: str) -> float:
        for_a, for_b, neither = chances[item_id]
        # Rounded: two votes that cancel leave a difference of 1e-17.
        return 0.0 if neither >= max(for_a, for_b) else round(for_a - for_b, 6)

    open_names = [name for name in names if items[name].gold is None]
    return _made(open_names, votes, items, keep_ties, adjudications, strength)


def _by_strength(
    votes: Sequence[Vote], items: Mapping[str, Item], keep_ties: bool, adjudications: Mapping[str, Adjudication]
) -> DerivedPairs:
    """Bradley-Terry strengths of the responses to each prompt; a pair's strength is their difference in log-odds."""
    opinions = by_item(votes)
    margins: dict[str, float] = {}
    groups: dict[str, list[str]] = {}
    for name in opinions:
        groups.setdefault(comparison_of(items[name]).prompt.prompt_id, []).append(name)
    for names in groups.values():
        margins |= _margins(names, opinions, items)

    def strength(item_id: str) -> float:
        return margins[item_id] if abs(margins[item_id]) >= TIE_MARGIN else 0.0

    return _made(list(opinions), votes, items, keep_ties, adjudications, strength)


def _margins(
    names: Sequence[str], opinions: Mapping[str, Mapping[str, Vote]], items: Mapping[str, Item]
) -> dict[str, float]:
    """Item -> strength of a minus strength of b, of the items of one prompt together.

    Minimises the log-loss of sigmoid(s_a - s_b) on the votes, each a share for a, plus PRIOR_VOTES / 2 x sum of s^2.
    """
    texts = sorted({text for name in names for text in _sides(items[name])})
    place = {text: number for number, text in enumerate(texts)}
    rows, shares = [], []
    for name in names:
        a, b = _sides(items[name])
        for vote in opinions[name].values():
            # The fit does not punish its first column, which is of no response and stays at 0.
            row = np.zeros(1 + len(texts))
            row[1 + place[a]], row[1 + place[b]] = 1.0, -1.0
            rows.append(row)
            shares.append(share_for_a(vote))
    x = np.array(rows)
    strengths = fit_logistic(x, np.array(shares), np.ones(len(rows)), PRIOR_VOTES / len(rows))[1:]
    found = {}
    for name in names:
        a, b = _sides(items[name])
        found[name] = float(strengths[place[a]] - strengths[place[b]])
    return found


def share_for_a(vote: Vote) -> float:
    """How much of a vote is for a: 1 or 0 for "clearly" or without a strength, 2/3 or 1/3 for "slightly", else 1/2."""
    away = STRENGTHS[vote.strength] / 2 if vote.strength else 0.5
    return {"a": 0.5 + away, "b": 0.5 - away}.get(vote.choice, 0.5)


def _sides(item: Item) -> tuple[str, str]:
    comparison = comparison_of(item)
    return comparison.response_a, comparison.response_b


def _made(
    names: Sequence[str],
    votes: Sequence[Vote],
    items: Mapping[str, Item],
    keep_ties: bool,
    adjudications: Mapping[str, Adjudication],
    strength: Callable[[str], float],
) -> DerivedPairs:
    """A pair for every item that is not adjudicated; `strength` is above 0 where a is better, 0 where neither is."""
    opinions = by_item(votes)
    pairs: list[PreferencePair] = []
    counts: Counter[str] = Counter()
    for name in names:
        if name in adjudications:
            continue
        comparison, margin = comparison_of(items[name]), strength(name)
        if margin == 0 and not keep_ties:
            counts["ties"] += 1
            continue
        chosen, rejected = comparison.response_a, comparison.response_b
        if margin < 0:
            chosen, rejected = rejected, chosen
        people = list(opinions[name])
        pairs.append(
            make_pair(
                comparison.prompt,
                chosen,
                rejected,
                source=comparison.prompt.source,
                strength=round(abs(margin), 6) if margin else None,
                num_judgments=len(people),
                annotator_id=people[0] if len(people) == 1 else "",
                tie=margin == 0,
            )
        )
    asked = {vote.item_id for vote in votes if vote.choice in SILENT and items[vote.item_id].gold is None}
    counts["skipped"] = len(asked - opinions.keys() - adjudications.keys())
    return DerivedPairs(pairs, +counts)
