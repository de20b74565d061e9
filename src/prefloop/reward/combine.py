"""Several scorers as one: an ensemble that is asked together, a weighted sum of different aims.

The disagreement of an ensemble is low exactly where all members share a shortcut, so a small spread is no sign that a
score is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from prefloop.reward.config import EnsembleRule
from prefloop.reward.scorer import Response, Scorer, finite_scores
from prefloop.types import InputError, Prompt

Floats = NDArray[np.float64]


def combine_members(scores: Floats, *, rule: EnsembleRule, variance_weight: float) -> Floats:
    """One score for each response from those of M members.

        mean                  1/M sum_m r_m
        worst                 min_m r_m
        mean_minus_variance   mean - variance_weight 1/M sum_m (r_m - mean)^2

    Coste et al. (2024), "Reward model ensembles help mitigate overoptimization", section 3.2 (there WCO and UWO).
    `scores` [M, B]; answers [B].
    """
    match rule:
        case "mean":
            return scores.mean(axis=0)
        case "worst":
            return scores.min(axis=0)
        case "mean_minus_variance":
            return scores.mean(axis=0) - variance_weight * scores.var(axis=0)
        case _:
            assert_never(rule)


class Ensemble:
    """Reward models of the same aim. Raises InputError if there are fewer than two, or if two are the same."""

    def __init__(
        self,
        members: Sequence[Scorer],
        *,
        rule: EnsembleRule = "mean",
        variance_weight: float = 0.0,
        temperature: float | None = None,
    ) -> None:
        if len(members) < 2:
            raise InputError("an ensemble needs two members or more", field="reward", remedy="give the member alone")
        versions = [member.version for member in members]
        if len(set(versions)) < len(versions):
            problem = "two members of the ensemble are the same model"
            raise InputError(problem, field="reward", remedy="train members with different seeds or data")
        self.members, self.rule, self.variance_weight = members, rule, variance_weight
        self.temperature = temperature
        self.version = _joint_version([rule, str(variance_weight), *sorted(versions)])

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """The members' normalised scores, combined by the rule."""
        return self.score_with_spread(prompts, responses)[0]

    def score_with_spread(
        self, prompts: Sequence[Prompt], responses: Sequence[Response]
    ) -> tuple[list[float], list[float] | None]:
        """Combined scores, and the (biased) standard deviation over the members."""
        scores = np.array([member.score(prompts, responses) for member in self.members])
        with np.errstate(over="ignore", invalid="ignore"):  # What is no number is refused, with its prompt.
            combined = combine_members(scores, rule=self.rule, variance_weight=self.variance_weight).tolist()
            spread = scores.std(axis=0).tolist()
        return finite_scores(combined, prompts, path=None, remedy="members must not give such scores"), spread


class WeightedSum:
    """sum_k w_k r_k over scorers of different aims; a negative weight makes what a scorer measures a cost."""

    def __init__(self, parts: Sequence[tuple[Scorer, float]]) -> None:
        self.parts = parts
        self.version = _joint_version([f"{scorer.version}@{weight!r}" for scorer, weight in parts])

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """The weighted sum of the parts' scores."""
        return self.score_with_spread(prompts, responses)[0]

    def score_with_spread(
        self, prompts: Sequence[Prompt], responses: Sequence[Response]
    ) -> tuple[list[float], list[float] | None]:
        """Weighted sums; spreads sqrt(sum_k (w_k spread_k)^2), ensembles taken as independent, or None without any."""
        total, variance, has_spread = np.zeros(len(prompts)), np.zeros(len(prompts)), False
        for scorer, weight in self.parts:
            scores, spread = scorer.score_with_spread(prompts, responses)
            with np.errstate(over="ignore"):  # Infinity is refused below, with its prompt.
                total += weight * np.array(scores)
                if spread is not None:
                    has_spread = True
                    variance += (weight * np.array(spread)) ** 2
        sums = finite_scores(total.tolist(), prompts, path=None, remedy="give smaller weights")
        return sums, np.sqrt(variance).tolist() if has_spread else None


def _joint_version(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
