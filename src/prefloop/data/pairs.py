"""Preference pairs from comparisons of other shapes: judgments, rankings of several responses, ratings.

What yields no pair (ties, skips, no clear majority) is counted under a name, never dropped silently.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from prefloop.data.dialogue import short_hash
from prefloop.data.formats import make_pair
from prefloop.types import Choice, Comparison, InputError, Judgment, PreferencePair, Prompt

STRENGTHS = {"slightly": 1 / 3, "clearly": 1.0}
"""What a stated strength is worth: the small margins of Llama 2 (Touvron et al. 2023, table 27)."""

NO_PAIR: dict[Choice, str] = {"tie": "ties", "both_bad": "both_bad", "skip": "skipped"}
"""The count under which a comparison without a pair is kept, by the choice that prevailed."""

SWAPPED_CHOICE: dict[Choice, Choice] = {"a": "b", "b": "a"}


@dataclass(frozen=True)
class DerivedPairs:
    """The pairs, and how many comparisons gave none: `ties`, `both_bad`, `skipped`, `undecided`; and `repeated_votes`,
    the votes that a later vote of the same annotator on the same comparison replaced."""

    pairs: list[PreferencePair]
    counts: Counter[str]


def derive_pairs(judged: Iterable[tuple[Comparison, Sequence[Judgment]]], *, keep_ties: bool = False) -> DerivedPairs:
    """One pair for every comparison in which `a` or `b` has strictly more votes than each other choice.

    An annotator has one vote a comparison, the last one; votes without an annotator all count. Skips are no votes.
    `strength` is the mean over the winning votes that state one, `num_judgments` the number of votes. With `keep_ties`
    a comparison in which "tie" has the most votes, or a and b share the top, is a pair too, marked as a tie.
    """
    pairs: list[PreferencePair] = []
    counts: Counter[str] = Counter()
    for comparison, judgments in judged:
        assert all(judgment.comparison_id == comparison.comparison_id for judgment in judgments), "foreign judgment"
        votes = _last_votes(judgments)
        counts["repeated_votes"] += len(judgments) - len(votes)
        winner = _plurality(votes)
        if winner == "a" or winner == "b":
            pairs.append(_pair(comparison, winner, votes))
        elif keep_ties and (winner == "tie" or _evenly_split(votes)):
            pairs.append(dataclasses.replace(_pair(comparison, "a", votes), strength=None, tie=True))
        else:
            counts[NO_PAIR[winner] if winner else "undecided"] += 1
    return DerivedPairs(pairs, +counts)


def _last_votes(judgments: Sequence[Judgment]) -> list[Judgment]:
    anonymous = [judgment for judgment in judgments if not judgment.annotator_id]
    named = {judgment.annotator_id: judgment for judgment in judgments if judgment.annotator_id}
    return anonymous + list(named.values())


def _plurality(votes: Sequence[Judgment]) -> Choice | None:
    """The choice with the most votes, "skip" if nobody voted, None if several share the top."""
    cast = Counter(vote.choice for vote in votes if vote.choice != "skip")
    if not cast:
        return "skip"
    (first, most), *others = cast.most_common(2)
    return None if others and others[0][1] == most else first


def _evenly_split(votes: Sequence[Judgment]) -> bool:
    """Whether a and b share the top, without another choice beside them."""
    cast = Counter(vote.choice for vote in votes if vote.choice != "skip")
    others = [cast[choice] for choice in ("tie", "both_bad") if choice in cast]
    return bool(cast["a"]) and cast["a"] == cast["b"] and all(count < cast["a"] for count in others)


def _pair(comparison: Comparison, winner: Choice, votes: Sequence[Judgment]) -> PreferencePair:
    chosen, rejected = comparison.response_a, comparison.response_b
    if winner == "b":
        chosen, rejected = rejected, chosen
    strengths = [STRENGTHS[vote.strength] for vote in votes if vote.choice == winner and vote.strength]
    num_votes = sum(vote.choice != "skip" for vote in votes)
    annotators = {vote.annotator_id for vote in votes if vote.choice != "skip"}
    return make_pair(
        comparison.prompt,
        chosen,
        rejected,
        source=comparison.prompt.source,
        strength=sum(strengths) / len(strengths) if strengths else None,
        num_judgments=num_votes,
        annotator_id=annotators.pop() if len(annotators) == 1 else "",
    )


def ranks_of_order(ranking: Sequence[float]) -> list[int]:
    """Ranks (0 = best) of the responses, from their indices, best first.

    Raises InputError unless `ranking` holds each of 0 ... K-1 once.
    """
    if sorted(ranking) != list(range(len(ranking))):
        raise InputError(
            f"is not an order of all {len(ranking)} responses",
            field="ranking",
            remedy=f"give each index from 0 to {len(ranking) - 1} once, best first; for ranks with ties use ranks",
        )
    ranks = [0] * len(ranking)
    for rank, index in enumerate(ranking):
        ranks[int(index)] = rank
    return ranks


def pairs_by_score(
    prompt: Prompt,
    responses: Sequence[str],
    scores: Sequence[float],
    *,
    keep_difference: bool,
    keep_ties: bool = False,
    weight: float = 1.0,
    annotator_id: str = "",
) -> list[PreferencePair]:
    """Every pair of responses whose scores differ, the higher one chosen; best chosen first, then best rejected.

    With `keep_ties` also those whose scores are equal, marked as ties. `keep_difference` makes the difference the
    pair's strength (ratings have a scale, ranks have none). All pairs of a row have the row's weight: K responses count
    for up to K (K - 1) / 2 pairs.
    """
    order = sorted(range(len(responses)), key=lambda index: -scores[index])
    return [
        make_pair(
            prompt,
            responses[better],
            responses[worse],
            source=prompt.source,
            strength=scores[better] - scores[worse] if keep_difference and scores[better] > scores[worse] else None,
            weight=weight,
            annotator_id=annotator_id,
            tie=scores[better] == scores[worse],
        )
        for better, worse in combinations(order, 2)
        if keep_ties or scores[better] > scores[worse]
    ]


class JudgmentTable:
    """The votes of a file, gathered by comparison.

    A and B are put in one order, so that votes on the swapped comparison join the others.
    """

    def __init__(self) -> None:
        self._judged: dict[str, tuple[int, Comparison, list[Judgment]]] = {}

    def add(self, line: int, comparison: Comparison, judgment: Judgment) -> tuple[Comparison, Judgment]:
        """Note one vote that stands on `line`; returns it with A and B in the common order and their common id."""
        if comparison.response_a > comparison.response_b:
            comparison, judgment = swapped(comparison, judgment)
        comparison_id = short_hash(comparison.prompt.prompt_id, comparison.response_a, comparison.response_b)
        comparison = dataclasses.replace(comparison, comparison_id=comparison_id)
        judgment = dataclasses.replace(judgment, comparison_id=comparison_id)
        self._judged.setdefault(comparison_id, (line, comparison, []))[2].append(judgment)
        return comparison, judgment

    def comparisons(self) -> Iterator[tuple[int, Comparison, list[Judgment]]]:
        """Each comparison with its votes, by the line of the first of them."""
        yield from self._judged.values()


def swapped(comparison: Comparison, judgment: Judgment) -> tuple[Comparison, Judgment]:
    """The same vote on the same comparison with A and B exchanged."""
    choice = SWAPPED_CHOICE.get(judgment.choice, judgment.choice)
    shown_first: Literal["a", "b"] = "b" if judgment.shown_first == "a" else "a"
    return comparison.swap(), dataclasses.replace(judgment, choice=choice, shown_first=shown_first)
