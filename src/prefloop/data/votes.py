"""How several people voted on the same comparison: what agreement and label noise are measured on.

Pairs alone would not do: comparisons without a majority give none, so what is left agrees more than people do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from prefloop.data.split import conversation_key
from prefloop.data.stream import Tally, judged_comparisons, parse_source
from prefloop.types import PreferencePair


@dataclass(frozen=True)
class Votes:
    """Votes for either response of one comparison; ties, skips and "both bad" are left out."""

    conversation: str
    first: int
    second: int


def votes_of(source: str, pairs: Sequence[PreferencePair]) -> list[Votes]:
    """The comparisons of a file with two votes or more: of its judgments, and of `pairs` (read from it) that repeat a
    comparison under different annotators."""
    found = []
    for _, comparison, judgments in judged_comparisons(parse_source(source), Tally(skip_bad=True)):
        named = {judgment.annotator_id: judgment.choice for judgment in judgments if judgment.annotator_id}
        choices = Counter([*named.values(), *(each.choice for each in judgments if not each.annotator_id)])
        found.append(Votes(conversation_key(comparison.prompt), choices["a"], choices["b"]))
    return [each for each in found + _votes_in_pairs(pairs) if each.first + each.second >= 2]


def _votes_in_pairs(pairs: Sequence[PreferencePair]) -> list[Votes]:
    """One vote for each annotator and comparison, the last one, as for judgments; anonymous rows may be copies."""
    last: dict[tuple[str, str, str], dict[str, tuple[str, bool]]] = {}
    for pair in pairs:
        if pair.annotator_id and pair.num_judgments == 1:
            first, second = sorted((pair.chosen, pair.rejected))
            by_annotator = last.setdefault((pair.prompt.prompt_id, first, second), {})
            by_annotator[pair.annotator_id] = (conversation_key(pair), pair.chosen == first)
    votes = []
    for by_annotator in last.values():
        for_first = sum(chose_first for _, chose_first in by_annotator.values())
        conversation = next(iter(by_annotator.values()))[0]
        votes.append(Votes(conversation, for_first, len(by_annotator) - for_first))
    return votes
