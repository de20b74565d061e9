"""The command `evaluate winrate`, and the win rates of judged rows for whoever has some."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prefloop.data.rows import Row, describe
from prefloop.evaluate.config import WinrateConfig
from prefloop.evaluate.rows import number, read_rows, warn
from prefloop.statistics.intervals import mean_estimate, wilson
from prefloop.statistics.length_control import length_controlled
from prefloop.types import InputError


@dataclass(frozen=True)
class JudgedRow:
    """A model's response beside the baseline's, judged."""

    instruction: str
    wins: float
    """0 the baseline's is better, 1 the model's; between them a softer verdict, 1/2 a tie."""
    length_difference: float
    """Characters of the baseline's response minus those of the model's."""
    difficulty: float | None = None


def judged_row(values: Mapping[str, Any]) -> JudgedRow:
    """A row of the file. Raises InputError with the field."""
    instruction = values.get("instruction")
    if instruction is None:
        raise InputError("is missing", field="instruction", remedy="give what both responses answer")
    preference = number(values, "preference", low=1, high=2)
    texts = [values.get(name) for name in ("output_1", "output_2")]
    if any(text is not None for text in texts):
        for name, text in zip(("output_1", "output_2"), texts, strict=True):
            if not isinstance(text, str):
                problem = "is missing" if name not in values else f"is {describe(text)}"
                raise InputError(problem, field=name, remedy="give both responses as text, output_1 the baseline's")
        first, second = (float(len(str(text))) for text in texts)
    elif "length_1" in values or "length_2" in values:
        first, second = (number(values, name, low=0) for name in ("length_1", "length_2"))
    else:
        raise InputError("is missing", field="output_1", remedy="give output_1 and output_2, or length_1 and length_2")
    return JudgedRow(
        instruction if isinstance(instruction, str) else json.dumps(instruction, sort_keys=True, default=str),
        preference - 1,
        first - second,
        None if values.get("difficulty") is None else number(values, "difficulty"),
    )


def run(config: WinrateConfig) -> dict[str, Any]:
    """Win rate and length-controlled win rate of a file of judged rows, in per cent."""

    def parse(row: Row) -> JudgedRow:
        return judged_row(row.values)

    rows, tally = read_rows(config.file, parse, skip_bad=config.skip_bad)
    return {**win_rates(rows, num_resamples=config.num_resamples, seed=config.seed), "num_bad": len(tally.bad)}


def win_rates(rows: Sequence[JudgedRow], *, num_resamples: int, seed: int) -> dict[str, Any]:
    """The answer of `evaluate winrate`, rates in per cent. What makes it doubtful is said, and stands in `warnings`."""
    warnings: list[str] = []
    wins = np.array([row.wins for row in rows])
    names = [row.instruction for row in rows]
    rate, error = float(wins.mean()), _standard_error(wins, names)
    num_instructions = len(set(names))
    given = [row.difficulty for row in rows if row.difficulty is not None]
    if given and len(given) < len(rows):
        warn(warnings, f"{len(rows) - len(given)} of {len(rows)} rows have no difficulty: it is not used")
    controlled = length_controlled(
        wins,
        [row.length_difference for row in rows],
        names,
        given if len(given) == len(rows) else None,
        num_resamples=num_resamples,
        seed=seed,
    )
    if num_instructions == 1 and len(rows) > 1:
        warn(warnings, "all rows have one instruction: nothing is known of how far the rates would hold for others")
    if controlled.phi is None:
        warn(warnings, "all rows differ in length by the same: length cannot be controlled")
    if given and controlled.psi is None and len(given) == len(rows):
        warn(warnings, "all difficulties are equal: they are not used")
    if controlled.separable:
        warn(warnings, "lengths predict every verdict without an error: the length-controlled rate is a guess")
    return {
        "win_rate": 100 * rate,
        "standard_error": None if math.isinf(error) else 100 * error,
        "win_rate_interval": [100 * bound for bound in rate_interval(rate, error, num_instructions)],
        "length_controlled_win_rate": 100 * controlled.win_rate,
        "length_controlled_win_rate_interval": [100 * bound for bound in controlled.interval],
        "length_coefficient": controlled.phi,
        "difficulty_used": controlled.psi is not None,
        "num_rows": len(rows),
        "num_instructions": num_instructions,
        "warnings": warnings,
    }


def rate_interval(rate: float, error: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a rate with this standard error, over n instructions: it has a width at 0 and 1 too."""
    if math.isinf(error):
        return 0.0, 1.0
    effective = rate * (1 - rate) / error**2 if error > 0 and 0 < rate < 1 else float(n)
    return wilson(rate * effective, effective)


def _standard_error(wins: np.ndarray, instructions: Sequence[str]) -> float:
    """Standard error of the mean of `wins`, rows of one instruction taken as one: sqrt of the variance of a ratio of
    cluster totals (Cochran 1977, equation 2.39) x c / (c - 1). For single rows that of a mean; inf for one cluster."""
    number: dict[str, int] = {}
    place = np.array([number.setdefault(name, len(number)) for name in instructions])
    if len(number) == len(wins):
        return mean_estimate(wins).standard_error
    if len(number) == 1:
        return math.inf
    away = np.bincount(place, weights=wins - wins.mean())
    clusters = len(number)
    return math.sqrt(float((away**2).sum()) * clusters / (clusters - 1)) / len(wins)
