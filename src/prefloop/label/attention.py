"""Does an annotator read? Speed, runs of the same answer, and the side that is chosen, by rules that are stated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from prefloop.label.records import Item, Vote
from prefloop.statistics.clustered import sign_test
from prefloop.statistics.intervals import wilson

WORDS_PER_SECOND = 10.0
"""Nobody reads faster: 2.5 times the silent reading of adults, 238 words a minute (Brysbaert 2019)."""
FAST_SHARE = 0.25
"""Share of votes faster than that which is too much; below it is room for texts that were seen before."""
MIN_VOTES = 20
"""Fewer votes make no flag of speed."""
RUN_CHANCE = 1e-3
"""A run of the same answer is too long where chance gives one with less than this."""


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval (Wilson); nothing is known of it where `n` is 0."""

    count: int
    n: int
    interval: tuple[float, float]

    @property
    def value(self) -> float | None:
        """None where nothing was counted."""
        return self.count / self.n if self.n else None


@dataclass(frozen=True)
class Run:
    """The longest run of one answer, as it stood on the screen."""

    answer: str
    length: int
    chance: float
    """Upper bound of the chance of so long a run anywhere."""


def rate(count: int, n: int) -> Rate:
    """A share of independent votes."""
    return Rate(count, n, wilson(count, n) if n else (0.0, 1.0))


def chosen_first(votes: Sequence[Vote]) -> tuple[Rate, float]:
    """How often the side shown first was chosen among choices of a side, and the exact binomial p-value that it does
    not matter."""
    decided = [vote for vote in votes if vote.choice in ("a", "b")]
    wins = sum(vote.choice == vote.shown_first for vote in decided)
    return rate(wins, len(decided)), sign_test(wins, len(decided))


def seconds_median(votes: Sequence[Vote]) -> float | None:
    """Of the votes that were timed."""
    timed = [vote.seconds for vote in votes if vote.seconds > 0]
    return median(timed) if timed else None


def faster_than_reading(votes: Sequence[Vote], items: Mapping[str, Item]) -> Rate:
    """Timed votes given in less time than the texts take at `WORDS_PER_SECOND`. Repetitions are known texts, and are
    left out; words are what blanks separate."""
    timed = [vote for vote in votes if vote.seconds > 0 and not vote.is_repeat]
    fast = sum(vote.seconds < _words(items[vote.item_id]) / WORDS_PER_SECOND for vote in timed)
    return rate(fast, len(timed))


def is_too_fast(fast: Rate) -> bool:
    """Whether more than `FAST_SHARE` of at least `MIN_VOTES` votes came faster than reading."""
    return fast.n >= MIN_VOTES and fast.count > FAST_SHARE * fast.n


def longest_run(votes: Sequence[Vote], others: Sequence[Vote]) -> Run | None:
    """The run of the annotator's votes (in the order given) that chance explains least. None without votes.

    With n votes and a chance p of the answer each time, a run of length L has at most the chance (n - L + 1) p^L: one
    for each place where it could start. p is the share of the answer among the others' votes, at least 1/2, so that
    nobody is flagged for agreeing with everybody.
    """
    shares = Counter(on_screen(vote) for vote in others)
    runs: dict[str, int] = {}
    for answer, group in groupby(votes, key=on_screen):
        runs[answer] = max(runs.get(answer, 0), len(list(group)))
    found = []
    for answer, length in runs.items():
        p = max(0.5, shares[answer] / len(others) if others else 0.0)
        found.append(Run(answer, length, min(1.0, (len(votes) - length + 1) * p**length)))
    return min(found, key=lambda run: (run.chance, -run.length)) if found else None


def on_screen(vote: Vote) -> str:
    """What was pressed: the first or the second response, or another answer."""
    if vote.choice not in ("a", "b"):
        return vote.choice
    return "first" if vote.choice == vote.shown_first else "second"


def _words(item: Item) -> int:
    return sum(len(text.split()) for text in (item.prompt, item.response_a, item.response_b or ""))
