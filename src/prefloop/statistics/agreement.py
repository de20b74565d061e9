"""Do the people who label agree? Krippendorff's alpha, Cohen's kappa, and what agreement says of label noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Level = Literal["nominal", "ordinal", "interval"]


@dataclass(frozen=True)
class Agreement:
    """A coefficient of agreement: 1 perfect, 0 as by chance, below 0 worse than chance; nan where it is undefined."""

    value: float
    interval: tuple[float, float]
    """95 % percentile bootstrap over the units."""
    num_units: int
    """Units with at least two ratings: only these tell."""


def krippendorff_alpha(
    units: Sequence[Mapping[Any, float]],
    *,
    level: Level = "nominal",
    num_resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Krippendorff's alpha = 1 - observed / expected disagreement, any number of annotators, ratings may be missing.

    Args:
        units: for each unit what each annotator said of it; categories are numbers (ordered, for "ordinal").
        level: the distance of two categories: 0 or 1; by the ranks between them; the squared difference.

    nan where no unit has two ratings, or where all ratings are the same (nothing could have been told apart).
    Units that say the same and have as many ratings are resampled together: time depends on how many kinds there are.

    Source: Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), sections C to E; Content Analysis (2004).
    """
    rated = [list(unit.values()) for unit in units if len(unit) >= 2]
    categories = sorted({value for unit in rated for value in unit})
    place = {value: index for index, value in enumerate(categories)}
    kinds: dict[tuple[int, ...], int] = {}
    for unit in rated:
        counts = [0] * len(categories)
        for value in unit:
            counts[place[value]] += 1
        kinds[tuple(counts)] = kinds.get(tuple(counts), 0) + 1
    if len(categories) < 2:
        return Agreement(math.nan, (math.nan, math.nan), len(rated))
    tables = np.array([_coincidences(np.array(kind)) for kind in kinds])
    values = np.array(categories, dtype=np.float64)
    return _with_bootstrap(
        np.array(list(kinds.values())),
        lambda weights: _alpha(np.tensordot(weights, tables, axes=1), values, level),
        num_units=len(rated),
        num_resamples=num_resamples,
        seed=seed,
    )


def cohen_kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], *, num_resamples: int = 1000, seed: int = 0
) -> Agreement:
    """Cohen's kappa of two annotators who both judged the units [n]: (p_o - p_e) / (1 - p_e), nominal categories.

    nan where both always say the same one thing (p_e = 1). Source: Cohen (1960), "A coefficient of agreement for
    nominal scales".
    """
    assert len(first) == len(second), (len(first), len(second))
    categories = list(dict.fromkeys([*first, *second]))
    place = {value: index for index, value in enumerate(categories)}
    table = np.zeros((len(categories), len(categories)))
    for a, b in zip(first, second, strict=True):
        table[place[a], place[b]] += 1
    if not table.size:
        return Agreement(math.nan, (math.nan, math.nan), 0)
    return _with_bootstrap(
        table.ravel().astype(np.int64),
        lambda weights: _kappa(weights.reshape(table.shape)),
        num_units=len(first),
        num_resamples=num_resamples,
        seed=seed,
    )


def _coincidences(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What one unit adds to the coincidence matrix: ordered pairs of its ratings / (ratings - 1)."""
    table: NDArray[np.float64] = (np.outer(counts, counts) - np.diag(counts)) / (counts.sum() - 1)
    return table


def _alpha(coincidences: NDArray[np.float64], values: NDArray[np.float64], level: Level) -> float:
    totals = coincidences.sum(axis=1)
    distance = _distances(totals, values, level)
    n = float(totals.sum())
    expected = float((np.outer(totals, totals) * distance).sum()) / (n - 1) if n > 1 else 0.0
    observed = float((coincidences * distance).sum())
    return 1 - observed / expected if expected > 0 else math.nan


def _distances(totals: NDArray[np.float64], values: NDArray[np.float64], level: Level) -> NDArray[np.float64]:
    """Squared differences of categories. Ordinal: ratings between the two, their own counted half."""
    match level:
        case "nominal":
            distance: NDArray[np.float64] = 1.0 - np.eye(len(values))
        case "ordinal":
            middle = np.cumsum(totals) - totals / 2
            distance = (middle[:, None] - middle[None, :]) ** 2
        case "interval":
            distance = (values[:, None] - values[None, :]) ** 2
    return distance


def _kappa(table: NDArray[np.float64]) -> float:
    shares = table / table.sum()
    observed, expected = float(np.trace(shares)), float(shares.sum(axis=1) @ shares.sum(axis=0))
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan


def _with_bootstrap(
    counts: NDArray[np.int64],
    coefficient: Callable[[NDArray[np.float64]], float],
    *,
    num_units: int,
    num_resamples: int,
    seed: int,
) -> Agreement:
    """The coefficient of units of which `counts` [kinds] are of each kind, and its interval over resampled units."""
    drawn = np.random.default_rng(seed).multinomial(num_units, counts / counts.sum(), size=num_resamples)
    resampled = np.array([coefficient(row.astype(np.float64)) for row in drawn])
    known = resampled[np.isfinite(resampled)]
    low, high = np.quantile(known, [0.025, 0.975]) if known.size else (math.nan, math.nan)
    return Agreement(coefficient(counts.astype(np.float64)), (float(low), float(high)), num_units)
