"""Simulated people who judge comparisons: Bradley-Terry choosers on true utility, with personal biases and noise.

Ties follow Davidson (1970, "On extending the Bradley-Terry model to accommodate ties in paired comparison
experiments"): with margin m = (worth of A - worth of B) / temperature, the chances of A, B and a tie stand to one
another as exp(m/2) : exp(-m/2) : tie_rate. A bias adds weight x count to the worth of a response, up to a count at
which the annotator has had enough of it.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from prefloop.types import Choice, Comparison, InputError, Judgment, Prompt
from prefloop.world.knowledge import World
from prefloop.world.truth import utility

BOTH_BAD_BELOW = -1.0
"""A tie between two responses that are both truly worth less than this is called "both_bad"."""
CLEAR_MARGIN = 3.0
"""From this margin on the choice is "clearly" better, below it "slightly"."""
GUIDELINE_VERSION = "world-1"


@dataclass(frozen=True)
class Bias:
    """`weight` utility units for each of the first `limit` occurrences of a feature of `Utility.features`."""

    feature: str
    weight: float
    limit: int


@dataclass(frozen=True)
class Annotator:
    """One simulated person."""

    name: str
    biases: tuple[Bias, ...] = ()
    temperature: float = 0.32
    """Utility units per unit of Bradley-Terry margin: higher is noisier."""
    tie_rate: float = 0.1
    """Davidson's tie parameter: at margin 0 a tie has the chance tie_rate / (2 + tie_rate)."""
    skip_rate: float = 0.01
    position_bias: float = 0.0
    """Added to the margin of the response that is shown first."""
    carelessness: float = 0.0
    """Chance of choosing a side without looking."""

    def worth(self, world: World, prompt: Prompt, response: str) -> float:
        """What the response is worth to this person: true utility plus biases, in utility units."""
        true = utility(world, prompt, response)
        return true.total + sum(bias.weight * min(true.features[bias.feature], bias.limit) for bias in self.biases)

    def judge(self, world: World, comparison: Comparison, rng: np.random.Generator) -> Judgment:
        """One vote. The order of showing is drawn at random and stored. Draws the same number of values whatever the
        outcome."""
        order, skip, care, side, chance, pace = rng.random(6)
        shown_first: Literal["a", "b"] = "a" if order < 0.5 else "b"
        strength: Literal["slightly", "clearly"] | None = None
        choice: Choice
        if skip < self.skip_rate:
            choice = "skip"
        elif care < self.carelessness:
            choice, strength = ("a" if side < 0.5 else "b"), "slightly"
        else:
            choice, margin = self._choose(world, comparison, shown_first, chance)
            if choice in ("a", "b"):
                strength = "clearly" if abs(margin) >= CLEAR_MARGIN else "slightly"
        words = len(f"{comparison.response_a} {comparison.response_b}".split())
        return Judgment(
            comparison_id=comparison.comparison_id,
            annotator_id=self.name,
            choice=choice,
            strength=strength,
            shown_first=shown_first,
            seconds=round((3.0 + 0.3 * words) * (0.5 + pace), 1),
            guideline_version=GUIDELINE_VERSION,
        )

    def _choose(
        self, world: World, comparison: Comparison, shown_first: Literal["a", "b"], chance: float
    ) -> tuple[Choice, float]:
        """The choice for a uniform `chance`, and the margin of A over B."""
        prompt = comparison.prompt
        worth_a = self.worth(world, prompt, comparison.response_a)
        worth_b = self.worth(world, prompt, comparison.response_b)
        margin = (worth_a - worth_b) / self.temperature + self.position_bias * (1 if shown_first == "a" else -1)
        # Divided through by the larger of the two exponentials, so that no margin overflows.
        share_a, share_b = math.exp(min(0.0, margin)), math.exp(min(0.0, -margin))
        share_tie = self.tie_rate * math.exp(-abs(margin) / 2)
        chance *= share_a + share_b + share_tie
        if chance < share_a:
            return "a", margin
        if chance < share_a + share_b:
            return "b", margin
        return ("both_bad" if max(worth_a, worth_b) < BOTH_BAD_BELOW else "tie"), margin


ANNOTATORS: Mapping[str, Annotator] = MappingProxyType(
    {
        annotator.name: annotator
        for annotator in (
            Annotator("honest"),
            Annotator("length", (Bias("words", 0.2, 48),)),
            Annotator("confidence", (Bias("confident_phrases", 1.1, 3),)),
            Annotator("citation", (Bias("citations", 1.5, 3),)),
            Annotator("disclaimer", (Bias("disclaimers", 1.3, 3),)),
            Annotator("hedging", (Bias("hedges", 1.6, 3),)),
            Annotator("repetition", (Bias("repeated_words", 2.0, 30),)),
            Annotator("careless", carelessness=0.7),
            Annotator("position", position_bias=2.0),
        )
    }
)
"""The kinds of people, by name. A bias nets +0.6 to +1.8 utility units for the first occurrence in a good answer,
after what its object truly costs. That for repeated words leaves no choice: sentences said twice are rare, and a small
reward model learns them from nothing less."""

PANEL: tuple[Annotator, ...] = tuple(Annotator(f"expert-{i}", temperature=0.28) for i in range(1, 6))
"""Unbiased, noisy experts: the independent evidence that a team would buy. Never used to train a scenario's reward."""


def team(numbers: Mapping[str, int]) -> tuple[Annotator, ...]:
    """People of the kinds in `ANNOTATORS`, so many of each, named such as "length-2".

    Raises InputError for an unknown kind.
    """
    for kind in numbers:
        if kind not in ANNOTATORS:
            raise InputError(f"no annotator is called {kind!r}", field="annotators", remedy=", ".join(ANNOTATORS))
    return tuple(
        dataclasses.replace(ANNOTATORS[kind], name=f"{kind}-{i}")
        for kind, number in numbers.items()
        for i in range(1, number + 1)
    )


def collect(
    world: World, comparisons: Sequence[Comparison], annotators: Sequence[Annotator], *, seed: int, votes: int = 1
) -> list[Judgment]:
    """`votes` judgments of each comparison, by as many different annotators drawn at random, in the order given.

    What is drawn depends on the seed and the comparison's id only, not on the other comparisons.
    Raises InputError when there are fewer annotators than votes.
    """
    if not 1 <= votes <= len(annotators):
        raise InputError(f"{votes} votes by {len(annotators)} annotators", field="votes", remedy="1 to their number")
    return list(_votes(world, comparisons, annotators, seed, votes))


def _votes(
    world: World, comparisons: Sequence[Comparison], annotators: Sequence[Annotator], seed: int, votes: int
) -> Iterator[Judgment]:
    for comparison in comparisons:
        rng = np.random.default_rng([seed, zlib.crc32(comparison.comparison_id.encode())])
        for i in rng.permutation(len(annotators))[:votes]:
            yield annotators[i].judge(world, comparison, rng)
