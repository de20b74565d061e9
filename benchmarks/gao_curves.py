"""Curves of gold and proxy over KL from what `gao_runs` measured, and the laws of Gao et al. (2022) fitted to them.

Every score counts in its own standard deviations among answers to one prompt, over the pool of the SFT policy's
answers: a Bradley-Terry model says nothing of its scale, nor of how scores of different prompts compare. Gains are over
the SFT policy. Intervals come from prompts drawn with replacement; the KL of a point is taken as known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prefloop.recipes.measure import Measured
from prefloop.statistics.best_of_n import SAMPLES_PER_N, best_of_n_curve, best_of_n_kl, sizes_up_to
from prefloop.statistics.overoptimization import Drop, Fit, Law, bootstrap_curves, fit_law, paired_drop

Floats = NDArray[np.float64]
Way = Literal["best_of_n", "rl"]
Interval = tuple[float, float]

NUM_RESAMPLES = 1000
FIT_KL = 10.0
"""Nats up to which points are fitted. A run that nothing holds back ends in one repeated phrase, hundreds of nats away:
left in, those few points would decide alone, and the law would say nothing of where the peak is."""
PROXY_GAIN = 1.0
"""Standard deviations of proxy at which the two ways are compared: the same optimisation, whatever KL it costs."""


@dataclass(frozen=True)
class Curve:
    """One way of optimising one reward model."""

    way: Way
    places: list[int]
    """[K] n of best-of-n, or steps of a run; the first is the SFT policy."""
    kl: Floats
    """[K] in nats a response."""
    gold: Floats
    """[P, K] gains of true utility, in standard deviations; the first column has mean 0."""
    proxy: Floats
    """[P, K] likewise of the reward model that was optimised."""


@dataclass(frozen=True)
class Fitted:
    """A law on a curve, and what is known of it."""

    alpha: float
    alpha_interval: Interval
    beta: float
    beta_interval: Interval
    r_squared: float
    peak_kl: float | None
    """Where the law is highest; None where it rises for ever."""
    peak_interval: Interval
    """Infinite where resamples of the prompts rise for ever."""
    peak_gold: float | None
    """The gain there."""
    at_end: float
    """The gain that it foretells for the last point, which may lie far beyond the points that it was fitted to."""


@dataclass(frozen=True)
class Findings:
    """What a curve says."""

    laws: dict[Law, Fitted]
    """Both laws, fitted up to `FIT_KL`; the curve's own has the name of its way."""
    highest_at: int
    """The place with the highest mean gold."""
    highest_kl: float
    highest_gold: float
    last_kl: float
    last_gold: float
    last_proxy: float
    at_proxy: tuple[float, float] | None
    """KL and gold where the proxy has gained `PROXY_GAIN`; None where it never does."""
    drop: float | None
    """Gold at the end minus gold at the peak; the peak is chosen on other prompts than it is measured on."""
    drop_interval: Interval | None


def spread(values: Floats) -> float:
    """Standard deviation of values [P, N] among the answers to one prompt."""
    return math.sqrt(float(values.var(axis=1, ddof=1).mean()))


def agreement(proxy: Floats, gold: Floats) -> float:
    """Of pairs of answers to one prompt that differ in gold, the share that the proxy orders alike; a tie is half."""
    half = proxy.shape[1] // 2
    by, truth = (values[:, :half] - values[:, half : 2 * half] for values in (proxy, gold))
    differ = truth != 0
    return float(((np.sign(by) * np.sign(truth) + 1) / 2)[differ].mean())


def best_of_n(proxy: Floats, gold: Floats) -> Curve:
    """Best-of-n by `proxy` [P, N] from the pool; n goes to a tenth of N."""
    sizes = sizes_up_to(proxy.shape[1] // SAMPLES_PER_N)
    kl = np.mean([best_of_n_kl(row, sizes) for row in proxy], axis=0)
    gains = [
        np.stack([best_of_n_curve(by, worth, sizes) for by, worth in zip(proxy, values, strict=True)]) / spread(values)
        for values in (gold, proxy)
    ]
    return Curve("best_of_n", [int(n) for n in sizes], kl, *(each - each[:, 0].mean() for each in gains))


def of_run(points: Mapping[int, Measured], *, gold_unit: float, proxy_unit: float) -> Curve:
    """A policy run, from its checkpoints by step. Gold and proxy are those of all prompts, KL that of one half."""
    steps = sorted(points)
    gains = [
        np.array([[row[key] for row in points[step].rows] for step in steps], dtype=np.float64).T / unit
        for key, unit in (("true_utility", gold_unit), ("proxy", proxy_unit))
    ]
    kl = np.array([points[step].kl for step in steps])
    return Curve("rl", steps, kl, *(each - each[:, 0].mean() for each in gains))


def findings(curve: Curve, *, seed: int = 0) -> Findings:
    """Both laws, the highest point and the drop of a curve."""
    mean = curve.gold.mean(axis=0)
    top = int(mean.argmax())
    drop: Drop | None = paired_drop(curve.gold, seed=seed)
    names: tuple[Law, Law] = ("best_of_n", "rl")
    laws = {name: fitted(curve, name, seed=seed) for name in names}
    return Findings(
        laws={name: law for name, law in laws.items() if law is not None},
        highest_at=curve.places[top],
        highest_kl=float(curve.kl[top]),
        highest_gold=float(mean[top]),
        last_kl=float(curve.kl[-1]),
        last_gold=float(mean[-1]),
        last_proxy=float(curve.proxy[:, -1].mean()),
        at_proxy=at_proxy(curve, PROXY_GAIN),
        drop=None if drop is None else drop.value,
        drop_interval=None if drop is None else drop.interval,
    )


def at_proxy(curve: Curve, gain: float) -> tuple[float, float] | None:
    """KL and gold of the mean curve where its proxy first reaches a gain, on the straight line between two points."""
    proxy, gold = curve.proxy.mean(axis=0), curve.gold.mean(axis=0)
    beyond = np.flatnonzero(proxy >= gain)
    if not len(beyond) or beyond[0] == 0:
        return None
    after = int(beyond[0])
    share = (gain - proxy[after - 1]) / (proxy[after] - proxy[after - 1])
    kl, worth = (float(values[after - 1] + share * (values[after] - values[after - 1])) for values in (curve.kl, gold))
    return kl, worth


def fitted(curve: Curve, law: Law, *, seed: int = 0) -> Fitted | None:
    """A law on the mean curve up to `FIT_KL`, with intervals over prompts. None where there are too few points."""
    near = curve.kl <= FIT_KL
    kl, gold = curve.kl[near], curve.gold[:, near]
    fit = fit_law(kl, gold.mean(axis=0), law, start=0.0)
    if fit is None:
        return None
    drawn = bootstrap_curves(gold, num_resamples=NUM_RESAMPLES, seed=seed)
    again = [each for row in drawn if (each := fit_law(kl, row - row[0], law, start=0.0)) is not None]
    return Fitted(
        alpha=fit.alpha,
        alpha_interval=_interval([each.alpha for each in again]),
        beta=fit.beta,
        beta_interval=_interval([each.beta for each in again]),
        r_squared=fit.r_squared,
        peak_kl=fit.peak_kl,
        peak_interval=_interval([math.inf if each.peak_kl is None else each.peak_kl for each in again]),
        peak_gold=peak_gold(fit),
        at_end=law_at(law, fit.alpha, fit.beta, float(curve.kl[-1])),
    )


def law_at(law: Law, alpha: float, beta: float, kl: float) -> float:
    """The gain that a law has at a KL, over its start."""
    d = math.sqrt(kl)
    if d == 0:
        return 0.0
    return d * (alpha - beta * (d if law == "best_of_n" else math.log(d)))


def peak_gold(fit: Fit) -> float | None:
    """The gain at the law's peak."""
    if fit.peak_kl is None or math.isinf(fit.peak_kl):
        return None
    return law_at(fit.law, fit.alpha, fit.beta, fit.peak_kl)


def _interval(values: list[float]) -> Interval:
    # Between two of them a quantile of infinite values is not a number: the nearest one is taken.
    low, high = np.quantile(np.array(values), [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)
