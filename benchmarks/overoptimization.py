"""`python -m benchmarks.overoptimization`: what `evaluate overoptimization` says where the truth is known.

gold is N(0, 1) and proxy = gold + error, raw: Gaussian, Student t with 5, 3 and 2 degrees of freedom, a bounded error
that depends on gold, and a proxy that has nothing to do with gold (its curve is flat). For the three Student errors the
KL at which best-of-n is worth most is known from numerical integration. Reported over seeds: the peak that was found,
the alarms, the tail index; and the exact KL of best-of-n over few answers beside the usual formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.options import options, publish, table
from prefloop.statistics.best_of_n import best_of_n_kl, kl_bound, rank_weights, sizes_up_to
from prefloop.statistics.overoptimization import fit_law, paired_drop
from prefloop.statistics.tails import hill

TRUE_PEAKS: Mapping[str, float] = {"t5": 3.19, "t3": 2.14, "t2": 1.57}
"""KL of the best n for proxy = N(0, 1) + Student error, in nats."""
TURNS_OVER = ("t5", "t3", "t2", "bounded, depends on gold")
ERRORS = ("Gaussian", "t5", "t3", "t2", "bounded, depends on gold", "unrelated")
ANSWERS = (4, 10)
SIZES = (2, 5, 20, 100)


def errors_of(name: str, gold: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """What the proxy adds to gold."""
    match name:
        case "Gaussian":
            return generator.standard_normal(gold.shape)
        case "bounded, depends on gold":
            # A trick that pays 5, found in two of a hundred bad answers.
            return 5.0 * ((gold < 0) & (generator.random(gold.shape) < 0.02))
        case "unrelated":
            return generator.standard_normal(gold.shape) - gold
        case _:
            return generator.standard_t(float(name.removeprefix("t")), gold.shape)


def measured(name: str, seed: int, *, prompts: int, samples: int) -> dict[str, Any]:
    """Peak, alarm, laws and tail of one simulated set of samples."""
    generator = np.random.default_rng(seed)
    sizes = sizes_up_to(samples // 10)
    weights, kl = rank_weights(samples, sizes), kl_bound(sizes)
    gold = generator.standard_normal((prompts, samples))
    error = errors_of(name, gold, generator)
    order = np.argsort(gold + error, axis=1)
    curves = np.take_along_axis(gold, order, axis=1) @ weights.T
    curve, drop = curves.mean(axis=0), paired_drop(curves, seed=seed)
    fit = fit_law(kl, curve, "best_of_n", start=float(curve[0]))
    assert drop is not None and fit is not None
    return {
        "error": name,
        "seed": seed,
        "empirical_peak_kl": float(kl[curve.argmax()]),
        "fitted_peak_kl": fit.peak_kl,
        "r_squared": fit.r_squared,
        "overoptimized": drop.overoptimized,
        "drop": drop.value,
        "tail_index": hill(error.ravel() - error.mean()),
    }


def exact_uniform(answers: int, n: int) -> float:
    """KL of the best of n among answers of equal probability: sum_i q_i log(k q_i)."""
    mass = [(i / answers) ** n - ((i - 1) / answers) ** n for i in range(1, answers + 1)]
    return sum(q * math.log(answers * q) for q in mass if q > 0)


def uniform(answers: int, n: int) -> dict[str, Any]:
    """The exact KL, what 200 prompts of 500 samples each say, and the usual formula."""
    generator = np.random.default_rng(answers)
    found = [best_of_n_kl(generator.integers(answers, size=500), [n])[0] for _ in range(200)]
    return {
        "answers": answers,
        "n": n,
        "exact": exact_uniform(answers, n),
        "estimated": float(np.mean(found)),
        "bound": float(kl_bound([n])[0]),
    }


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = options("overoptimization", words, seeds=range(20))
    prompts, samples = (20, 200) if flags.quick else (200, 1000)
    runs = [measured(name, seed, prompts=prompts, samples=samples) for name in ERRORS for seed in flags.seeds]
    policies = [uniform(answers, n) for answers in ANSWERS for n in SIZES]
    rows = [_row(name, [run for run in runs if run["error"] == name]) for name in ERRORS]
    header = ["error", "true peak", "peak found", "fitted peak", "alarms", "tail index"]
    kl_rows = [
        [str(each["answers"]), str(each["n"]), *(f"{each[key]:.3f}" for key in ("exact", "estimated", "bound"))]
        for each in policies
    ]
    answer = {"prompts": prompts, "samples": samples, "runs": runs, "uniform": policies}
    publish(flags, answer, [table(header, rows), table(["answers", "n", "exact KL", "estimated", "formula"], kl_rows)])


def _row(name: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    peaks = [run["empirical_peak_kl"] for run in runs]
    fitted = [run["fitted_peak_kl"] for run in runs if run["fitted_peak_kl"] is not None]
    alarms = sum(run["overoptimized"] for run in runs)
    return [
        name,
        f"{TRUE_PEAKS[name]:.2f}" if name in TRUE_PEAKS else "?" if name in TURNS_OVER else "none",
        f"{np.mean(peaks):.2f} ({min(peaks):.2f} to {max(peaks):.2f})",
        f"{np.mean(fitted):.2f}" if len(fitted) == len(runs) else "none",
        f"{alarms} of {len(runs)}",
        f"{np.mean([run['tail_index'] for run in runs if run['tail_index'] is not None] or [math.nan]):.1f}",
    ]


if __name__ == "__main__":
    main()
