"""From what two models answered to evidence: rates, changes, intervals, paired tests. No model is run here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from prefloop.evaluate.judge import Duel, Judged
from prefloop.evaluate.records import Pairing
from prefloop.evaluate.suite import Suite
from prefloop.evaluate.winrate import JudgedRow, win_rates
from prefloop.signals.measures import SIGNALS
from prefloop.statistics.clustered import permutation_test
from prefloop.statistics.intervals import cluster_bootstrap, wilson
from prefloop.statistics.overoptimization import bootstrap_curves
from prefloop.statistics.pairwise import mcnemar, paired_change
from prefloop.types import Evaluation, InputError

CHANGE = "change"
"""Last part of the name of a difference: candidate minus incumbent (of perplexity: candidate over incumbent)."""


@dataclass(frozen=True)
class Measure:
    """A piece of evidence with what only its reader needs."""

    evaluation: Evaluation
    p_value: float | None = None
    """Of no change, two-sided, paired; not corrected for the number of measures."""


@dataclass(frozen=True)
class Evidence:
    """What is needed to make measures: whose they are, and how intervals are made."""

    pairing: Pairing
    num_resamples: int
    seed: int

    def measure(
        self,
        name: str,
        sha256: str,
        value: float,
        interval: tuple[float, float] | None,
        n: int,
        p_value: float | None = None,
    ) -> Measure:
        """A measure of the two models; an interval that is infinite is None."""
        known = interval is not None and all(map(math.isfinite, interval))
        return Measure(self.pairing.evaluation(name, sha256, value, interval if known else None, n), p_value)

    def of_win_rate(self, judged: Judged, duels: Sequence[Duel], sha256: str) -> tuple[list[Measure], dict[str, Any]]:
        """Win rate and length-controlled win rate in per cent, and the whole answer of `evaluate winrate`."""
        rows = [
            JudgedRow(duel.prompt.prompt_id, won, float(len(duel.incumbent.text) - len(duel.candidate.text)))
            for duel, won in zip(duels, judged.wins, strict=True)
        ]
        answer = win_rates(rows, num_resamples=self.num_resamples, seed=self.seed)
        measures = [
            self.measure("win_rate", sha256, answer["win_rate"], tuple(answer["win_rate_interval"]), len(duels)),
            self.measure(
                "length_controlled_win_rate",
                sha256,
                answer["length_controlled_win_rate"],
                tuple(answer["length_controlled_win_rate_interval"]),
                len(duels),
            ),
        ]
        return measures, answer

    def of_suite(self, suite: Suite, candidate: Sequence[str], incumbent: Sequence[str]) -> list[Measure]:
        """The share of a suite that the candidate passes, and its change: exact McNemar test, Agresti and Min's
        interval."""
        passed, before = (
            np.array([item.passes(text) for item, text in zip(suite.items, texts, strict=True)], dtype=bool)
            for texts in (candidate, incumbent)
        )
        n = len(passed)
        test = mcnemar(passed, before)
        return [
            self.measure(f"suite/{suite.name}", suite.sha256, float(passed.mean()), wilson(int(passed.sum()), n), n),
            self.measure(
                f"suite/{suite.name}/{CHANGE}",
                suite.sha256,
                test.difference,
                paired_change(passed, before),
                n,
                test.p_value,
            ),
        ]

    def of_values(self, name: str, sha256: str, candidate: ArrayLike, incumbent: ArrayLike) -> list[Measure]:
        """The mean of a number that each response has, and its change: bootstrap over prompts, sign flips."""
        values, before = np.asarray(candidate, dtype=np.float64), np.asarray(incumbent, dtype=np.float64)
        own = self.measure(name, sha256, float(values.mean()), self._bootstrapped(values), len(values))
        return [own, self.of_margins(f"{name}/{CHANGE}", sha256, values - before)]

    def of_margins(self, name: str, sha256: str, margins: ArrayLike) -> Measure:
        """The mean of what the candidate has more than the incumbent, one number a prompt."""
        away = np.asarray(margins, dtype=np.float64)
        p_value = permutation_test(away, seed=self.seed)
        return self.measure(name, sha256, float(away.mean()), self._bootstrapped(away), len(away), p_value)

    def _bootstrapped(self, values: np.ndarray) -> tuple[float, float]:
        return cluster_bootstrap(values, range(len(values)), num_resamples=self.num_resamples, seed=self.seed)

    def of_responses(self, sha256: str, candidate: Sequence[str], incumbent: Sequence[str]) -> list[Measure]:
        """Repetition and length of the responses to the prompts."""
        found: list[Measure] = []
        for name in ("repetition", "length"):
            signal = SIGNALS[name]
            found += self.of_values(
                name, sha256, [signal(text) or 0.0 for text in candidate], [signal(text) or 0.0 for text in incumbent]
            )
        return found

    def of_texts(
        self, name: str, sha256: str, candidate: ArrayLike, incumbent: ArrayLike, tokens: ArrayLike
    ) -> list[Measure]:
        """Perplexity of the candidate on texts, and its ratio to the incumbent's.

        candidate, incumbent: [n] nats of each text; tokens [n]: how many the incumbent's tokenizer makes of it, for
        both models, so that tokenizers of another grain compare. Texts of a single token are left out. Raises
        InputError where none is left.
        """
        columns = np.stack([np.asarray(column, dtype=np.float64) for column in (candidate, incumbent, tokens)], axis=1)
        columns = columns[columns[:, 2] > 0]
        if not len(columns):
            raise InputError("no text of this file has two tokens", path=name, field="texts")
        resampled = bootstrap_curves(columns, num_resamples=self.num_resamples, seed=self.seed)

        def of(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.exp(sums[..., 0] / sums[..., 2]), np.exp((sums[..., 0] - sums[..., 1]) / sums[..., 2])

        n = len(columns)
        own, ratio = (float(each) for each in of(columns.sum(axis=0)))
        bounds = [tuple(float(b) for b in np.quantile(each, [0.025, 0.975])) for each in of(resampled)]
        intervals = [(low, high) if n > 1 else None for low, high in bounds]
        p_value = permutation_test(columns[:, 0] - columns[:, 1], seed=self.seed)
        return [
            self.measure(f"perplexity/{name}", sha256, own, intervals[0], n),
            self.measure(f"perplexity/{name}/{CHANGE}", sha256, ratio, intervals[1], n, p_value),
        ]
