"""Over-optimisation where the truth is known: laws recovered, peaks where theory has them, alarms and their absence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.statistics.best_of_n import kl_bound, rank_weights, sizes_up_to
from prefloop.statistics.overoptimization import (
    Fit,
    bootstrap_curves,
    fit_law,
    paired_drop,
    run_drop,
    windows_of,
)
from prefloop.statistics.tails import hill, proxy_error

PROMPTS, SAMPLES = 120, 1000
SIZES = sizes_up_to(SAMPLES // 10)
WEIGHTS = rank_weights(SAMPLES, SIZES)


def gold_curves(error: str, seed: int, prompts: int = PROMPTS) -> np.ndarray:
    """[prompts, K] gold of the best of n by gold + error."""
    generator = np.random.default_rng(seed)
    gold = generator.standard_normal((prompts, SAMPLES))
    match error:
        case "gaussian":
            proxy = gold + generator.standard_normal(gold.shape)
        case "bounded":
            # Two in a hundred are a trick that pays 5 at most and is played by what is bad.
            proxy = gold + 5 * ((gold < 0) & (generator.random(gold.shape) < 0.02))
        case "unrelated":
            proxy = generator.standard_normal(gold.shape)
        case _:
            proxy = gold + generator.standard_t(float(error.removeprefix("t")), gold.shape)
    return np.take_along_axis(gold, np.argsort(proxy, axis=1), axis=1) @ WEIGHTS.T


# Laws

FINITE = st.floats(0.1, 5)


@given(FINITE, FINITE, st.floats(-3, 3))
def test_the_laws_are_recovered_from_their_own_points(alpha: float, beta: float, start: float) -> None:
    kl = np.linspace(0.05, 30, 40)
    d = np.sqrt(kl)
    best_of_n = fit_law(kl, start + d * (alpha - beta * d), "best_of_n", start=start)
    rl = fit_law(kl, start + d * (alpha - beta * np.log(d)), "rl")
    for fit in (best_of_n, rl):
        assert fit is not None
        assert np.allclose([fit.alpha, fit.beta, fit.start], [alpha, beta, start], rtol=1e-6, atol=1e-6)
        assert math.isclose(fit.r_squared, 1, abs_tol=1e-6)


@given(FINITE, FINITE, st.sampled_from(["best_of_n", "rl"]))
def test_the_peak_is_where_the_law_is_highest(alpha: float, beta: float, law: str) -> None:
    peak = Fit(law, alpha, beta, 1.0, 0.0).peak_kl  # type: ignore[arg-type]
    assert peak is not None

    def gain(d: float) -> float:
        return d * (alpha - beta * (d if law == "best_of_n" else math.log(d)))

    top = math.sqrt(peak)
    assert gain(top) >= max(gain(top * 0.99), gain(top * 1.01))


def test_peaks_by_hand() -> None:
    # 2 / (2 x 0.5) = 2, squared; exp(2 / 0.5 - 1) = e^3, squared.
    assert Fit("best_of_n", 2.0, 0.5, 1.0, 0.0).peak_kl == 4.0
    assert math.isclose(Fit("rl", 2.0, 0.5, 1.0, 0.0).peak_kl or 0, math.exp(6))
    assert Fit("rl", 1.0, 0.0, 1.0, 0.0).peak_kl is None and Fit("best_of_n", 1.0, -0.1, 1.0, 0.0).peak_kl is None
    # It falls from the start; and it rises beyond all numbers.
    assert Fit("best_of_n", -1.0, 0.5, 1.0, 0.0).peak_kl == 0.0
    assert Fit("rl", 1.0, 1e-9, 1.0, 0.0).peak_kl == math.inf


def test_too_few_points_are_not_fitted() -> None:
    assert fit_law([0, 1, 2], [0, 1, 1], "best_of_n", start=0.0) is None
    assert fit_law([0, 1, 2, 3], [0, 1, 1, 1], "best_of_n", start=0.0) is not None
    assert fit_law([1, 2, 3], [1, 1, 1], "rl") is None
    flat = fit_law([1, 2, 3, 4], [1, 1, 1, 1], "rl")
    assert flat is not None and math.isnan(flat.r_squared)


def test_negative_estimates_of_a_kl_count_as_zero() -> None:
    kl, gold = np.array([-0.1, 1, 4, 9, 16]), np.array([2, 4, 5, 5, 4.0])
    assert fit_law(kl, gold, "rl") == fit_law(np.maximum(kl, 0), gold, "rl")


# Best-of-n


@pytest.mark.parametrize(("error", "peak"), [("t5", 3.19), ("t3", 2.14)])
def test_the_peak_is_where_theory_has_it(error: str, peak: float) -> None:
    curve = gold_curves(error, 0).mean(axis=0)
    assert abs(kl_bound(SIZES)[curve.argmax()] / peak - 1) < 0.25


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("error", "alarm"), [("t3", True), ("t2", True), ("bounded", True), ("gaussian", False), ("unrelated", False)]
)
def test_what_turns_over_is_alarmed_of_and_nothing_else(error: str, alarm: bool, seed: int) -> None:
    drop = paired_drop(gold_curves(error, seed))
    assert drop is not None
    assert drop.overoptimized == alarm


def test_false_alarms_on_curves_that_are_flat() -> None:
    # 2.5 % are meant to be; at most 8 % of 150 by the 0.1 % tail of the binomial.
    generator = np.random.default_rng(0)
    alarms = 0
    for seed in range(150):
        gold = generator.standard_normal((20, 200))
        curves = gold @ rank_weights(200, sizes_up_to(20)).T
        drop = paired_drop(curves, seed=seed)
        alarms += drop is not None and drop.overoptimized
    assert alarms <= 12


def test_the_drop_is_measured_on_other_prompts_than_its_peak_was_chosen_on() -> None:
    # One value a prompt and nothing but noise: chosen and measured on the same prompts the drop would be far below 0.
    drops = [paired_drop(np.random.default_rng(seed).standard_normal((40, 30)), seed=seed) for seed in range(200)]
    values = [drop.value for drop in drops if drop is not None]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(len(values))


def test_a_drop_by_hand() -> None:
    # The same curve for each prompt: peak 3, end 1.
    drop = paired_drop([[0, 3, 1]] * 6)
    assert drop is not None and (drop.value, drop.interval, drop.overoptimized) == (-2.0, (-2.0, -2.0), True)
    assert paired_drop([[0, 3, 1]] * 3) is None


def test_a_curve_that_ends_at_its_peak_has_no_drop() -> None:
    drop = paired_drop([[0, 1, 3]] * 6)
    assert drop is not None and drop.value == 0 and not drop.overoptimized


def test_the_bootstrap_of_curves_has_their_standard_error() -> None:
    curves = np.random.default_rng(0).standard_normal((200, 3))
    resampled = bootstrap_curves(curves, num_resamples=2000, seed=0)
    assert np.allclose(resampled.mean(axis=0), curves.mean(axis=0), atol=0.01)
    assert np.allclose(resampled.std(axis=0), curves.std(axis=0) / math.sqrt(200), rtol=0.08)


# Training runs


def run_of(num_steps: int, noise: float, seed: int, *, falls: bool, rows: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Steps and gold of a run whose gold rises to 1 and falls back to 0.6 or stays."""
    step = np.repeat(np.arange(num_steps), rows)
    share = step / (num_steps - 1)
    gold = np.where(share < 0.5, 2 * share, 1 - 0.8 * (share - 0.5) * falls)
    return step, gold + noise * np.random.default_rng(seed).standard_normal(len(step))


@pytest.mark.parametrize(("num_steps", "noise", "rows"), [(20, 0.0, 1), (100, 0.1, 1), (400, 0.3, 1), (60, 0.3, 8)])
def test_a_run_that_falls_is_alarmed_of(num_steps: int, noise: float, rows: int) -> None:
    for falls in (True, False):
        step, gold = run_of(num_steps, noise, 1, falls=falls, rows=rows)
        windows = windows_of(step)
        assert windows is not None
        drop = run_drop(windows, gold, None)
        assert drop is not None and drop.overoptimized == falls


def test_prompts_are_kept_whole() -> None:
    # Every prompt has its own level, and only its level: nothing falls, whatever prompts stand at the end.
    generator = np.random.default_rng(0)
    alarms = 0
    for seed in range(100):
        step = np.repeat(np.arange(30), 8)
        prompt = generator.integers(20, size=len(step))
        gold = generator.standard_normal(20)[prompt]
        windows = windows_of(step)
        assert windows is not None
        drop = run_drop(windows, gold, list(prompt), seed=seed)
        alarms += drop is not None and drop.overoptimized
    assert alarms <= 10


def test_false_alarms_on_flat_runs() -> None:
    alarms = 0
    for seed in range(200):
        step = np.arange(60)
        windows = windows_of(step)
        assert windows is not None
        drop = run_drop(windows, np.random.default_rng(seed).standard_normal(60), None)
        alarms += drop is not None and drop.overoptimized
    assert alarms <= 16


def test_windows_by_hand() -> None:
    # 12 rows over 6 steps: a window of five rows needs ceil(5 x 6 / 12) = 3 steps, and three windows need nine.
    assert windows_of([3, 1, 1, 2, 2, 2, 4, 4, 5, 5, 6, 6]) is None
    windows = windows_of(list(range(15)))
    assert windows is not None and windows.width == 5
    assert list(windows.means(list(range(15)))) == [2 + start for start in range(11)]
    only = np.arange(15) >= 5
    assert list(windows.means(list(range(15)), only)[:2]) == [-math.inf, 5]


def test_a_run_without_rows_at_its_end_in_one_half_is_not_judged() -> None:
    step = np.repeat(np.arange(30), 2)
    windows = windows_of(step)
    assert windows is not None
    # The last steps have one prompt alone.
    assert run_drop(windows, np.zeros(60), ["a" if place >= 40 else f"p{place}" for place in range(60)]) is None


def test_two_prompts_are_too_few_for_a_run() -> None:
    step = np.repeat(np.arange(30), 2)
    windows = windows_of(step)
    assert windows is not None
    assert run_drop(windows, np.linspace(1, 0, 60), ["a", "b"] * 30) is None


# Tails


@pytest.mark.parametrize(("freedom", "low", "high"), [(2, 1.7, 2.3), (3, 2.4, 3.4), (5, 3.6, 5.6)])
def test_the_tail_index_of_student_errors(freedom: int, low: float, high: float) -> None:
    index = hill(np.random.default_rng(0).standard_t(freedom, 100_000))
    assert index is not None and low < index < high


def test_light_tails_have_a_large_index() -> None:
    index = hill(np.random.default_rng(0).standard_normal(100_000))
    assert index is not None and index > 6


def test_the_tail_index_by_hand() -> None:
    # The two largest, e^2 and e, over the third, 1: 1 / mean(2, 1) = 2/3.
    assert math.isclose(hill([math.e**2, 0.5, math.e, 1.0], 2) or 0, 2 / 3)
    assert hill([1.0] * 20) is None
    assert hill([-1.0] * 20) is None
    assert hill([1.0, 2.0]) is None


def test_the_error_of_a_proxy_is_what_gold_does_not_explain() -> None:
    generator = np.random.default_rng(0)
    gold, error = generator.standard_normal(3000), generator.standard_normal(3000)
    cluster = np.repeat(np.arange(30), 100)
    # In another unit, and with an offset for each prompt.
    found = proxy_error(5 * gold + error + 10.0 * cluster, gold, cluster)
    assert np.corrcoef(found, error)[0, 1] > 0.98
    assert abs(np.corrcoef(found, gold)[0, 1]) < 0.03
    assert np.allclose(proxy_error([1.0, 3.0], [2.0, 2.0], [0, 0]), [-1, 1])
