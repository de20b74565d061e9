"""`python -m benchmarks.kl_budget`: what `evaluate budget` finds where the law is known, and what its choice costs.

Runs follow the law of Gao et al. (2022), gain = d (alpha - beta log d), or a ramp that breaks off: it rises with d to
the peak and falls three times as steeply, which is what no law of theirs does. The gain at the peak is 1 in both. Each
run has a curve of its own (its height and its peak vary by a tenth), starts at another height, and is evaluated 13
times with noise. Runs go to four times the KL of the peak, or stop at eight tenths of it. Beside the rule: the highest
point of the curve, and the peak of the fitted law (within what was seen, as far as there is one).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.options import options, publish, table
from prefloop.statistics.kl_budget import choose, curves_of, fitted

PEAK = 4.0
"""KL of the true peak of a run that does not vary, in nats."""
LAWS = ("law of Gao et al.", "ramp that breaks off")
REACHES = (4.0, 0.8)
"""How far runs go, in KLs of the peak."""
NOISES = (0.05, 0.15)
"""Standard deviation of an evaluation, in gains at the peak."""
NUM_RUNS = (1, 3, 5)
VARIES = 0.1
EVALUATIONS = 13
DEALT = 4


@dataclass(frozen=True)
class Setting:
    """One kind of simulated experiment."""

    law: str
    num_runs: int
    reach: float
    noise: float


def gain(law: str, kl: np.ndarray | float, stretch: float = 1.0) -> np.ndarray:
    """The true gain; `stretch` moves the peak."""
    d = np.sqrt(np.asarray(kl, dtype=np.float64)) / stretch / math.sqrt(PEAK)
    if law == LAWS[1]:
        return np.minimum(d, 1 - 3 * (d - 1))
    # With beta = 1 and alpha = 1 the peak lies at d = 1 and is worth 1.
    return d * (1 - np.log(np.maximum(d, 1e-300)))


def simulated(setting: Setting, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """KL, held-out score and unit of each evaluation; a single run's are dealt as the command deals them."""
    generator = np.random.default_rng(seed)
    along = np.linspace(0, 1, EVALUATIONS) ** 1.5
    kls, scores, units = [], [], []
    for run in range(setting.num_runs):
        height, stretch = 1 + VARIES * generator.standard_normal(), math.exp(VARIES * generator.standard_normal())
        kl = PEAK * setting.reach * along * np.exp(0.1 * generator.standard_normal(EVALUATIONS))
        noise = setting.noise * generator.standard_normal(EVALUATIONS)
        kls.append(kl)
        scores.append(height * gain(setting.law, kl, stretch) + noise + setting.noise * generator.standard_normal())
        units.append(np.arange(EVALUATIONS) % DEALT if setting.num_runs == 1 else np.full(EVALUATIONS, run))
    return np.concatenate(kls), np.concatenate(scores), np.concatenate(units)


def measured(setting: Setting, seed: int) -> dict[str, Any]:
    """What the command would say, and what each way of choosing costs of the true gain that was in reach."""
    kl, scores, units = simulated(setting, seed)
    curves = curves_of(kl, scores, units)
    assert curves is not None
    choice, (fit, (low, high)) = choose(curves), fitted(curves)
    top = float(curves.kl[-1])
    law_peak = top if fit is None or fit.peak_kl is None else min(fit.peak_kl, top)
    most = float(gain(setting.law, min(PEAK, top)))
    end = curves.edges[choice.possible[1] + 1] if choice.reached_peak else math.inf
    return {
        "budget": float(curves.kl[choice.budget]),
        "reached_peak": choice.reached_peak,
        "covered": bool(curves.edges[choice.possible[0]] <= PEAK <= end),
        "fit_covered": bool(low <= PEAK <= high),
        "loss": most - float(gain(setting.law, curves.kl[choice.budget])),
        "loss_of_highest": most - float(gain(setting.law, curves.kl[choice.best])),
        "loss_of_law": most - float(gain(setting.law, law_peak)),
    }


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = options("kl_budget", words, seeds=range(200))
    settings = [Setting(*each) for each in itertools.product(LAWS, NUM_RUNS, REACHES, NOISES)]
    if flags.quick:
        settings = settings[::5]
    results = [(setting, [measured(setting, seed) for seed in flags.seeds]) for setting in settings]
    header = [
        *("law", "runs", "reach", "noise", "peak said to be passed", "interval holds the peak", "budget, median"),
        *("loss, rule", "highest point", "fitted law", "the law's interval holds it"),
    ]
    rows = [_row(setting, found) for setting, found in results]
    publish(flags, {"results": [{"setting": each, "found": found} for each, found in results]}, [table(header, rows)])


def _row(setting: Setting, found: Sequence[Mapping[str, Any]]) -> list[str]:
    def mean(key: str) -> float:
        return float(np.mean([each[key] for each in found]))

    return [
        *(setting.law, str(setting.num_runs), f"{setting.reach:g}", f"{setting.noise:g}"),
        *(f"{100 * mean(key):.0f} %" for key in ("reached_peak", "covered")),
        f"{np.median([each['budget'] for each in found]):.1f}",
        *(f"{mean(key):.3f}" for key in ("loss", "loss_of_highest", "loss_of_law")),
        f"{100 * mean('fit_covered'):.0f} %",
    ]


if __name__ == "__main__":
    main()
