"""What counts of the votes: of each annotator the first one on an item, and where on a scale it stands.

Repetitions only measure the annotator, skips and "unsure" say nothing, gold questions are no open questions.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping

from prefloop.label.records import Item, ItemKind, Vote

SILENT = ("skip", "unsure")
"""Choices without an opinion."""
MIRRORED = {"a": "b", "b": "a"}
MIDDLE, ENDS = 2, 4
"""Of the ordinal scale 0 (a clearly) to 4 (b clearly)."""


def standing(votes: Iterable[Vote], items: Mapping[str, Item], kind: ItemKind) -> list[Vote]:
    """The votes on one kind of item that were not taken back, in the order of storing."""
    kept = [vote for vote in votes if not vote.undone and items[vote.item_id].kind == kind]
    return sorted(kept, key=lambda vote: vote.number)


def deciding(votes: Iterable[Vote], items: Mapping[str, Item]) -> list[Vote]:
    """Of standing votes those that labels are made of: no repetitions, no gold questions. Skips are among them."""
    return [vote for vote in votes if not vote.is_repeat and items[vote.item_id].gold is None]


def by_item(votes: Iterable[Vote]) -> dict[str, dict[str, Vote]]:
    """Item -> annotator -> the first opinion, repetitions left out."""
    found: dict[str, dict[str, Vote]] = {}
    for vote in votes:
        if not vote.is_repeat and vote.choice not in SILENT:
            found.setdefault(vote.item_id, {}).setdefault(vote.annotator_id, vote)
    return found


def repeated(votes: Iterable[Vote]) -> Iterator[tuple[Vote, Vote]]:
    """Each repetition with an opinion, and the first opinion of the same annotator."""
    listed = list(votes)
    first = by_item(listed)
    for vote in listed:
        before = first.get(vote.item_id, {}).get(vote.annotator_id)
        if vote.is_repeat and vote.choice not in SILENT and before is not None:
            yield before, vote


def is_mirrored(item_id: str) -> bool:
    """Whether agreement calls the item's sides by each other's name: drawn by its id.

    Where a is always the response of one model, one choice is rare and chance agreement would be overstated.
    """
    return zlib.crc32(item_id.encode()) % 2 == 1


def nominal(vote: Vote) -> str:
    """The choice, sides drawn by lot."""
    return MIRRORED.get(vote.choice, vote.choice) if is_mirrored(vote.item_id) else vote.choice


def ordinal(vote: Vote) -> int:
    """0 a clearly, 1 a slightly, 2 neither, 3 b slightly, 4 b clearly; sides drawn by lot.

    "both_bad" is neither. A side without a stated strength counts as slightly, the weaker claim.
    """
    place = position(vote)
    return ENDS - place if is_mirrored(vote.item_id) else place


def position(vote: Vote) -> int:
    """The place of a vote on a pair on the scale from a clearly (0) to b clearly (4)."""
    if vote.choice not in MIRRORED:
        return MIDDLE
    away = 2 if vote.strength == "clearly" else 1
    return MIDDLE - away if vote.choice == "a" else MIDDLE + away
