"""What an audit keeps of a data file: a few numbers for each pair and vote, a sample of pairs, and examples.

One row's text is held at a time. 37 bytes and one for each signal stay of a pair, so that memory grows slowly with the
file. Which pairs are sampled or shown depends on their ids alone, not on the order or the number of copies.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefloop.audit.learnable import LearnablePair
from prefloop.data.dialogue import short_hash
from prefloop.data.split import conversation_key
from prefloop.signals.measures import SIGNALS
from prefloop.signals.reading import FUNCTION_WORDS, Reading, language_of
from prefloop.types import Choice, Comparison, Judgment, PreferencePair

NUM_EXAMPLES = 3
EXAMPLE_CHARS = 600
"""How much of a text an example shows."""
SAMPLE_PAIRS = 4000
SAMPLE_CHARS = 4000
"""How much of each response the sample keeps."""

NOT_APPLICABLE = -128
CHOICES: tuple[Choice, ...] = ("a", "b", "tie", "both_bad", "skip")


@dataclass
class Examples:
    """For each key the pairs with the smallest ids, which is a random choice that no copy or order changes."""

    kept: dict[tuple[str, int], dict[int, Mapping[str, Any]]] = field(default_factory=dict)

    def offer(self, key: tuple[str, int], pair: PreferencePair, pair_id: int, line: int, **further: Any) -> None:
        """Keep the pair under `key` if its id is among the smallest there."""
        shown = self.kept.setdefault(key, {})
        if pair_id in shown or (len(shown) >= NUM_EXAMPLES and pair_id > max(shown)):
            return
        prompt = pair.prompt.messages[-1].content
        texts = {"prompt": prompt, "chosen": pair.chosen, "rejected": pair.rejected}
        shown[pair_id] = {"line": line, **{name: clipped(text) for name, text in texts.items()}, **further}
        if len(shown) > NUM_EXAMPLES:
            del shown[max(shown)]

    def of(self, name: str, direction: int = 1) -> tuple[Mapping[str, Any], ...]:
        """The examples under (name, direction), by id."""
        kept = self.kept.get((name, direction), {})
        return tuple(kept[pair_id] for pair_id in sorted(kept))


@dataclass
class Votes:
    """Every judgment, as numbers. A and B are in the order that all votes on the two responses share."""

    comparisons: array[int] = field(default_factory=lambda: array("Q"))
    clusters: array[int] = field(default_factory=lambda: array("Q"))
    annotators: array[int] = field(default_factory=lambda: array("l"))
    """Place in `names`, -1 for a vote without an annotator."""
    choices: array[int] = field(default_factory=lambda: array("b"))
    """Place in CHOICES."""
    first_won: array[int] = field(default_factory=lambda: array("b"))
    """1 where the response shown first was chosen, 0 where the other one was, -1 where neither or not known."""
    names: dict[str, int] = field(default_factory=dict)

    def add(self, comparison_id: int, cluster: int, annotator: str, choice: Choice, first_won: int) -> None:
        """Note one vote."""
        self.comparisons.append(comparison_id)
        self.clusters.append(cluster)
        self.annotators.append(self.names.setdefault(annotator, len(self.names)) if annotator else -1)
        self.choices.append(CHOICES.index(choice))
        self.first_won.append(first_won)

    def __len__(self) -> int:
        return len(self.comparisons)


@dataclass
class Table:
    """Takes pairs and votes one by one."""

    ids: array[int] = field(default_factory=lambda: array("Q"))
    clusters: array[int] = field(default_factory=lambda: array("Q"))
    """The conversation a pair belongs to: what counts as one independent observation."""
    comparisons: array[int] = field(default_factory=lambda: array("Q"))
    """The prompt and both responses, whichever was chosen."""
    near: array[int] = field(default_factory=lambda: array("Q"))
    """The same without case, punctuation, numbers, function words and word order."""
    signs: array[int] = field(default_factory=lambda: array("b"))
    """For each pair and signal: 1 where chosen has more, -1 where it has less, 0 alike, or NOT_APPLICABLE."""
    length_differences: array[int] = field(default_factory=lambda: array("i"))
    """Characters of chosen minus those of rejected."""
    other_language: array[int] = field(default_factory=lambda: array("b"))
    examples: Examples = field(default_factory=Examples)
    votes: Votes = field(default_factory=Votes)
    _sample: list[tuple[int, LearnablePair]] = field(default_factory=list)
    _sampled: set[int] = field(default_factory=set)
    _judged: set[int] = field(default_factory=set)

    def add_vote(self, comparison: Comparison, judgment: Judgment) -> None:
        """Note one judgment of the file; A and B of the comparison are in the common order."""
        comparison_id = number_of(comparison.comparison_id)
        first_won = int(judgment.choice == judgment.shown_first) if judgment.choice in ("a", "b") else -1
        cluster = number_of(conversation_key(comparison.prompt))
        self._judged.add(comparison_id)
        self.votes.add(comparison_id, cluster, judgment.annotator_id, judgment.choice, first_won)

    def add(self, line: int, pair: PreferencePair) -> None:
        """Note one pair that stands on `line`."""
        pair_id, cluster = number_of(pair.pair_id), number_of(conversation_key(pair))
        first, second = sorted((pair.chosen, pair.rejected))
        comparison_id = number_of(short_hash(pair.prompt.prompt_id, first, second))
        chosen, rejected = Reading(pair.chosen), Reading(pair.rejected)
        self.ids.append(pair_id)
        self.clusters.append(cluster)
        self.comparisons.append(comparison_id)
        self.near.append(hash((pair.prompt.prompt_id, _content(chosen), _content(rejected))) & (2**64 - 1))
        other = _is_other_language(pair, chosen, rejected)
        self.other_language.append(other)
        self.length_differences.append(len(pair.chosen.strip()) - len(pair.rejected.strip()))
        self._measure(line, pair, pair_id, chosen, rejected, other)
        self._offer_to_sample(pair_id, LearnablePair(cluster, pair.chosen[:SAMPLE_CHARS], pair.rejected[:SAMPLE_CHARS]))
        if pair.annotator_id and comparison_id not in self._judged:
            choice: Choice = "a" if pair.chosen == first else "b"
            self.votes.add(comparison_id, cluster, pair.annotator_id, choice, -1)

    def _measure(
        self, line: int, pair: PreferencePair, pair_id: int, chosen: Reading, rejected: Reading, other: bool
    ) -> None:
        for name, signal in SIGNALS.items():
            if signal.language == "en" and other:
                self.signs.append(NOT_APPLICABLE)
                continue
            more, less = signal.measure(chosen), signal.measure(rejected)
            sign = (more > less) - (more < less)
            self.signs.append(sign)
            if sign:
                self.examples.offer(
                    (name, sign), pair, pair_id, line, value_chosen=round(more, 4), value_rejected=round(less, 4)
                )

    def _offer_to_sample(self, pair_id: int, pair: LearnablePair) -> None:
        """Keep the pair if its id is among the smallest; a heap with the largest of them on top."""
        if pair_id in self._sampled:
            return
        if len(self._sample) < SAMPLE_PAIRS:
            heapq.heappush(self._sample, (-pair_id, pair))
        elif -pair_id > self._sample[0][0]:
            dropped, _ = heapq.heapreplace(self._sample, (-pair_id, pair))
            self._sampled.discard(-dropped)
        else:
            return
        self._sampled.add(pair_id)

    @property
    def sample(self) -> list[LearnablePair]:
        """At most SAMPLE_PAIRS different pairs, by id."""
        return [pair for _, pair in sorted(self._sample, key=lambda kept: -kept[0])]


@dataclass(frozen=True)
class Pairs:
    """The different pairs of a file: rows that say the same of the same texts are one."""

    num_rows: int
    clusters: NDArray[np.int64]
    """0 ... number of conversations - 1, [pairs]."""
    comparisons: NDArray[np.uint64]
    near: NDArray[np.uint64]
    signs: Mapping[str, NDArray[np.int8]]
    """Signal -> [pairs]."""
    length_difference: NDArray[np.int32]
    other_language: NDArray[np.bool_]

    @property
    def num_pairs(self) -> int:
        return len(self.clusters)


def distinct_pairs(table: Table) -> Pairs:
    """The table's pairs, copies left out."""
    ids = np.frombuffer(table.ids, dtype=np.uint64)
    _, first = np.unique(ids, return_index=True)
    signs = np.frombuffer(table.signs, dtype=np.int8).reshape(len(ids), len(SIGNALS))
    _, clusters = np.unique(np.frombuffer(table.clusters, dtype=np.uint64)[first], return_inverse=True)
    return Pairs(
        num_rows=len(ids),
        clusters=clusters.astype(np.int64),
        comparisons=np.frombuffer(table.comparisons, dtype=np.uint64)[first],
        near=np.frombuffer(table.near, dtype=np.uint64)[first],
        signs={name: signs[first, column] for column, name in enumerate(SIGNALS)},
        length_difference=np.frombuffer(table.length_differences, dtype=np.int32)[first],
        other_language=np.frombuffer(table.other_language, dtype=np.int8)[first].astype(bool),
    )


def _is_other_language(pair: PreferencePair, chosen: Reading, rejected: Reading) -> bool:
    """Whether the responses are not English; where they are too short to tell, whether the prompt is not."""
    together = language_of(chosen.words + rejected.words, chosen.text + rejected.text)
    if together == "unknown":
        together = Reading(pair.prompt.messages[-1].content).language
    return together == "other"


def _content(reading: Reading) -> frozenset[str]:
    return frozenset(word for word in reading.vocabulary if not word.isdigit()) - FUNCTION_WORDS


def number_of(identifier: str) -> int:
    return int(identifier[:16], 16)


def clipped(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARS else f"{text[: EXAMPLE_CHARS - 1]}\u2026"
