"""What a win rate would be if both responses were of one length: length-controlled win rates.

    logit P(model wins) = theta + phi tanh(dlen / std(dlen)) + psi gamma

dlen = characters of the baseline's response minus those of the model's, so phi < 0 says that the longer one wins; gamma
is how difficult the instruction is, where that is known. The answer is the mean over instructions of
sigmoid(theta + psi gamma). phi and psi are penalised (ridge), theta is not: nothing draws the answer towards one half.

Source: Dubois et al. (2024), "Length-controlled AlpacaEval: a simple way to debias automatic evaluators", sections 3
and 4. Differences: the published code penalises the absolute values of all coefficients, theta among them, and adds
down-weighted judgments of two gamed baselines, which other data does not have.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from prefloop.statistics.intervals import wilson

Floats = NDArray[np.float64]

PENALTIES = tuple(float(10.0**power) for power in np.arange(-6, 0.5, 0.5))
"""What cross-validation chooses from: half the factor of phi^2 + psi^2, beside the mean log-loss of a row."""
NUM_FOLDS = 5
NEWTON_STEPS = 100
LARGEST_STEP = 4.0
"""Longest Newton step in any coefficient; only separable rows ever need more."""
EXTREME = 30.0
"""theta is cut off at this: a win rate of 1 or 0 to all digits that are shown."""


@dataclass(frozen=True)
class LengthControl:
    """A length-controlled win rate, from 0 to 1."""

    win_rate: float
    interval: tuple[float, float]
    """95 %, bootstrap over instructions; (0, 1) with fewer than two instructions."""
    theta: float
    phi: float | None
    """None where the lengths tell nothing: the differences of all rows are equal."""
    psi: float | None
    """None without difficulties, or where all are equal."""
    penalty: float
    separable: bool
    """Lengths (and difficulties) order all rows without an error: the fit says little, whatever the interval says."""


def length_controlled(
    wins: ArrayLike,
    length_difference: ArrayLike,
    instructions: Sequence[Hashable],
    difficulty: ArrayLike | None = None,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> LengthControl:
    """The length-controlled win rate of a model from judged rows.

    Args:
        wins: [n] in [0, 1]: how far the model's response is preferred; 1/2 is a tie.
        length_difference: [n] characters of the baseline's response minus those of the model's.
        instructions: [n] which instruction each row answers; cross-validation and bootstrap keep them whole, and each
            counts once in the mean.
        difficulty: [n] difficulty of each row's instruction, if known.
    """
    p, dlen = np.asarray(wins, dtype=np.float64), np.asarray(length_difference, dtype=np.float64)
    assert p.shape == dlen.shape and p.ndim == 1 and len(instructions) == len(p) > 0, (p.shape, dlen.shape)
    assert p.min() >= 0 and p.max() <= 1, (p.min(), p.max())
    gamma = None if difficulty is None else np.asarray(difficulty, dtype=np.float64)
    columns = [np.ones_like(p)]
    has_length = len(p) > 1 and bool(dlen.max() > dlen.min())
    if has_length:
        # The standard deviation over n - 1, as in the published code.
        columns.append(np.tanh(dlen / dlen.std(ddof=1)))
    centre, unit = 0.0, 1.0
    has_difficulty = gamma is not None and bool(gamma.max() > gamma.min())
    if gamma is not None and has_difficulty:
        # Around its mean and in its own spread, so that the penalty means the same in every unit.
        centre, unit = float(gamma.mean()), float(gamma.std())
        columns.append((gamma - centre) / unit)
    rows = _Rows(np.stack(columns, axis=1), p, _numbers(instructions), has_length)
    penalty = _chosen_penalty(rows, seed)
    coefficients = rows.fit(np.ones_like(p), penalty)
    psi = float(coefficients[-1]) / unit if has_difficulty else None
    return LengthControl(
        win_rate=rows.win_rate(coefficients, np.ones_like(p)),
        interval=_interval(rows, penalty, coefficients, num_resamples=num_resamples, seed=seed),
        theta=float(coefficients[0]) - (psi or 0.0) * centre,
        phi=float(coefficients[1]) if has_length else None,
        psi=psi,
        penalty=penalty,
        separable=_separable(rows.x, p, coefficients),
    )


@dataclass(frozen=True, eq=False)
class _Rows:
    """Judged rows as a regression sees them."""

    x: Floats
    """[n, k]: ones, then the length term if there is one, then the difficulty if there is one."""
    p: Floats
    """[n] in [0, 1]."""
    place: NDArray[np.int64]
    """[n] the number of each row's instruction."""
    has_length: bool

    @property
    def num_instructions(self) -> int:
        return int(self.place.max()) + 1

    def fit(self, weights: Floats, penalty: float, start: Floats | None = None) -> Floats:
        """[k] coefficients of the rows, weighted."""
        return fit_logistic(self.x, self.p, weights, penalty, start)

    def win_rate(self, coefficients: Floats, weights: Floats) -> float:
        """Mean over instructions of what the fit says at equal lengths; weights are the same inside an instruction."""
        logits = self.x @ coefficients
        if self.has_length:
            logits = logits - self.x[:, 1] * coefficients[1]
        share = weights / np.bincount(self.place)[self.place]
        return float(share @ special.expit(logits) / share.sum())


def fit_logistic(x: Floats, p: Floats, weights: Floats, penalty: float, start: Floats | None = None) -> Floats:
    """[k] coefficients that minimise the weighted mean log-loss + penalty / 2 x (sum of squares but for the first).

    x [n, k] with ones in its first column, p [n] in [0, 1], weights [n] at least 0. Newton's method; its steps are cut
    off, and so is the first coefficient where no finite one is best.
    """
    share = weights / weights.sum()
    punish = np.full(x.shape[1], penalty)
    punish[0] = 0.0
    found = np.zeros(x.shape[1]) if start is None else start.copy()
    for _ in range(NEWTON_STEPS):
        q = special.expit(x @ found)
        slope = x.T @ (share * (q - p)) + punish * found
        curve = (x * (share * q * (1 - q))[:, None]).T @ x + np.diag(punish)
        step = np.linalg.lstsq(curve, slope, rcond=1e-15)[0]
        step *= min(1.0, LARGEST_STEP / max(1e-300, float(np.abs(step).max())))
        found = found - step
        found[0] = np.clip(found[0], -EXTREME, EXTREME)
        if np.abs(step).max() < 1e-9 or abs(found[0]) == EXTREME:
            break
    return found


def _chosen_penalty(rows: _Rows, seed: int) -> float:
    """The penalty with the least log-loss on instructions that were not fitted; the smallest where nothing tells."""
    number = rows.num_instructions
    if rows.x.shape[1] == 1 or number < 2:
        return PENALTIES[0]
    folds = (np.random.default_rng(seed).permutation(number) % min(NUM_FOLDS, number))[rows.place]
    losses = np.zeros(len(PENALTIES))
    for fold in range(int(folds.max()) + 1):
        inside, outside = (folds != fold).astype(np.float64), folds == fold
        found = None
        for index, penalty in reversed(list(enumerate(PENALTIES))):
            found = rows.fit(inside, penalty, found)
            logits = rows.x[outside] @ found
            losses[index] += float((np.logaddexp(0.0, logits) - rows.p[outside] * logits).sum())
    return PENALTIES[int(losses.argmin())]


def _interval(rows: _Rows, penalty: float, start: Floats, *, num_resamples: int, seed: int) -> tuple[float, float]:
    """Percentile interval over instructions drawn with replacement; each resample is fitted anew.

    Where every row says the same, resamples tell nothing: then Wilson's interval for as many instructions.
    """
    number = rows.num_instructions
    if number < 2:
        return 0.0, 1.0
    if rows.p.min() == rows.p.max():
        return wilson(float(rows.p[0]) * number, number)
    generator = np.random.default_rng(seed)
    rates = np.empty(num_resamples)
    for index in range(num_resamples):
        times = generator.multinomial(number, np.full(number, 1 / number)).astype(np.float64)[rows.place]
        rates[index] = rows.win_rate(rows.fit(times, penalty, start), times)
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)


def _separable(x: Floats, p: Floats, coefficients: Floats) -> bool:
    """Whether the fit has no row on the wrong side, all rows being whole wins or losses."""
    whole = (p == 0) | (p == 1)
    return bool(whole.all()) and bool(((x @ coefficients > 0) == (p == 1)).all())


def _numbers(names: Sequence[Hashable]) -> NDArray[np.int64]:
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)
