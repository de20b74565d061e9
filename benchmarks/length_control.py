"""`python -m benchmarks.length_control`: is a known win rate recovered from judges who like length?

The model writes 250 characters more than the baseline, give or take 400. Each judge has a win rate without its bias,
which is what length control should find. One judge is the model that is fitted, one has difficulties that it tells;
the others are of another kind: a bias that does not saturate together with difficulties that nobody tells, a bias in
the ratio of lengths, and a normal link. Reported over seeds: the errors, and how many intervals cover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from benchmarks.options import options, publish, table
from prefloop.statistics.length_control import length_controlled

JUDGES = (
    "as fitted",
    "as fitted, with difficulties",
    "unbounded, hidden difficulties",
    "ratio of lengths",
    "normal link",
)


def judged(judge: str, seed: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, float]:
    """Wins, length differences, difficulties if they are told, and the win rate without the bias."""
    generator = np.random.default_rng(seed)
    dlen, gamma = np.round(generator.normal(-250, 400, number)), generator.standard_normal(number)
    told = None
    match judge:
        case "as fitted":
            chance, fair = special.expit(0.4 - 0.8 * np.tanh(dlen / dlen.std(ddof=1))), special.expit(0.4)
        case "as fitted, with difficulties":
            chance = special.expit(0.4 - 0.8 * np.tanh(dlen / dlen.std(ddof=1)) + 0.7 * gamma)
            fair, told = special.expit(0.4 + 0.7 * gamma).mean(), gamma
        case "unbounded, hidden difficulties":
            chance = special.expit(0.4 + 0.5 * gamma - dlen / 600)
            fair = special.expit(0.4 + 0.5 * gamma).mean()
        case "ratio of lengths":
            first, second = np.exp(generator.normal(6.3, 0.5, number)), np.exp(generator.normal(6.7, 0.5, number))
            dlen = np.round(first) - np.round(second)
            chance, fair = special.expit(0.4 - (np.log(first) - np.log(second))), special.expit(0.4)
        case _:
            chance, fair = special.ndtr(0.25 - dlen / 700), special.ndtr(0.25)
    return (generator.random(number) < chance).astype(float), dlen, told, 100 * float(fair)


def measured(judge: str, seed: int, *, number: int, num_resamples: int) -> dict[str, Any]:
    """One simulated file of judged rows."""
    wins, dlen, told, fair = judged(judge, seed, number)
    found = length_controlled(wins, dlen, range(number), told, num_resamples=num_resamples, seed=seed)
    low, high = (100 * bound for bound in found.interval)
    return {
        "judge": judge,
        "seed": seed,
        "fair": fair,
        "win_rate": 100 * float(wins.mean()),
        "length_controlled_win_rate": 100 * found.win_rate,
        "interval": [low, high],
        "covers": low <= fair <= high,
    }


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = options("length_control", words, seeds=range(20))
    number, num_resamples = (200, 20) if flags.quick else (2000, 1000)
    runs = [
        measured(judge, seed, number=number, num_resamples=num_resamples) for judge in JUDGES for seed in flags.seeds
    ]
    header = ["judge", "bias of the win rate", "mean error", "mean absolute error", "intervals that cover"]
    rows = [_row(judge, [run for run in runs if run["judge"] == judge]) for judge in JUDGES]
    publish(flags, {"num_rows": number, "runs": runs}, [table(header, rows)])


def _row(judge: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    raw = [run["win_rate"] - run["fair"] for run in runs]
    errors = [run["length_controlled_win_rate"] - run["fair"] for run in runs]
    return [
        judge,
        f"{np.mean(raw):+.1f}",
        f"{np.mean(errors):+.2f}",
        f"{np.mean(np.abs(errors)):.2f}",
        f"{sum(run['covers'] for run in runs)} of {len(runs)}",
    ]


if __name__ == "__main__":
    main()
