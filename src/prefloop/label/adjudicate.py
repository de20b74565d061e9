"""The queue of adjudication: items on which people differ, or that somebody flagged, worst first; `settle` ends it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from prefloop.label.opinions import SILENT, by_item, deciding, position, standing
from prefloop.label.records import Item, ItemKind, Vote


@dataclass(frozen=True)
class Disagreement:
    """An item that a further person should look at."""

    item: Item
    votes: tuple[Vote, ...]
    distance: float
    """How far two votes are apart on average: of pairs on the scale 0 to 4, of reviews 0 or 4."""
    flagged: bool

    def as_row(self) -> dict[str, Any]:
        """For files and programs: texts, and each vote without its annotator, so that nobody follows a name."""
        item = self.item
        row: dict[str, Any] = {"item_id": item.item_id, "kind": item.kind, "prompt": item.prompt}
        if item.kind == "pair":
            row |= {"response_a": item.response_a, "response_b": item.response_b}
        else:
            row |= {"response": item.response_a}
        said = [
            {"said": vote.choice, "strength": vote.strength, "reason": vote.reason, "note": vote.note}
            for vote in self.votes
        ]
        return {**row, "distance": round(self.distance, 3), "flagged": self.flagged, "votes": said}


def disagreements(
    items: Mapping[str, Item], votes: Iterable[Vote], *, kind: ItemKind = "pair", settled: Collection[str] = ()
) -> list[Disagreement]:
    """The items on which two annotators differ, those furthest apart first, then those that were only flagged; without
    those that are settled.

    A side called better slightly by one and clearly by another is no disagreement.
    """
    kept = [vote for vote in deciding(standing(votes, items, kind), items) if vote.item_id not in settled]
    flagged = {vote.item_id for vote in kept if vote.flag}
    # A flag on a skip is no opinion, but what there is to see.
    silent: dict[str, list[Vote]] = {}
    for vote in kept:
        if vote.flag and vote.choice in SILENT:
            silent.setdefault(vote.item_id, []).append(vote)
    found = []
    units = by_item(kept)
    for name in dict.fromkeys([*units, *(vote.item_id for vote in kept if vote.flag)]):
        said = tuple(units.get(name, {}).values())
        apart = [_distance(one, other, kind) for one, other in combinations(said, 2)]
        differs = len({vote.choice for vote in said}) > 1 and max(apart, default=0) > 0
        if differs or name in flagged:
            shown = (*said, *silent.get(name, ()))
            found.append(Disagreement(items[name], shown, fmean(apart) if differs else 0.0, name in flagged))
    return sorted(found, key=lambda each: (-each.distance, not each.flagged, -len(each.votes), each.item.item_id))


def _distance(one: Vote, other: Vote, kind: ItemKind) -> float:
    if kind == "review":
        return 0.0 if one.choice == other.choice else 4.0
    return float(abs(position(one) - position(other))) if one.choice != other.choice else 0.0
