"""How good are the votes? Agreement, consistency, gold questions, position, attention, and whose word decides.

Agreement is measured on first votes (`opinions.by_item`); position, speed and runs on all of an annotator's votes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

from prefloop.data.pairs import derive_pairs
from prefloop.label.attention import (
    RUN_CHANCE,
    Rate,
    Run,
    chosen_first,
    faster_than_reading,
    is_too_fast,
    longest_run,
    rate,
    seconds_median,
)
from prefloop.label.derive import judged
from prefloop.label.opinions import SILENT, by_item, deciding, nominal, ordinal, repeated, standing
from prefloop.label.records import Item, ItemKind, Vote
from prefloop.statistics.agreement import Agreement, cohen_kappa, krippendorff_alpha
from prefloop.statistics.clustered import clustered_wilson, holm

HUMAN_CEILING = (0.73, 0.77)
"""How often people who were trained for it agree on which of two responses is better (Ouyang et al. 2022, InstructGPT:
72.6 % among training labellers, 77.3 % among held-out ones). More is hardly to be had on such data."""
MIN_SHARED = 10
"""Items that two annotators must have in common for a kappa."""
MAX_KAPPAS = 15
"""The pairs of annotators with the most items in common get one."""
SIGNIFICANCE = 0.01
"""Of a position bias, corrected for the number of annotators (Holm)."""
GOLD_FLOOR = 0.7
"""An annotator whose accuracy on gold questions is surely below this is flagged."""
CONSISTENCY_FLOOR = HUMAN_CEILING[0]
"""An annotator who surely agrees with themselves less than strangers do with one another is flagged."""


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa of two annotators on the items that both judged."""

    first: str
    second: str
    agreement: Agreement


@dataclass(frozen=True)
class Influence:
    """What the labels by majority would be without one annotator."""

    changed: int
    """Pairs that would be the other way round, undecided, or new."""
    lost: int
    """Pairs on which nobody else voted."""
    pairs: int
    """All pairs that the votes of everybody give."""

    @property
    def share(self) -> float | None:
        """Share of the pairs that would change or be lost."""
        return (self.changed + self.lost) / self.pairs if self.pairs else None


@dataclass(frozen=True)
class AnnotatorQuality:
    """One annotator."""

    annotator_id: str
    num_votes: int
    num_silent: int
    """Skips, or "unsure"."""
    agreement: Rate
    """With each other annotator on each item, on the side that is better (or the verdict)."""
    consistency: Rate
    gold: Rate
    first: Rate
    """How often the side shown first was chosen."""
    first_p: float
    """Exact binomial, corrected for the number of annotators (Holm)."""
    seconds_median: float | None
    fast: Rate
    """Votes faster than reading."""
    run: Run | None
    influence: Influence
    flags: tuple[str, ...]


@dataclass(frozen=True)
class QualityReport:
    """The votes on one kind of item."""

    kind: ItemKind
    num_items: int
    """With at least one vote."""
    num_shared: int
    """With the opinions of two annotators or more."""
    num_votes: int
    alpha_nominal: Agreement
    alpha_ordinal: Agreement | None
    """On the scale a clearly < a slightly < neither < b slightly < b clearly; None for reviews, which have no scale."""
    agreement: Rate
    """How often two annotators who both chose a side chose the same; interval clustered by item."""
    human_ceiling: tuple[float, float]
    kappas: tuple[Kappa, ...]
    consistency: Rate
    gold: Rate
    first: Rate
    first_p: float
    annotators: tuple[AnnotatorQuality, ...]

    def as_values(self) -> dict[str, Any]:
        """For programs: every field, shares beside their counts."""
        return {item.name: _plain(getattr(self, item.name)) for item in dataclasses.fields(self)}


def quality(
    items: Mapping[str, Item], votes: Iterable[Vote], *, kind: ItemKind = "pair", seed: int, num_resamples: int
) -> QualityReport:
    """Measure the standing votes on one kind of item. `num_resamples` bootstrap samples are behind alpha and kappa."""
    kept = standing(votes, items, kind)
    shared = [unit for unit in by_item(deciding(kept, items)).values() if len(unit) >= 2]
    options: dict[str, Any] = {"num_resamples": num_resamples, "seed": seed}
    names = sorted({choice for unit in shared for choice in map(nominal, unit.values())})
    units = [{who: float(names.index(nominal(vote))) for who, vote in unit.items()} for unit in shared]
    scale = [{who: float(ordinal(vote)) for who, vote in unit.items()} for unit in shared]
    first, first_p = chosen_first(kept)
    return QualityReport(
        kind=kind,
        num_items=len({vote.item_id for vote in kept}),
        num_shared=len(shared),
        num_votes=len(kept),
        alpha_nominal=krippendorff_alpha(units, **options),
        alpha_ordinal=krippendorff_alpha(scale, level="ordinal", **options) if kind == "pair" else None,
        agreement=_agreement(shared),
        human_ceiling=HUMAN_CEILING,
        kappas=_kappas(shared, options),
        consistency=_consistency(kept),
        gold=_gold(kept, items),
        first=first,
        first_p=first_p,
        annotators=_annotators(kept, items, shared),
    )


Unit = Mapping[str, Vote]


def _decided(unit: Unit) -> dict[str, str]:
    """Who chose a side, or gave a verdict, and which."""
    return {who: vote.choice for who, vote in unit.items() if vote.choice not in ("tie", "both_bad")}


def _agreement(shared: Sequence[Unit]) -> Rate:
    alike, pairs = [], []
    for unit in shared:
        counts = Counter(_decided(unit).values())
        pairs.append(comb(sum(counts.values()), 2))
        alike.append(sum(comb(count, 2) for count in counts.values()))
    return Rate(sum(alike), sum(pairs), clustered_wilson(alike, pairs))


def _kappas(shared: Sequence[Unit], options: Mapping[str, Any]) -> tuple[Kappa, ...]:
    together: dict[tuple[str, str], list[Unit]] = defaultdict(list)
    for unit in shared:
        for pair in combinations(sorted(unit), 2):
            together[pair].append(unit)
    busiest = sorted(together.items(), key=lambda each: (-len(each[1]), each[0]))[:MAX_KAPPAS]
    return tuple(
        Kappa(one, other, cohen_kappa([nominal(u[one]) for u in units], [nominal(u[other]) for u in units], **options))
        for (one, other), units in busiest
        if len(units) >= MIN_SHARED
    )


def _consistency(votes: Iterable[Vote]) -> Rate:
    alike = [before.choice == again.choice for before, again in repeated(votes)]
    return rate(sum(alike), len(alike))


def _gold(votes: Iterable[Vote], items: Mapping[str, Item]) -> Rate:
    """First opinions on gold questions that are right; who skips has not answered."""
    units = by_item(vote for vote in votes if items[vote.item_id].gold is not None)
    right = [vote.choice == items[name].gold for name, unit in units.items() for vote in unit.values()]
    return rate(sum(right), len(right))


def _annotators(
    votes: Sequence[Vote], items: Mapping[str, Item], shared: Sequence[Unit]
) -> tuple[AnnotatorQuality, ...]:
    own: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        own[vote.annotator_id].append(vote)
    names = sorted(own)
    alike = _agreement_of_each(shared)
    influence = _influence(votes, items)
    first = {name: chosen_first(own[name]) for name in names}
    corrected = dict(zip(names, holm([first[name][1] for name in names]), strict=True))
    made = []
    for name in names:
        others = [vote for vote in votes if vote.annotator_id != name]
        one = AnnotatorQuality(
            annotator_id=name,
            num_votes=len(own[name]),
            num_silent=sum(vote.choice in SILENT for vote in own[name]),
            agreement=rate(*alike[name]),
            consistency=_consistency(own[name]),
            gold=_gold(own[name], items),
            first=first[name][0],
            first_p=corrected[name],
            seconds_median=seconds_median(own[name]),
            fast=faster_than_reading(own[name], items),
            run=longest_run(own[name], others),
            influence=influence[name],
            flags=(),
        )
        made.append(dataclasses.replace(one, flags=flags_of(one)))
    return tuple(made)


def flags_of(one: AnnotatorQuality) -> tuple[str, ...]:
    """What speaks against an annotator's votes, by the rules of this module and of `attention`."""
    rules = {
        "fast": is_too_fast(one.fast),
        "straight_lining": one.run is not None and one.run.chance < RUN_CHANCE,
        "position": one.first_p < SIGNIFICANCE,
        "gold": one.gold.interval[1] < GOLD_FLOOR,
        "inconsistent": one.consistency.interval[1] < CONSISTENCY_FLOOR,
    }
    return tuple(name for name, holds in rules.items() if holds)


def _agreement_of_each(shared: Sequence[Unit]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for unit in shared:
        for (one, said), (other, heard) in combinations(_decided(unit).items(), 2):
            for name in (one, other):
                found[name][0] += said == heard
                found[name][1] += 1
    return found


def _influence(votes: Sequence[Vote], items: Mapping[str, Item]) -> dict[str, Influence]:
    """By annotator: how the labels by majority would differ without them."""
    open_votes = deciding(votes, items)
    grouped: dict[str, list[Vote]] = defaultdict(list)
    for vote in open_votes:
        grouped[vote.item_id].append(vote)
    changed: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    pairs = 0
    for group in grouped.values():
        label = _label(group, items)
        pairs += label is not None
        people = {vote.annotator_id for vote in group if vote.choice not in SILENT}
        for name in people:
            without = [vote for vote in group if vote.annotator_id != name]
            if len(people) == 1:
                lost[name] += label is not None
            else:
                changed[name] += _label(without, items) != label
    return {name: Influence(changed[name], lost[name], pairs) for name in {vote.annotator_id for vote in votes}}


def _label(votes: Sequence[Vote], items: Mapping[str, Item]) -> str | None:
    """What the votes on one item make of it: the pair's id, or the verdict; None where nothing is decided."""
    if items[votes[0].item_id].kind == "pair":
        derived = derive_pairs(judged(votes, items)).pairs
        return derived[0].pair_id if derived else None
    said = Counter(vote.choice for vote in votes if vote.choice not in SILENT).most_common(2)
    return said[0][0] if len(said) == 1 or (said and said[0][1] > said[1][1]) else None


def _plain(value: Any) -> Any:
    """Records as objects, with the shares that they compute."""
    if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        return [_plain(each) for each in value]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    made = {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Rate):
        return {"value": value.value, **made}
    return {**made, "share": value.share} if isinstance(value, Influence) else made
