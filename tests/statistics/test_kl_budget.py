"""The KL budget: known laws, the rule by hand, units of other heights and other reach, and how often it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from prefloop.statistics.intervals import mean_estimate
from prefloop.statistics.kl_budget import Curves, choose, curves_of, fitted

ALPHA, BETA = 1.5, 1.0
PEAK = math.exp(2 * (ALPHA / BETA - 1))
"""KL at which d (alpha - beta log d) is highest: e = 2.718 (Gao et al. 2022, by its derivative)."""


def law(kl: np.ndarray) -> np.ndarray:
    d = np.sqrt(kl)
    return d * (ALPHA - BETA * np.log(np.maximum(d, 1e-300)))


def runs(number: int, top: float, *, noise: float = 0.0, seed: int = 0, heights: float = 3.0) -> Curves:
    """Runs that each begin at a height of their own."""
    generator = np.random.default_rng(seed)
    kl = np.stack([np.sort(generator.uniform(0.01, top, 15)) for _ in range(number)])
    kl[:, -1] = top
    values = law(kl) + heights * generator.standard_normal((number, 1)) + noise * generator.standard_normal(kl.shape)
    curves = curves_of(kl.ravel(), values.ravel(), np.repeat(np.arange(number), 15))
    assert curves is not None
    return curves


def by_hand(values: list[list[float]]) -> Curves:
    """Curves over KL 0 to 1, 1 to 2, ..."""
    array = np.array(values)
    edges = np.arange(array.shape[1] + 1, dtype=float)
    return Curves(edges, edges[:-1] + 0.5, array, (np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)))


def test_the_peak_of_a_law_without_noise_is_found() -> None:
    curves = runs(4, 12.0)
    choice = choose(curves)
    assert curves.edges[choice.possible[0]] <= PEAK <= curves.edges[choice.possible[1] + 1]
    assert choice.reached_peak
    # Within a window of the best one the law loses little: it is flat there.
    lost = law(np.array([PEAK])) - law(curves.kl[[choice.budget]])
    assert 0 <= lost[0] < 0.1


def test_the_law_is_fitted_exactly_where_nothing_disturbs_it() -> None:
    fit, (low, high) = fitted(runs(4, 12.0))
    assert fit is not None and fit.peak_kl is not None
    assert math.isclose(fit.alpha, ALPHA, rel_tol=1e-9) and math.isclose(fit.beta, BETA, rel_tol=1e-9)
    assert math.isclose(low, PEAK, rel_tol=1e-6) and math.isclose(high, PEAK, rel_tol=1e-6)


def test_the_interval_of_the_fitted_peak_holds_it_as_often_as_it_says() -> None:
    held = 0
    for seed in range(100):
        low, high = fitted(runs(5, 12.0, noise=0.15, seed=seed))[1]
        held += low <= PEAK <= high
    # 95 % of 100, within three standard errors of that.
    assert held >= 88


@pytest.mark.parametrize(("alpha", "number"), [(1.5, 5), (0.8, 5), (1.5, 12)])
def test_the_interval_of_the_fitted_peak_is_the_jackknifes_by_another_road(alpha: float, number: int) -> None:
    """Dummy columns for the heights; units left out in turn, in ten groups where there are more. The last unit's one
    point is all height."""
    generator = np.random.default_rng(1)
    units = np.repeat(np.arange(number), [15] * (number - 1) + [1])
    kl = generator.uniform(0.01, 4.0, len(units))
    d = np.sqrt(kl)
    values = d * (alpha - np.log(d)) + 3.0 * units + 0.05 * generator.standard_normal(len(units))
    curves = curves_of(kl, values, units)
    assert curves is not None

    def peak_of(kept: np.ndarray) -> float:
        heights = [units == each for each in np.unique(units[kept])]
        design = np.column_stack([d, -d * np.log(d), *heights])[kept]
        found = np.linalg.lstsq(design, values[kept], rcond=None)[0]
        return math.exp(2 * (found[0] / found[1] - 1))

    groups = min(number, 10)
    whole = peak_of(np.full(len(units), True))
    logs = np.log([peak_of(units % groups != group) for group in range(groups)])
    reach = stats.t.ppf(0.975, groups - 1) * math.sqrt((groups - 1) / groups * ((logs - logs.mean()) ** 2).sum())
    fit, interval = fitted(curves)
    assert fit is not None and fit.peak_kl == pytest.approx(whole, rel=1e-9)
    assert (fit.law, fit.start) == ("rl", 0.0) and fit.r_squared > 0.9
    assert interval == pytest.approx((whole * math.exp(-reach), whole * math.exp(reach)), rel=1e-6)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, -0.5), (-800.0, 1.0)])
def test_a_law_without_a_peak_says_nothing_of_where_it_lies(alpha: float, beta: float) -> None:
    """The first rises for ever; the second falls from the start, with a peak at e^-1602, which no number holds."""
    kl = np.tile(np.linspace(0.1, 4.0, 12), 4)
    d = np.sqrt(kl)
    curves = curves_of(kl, d * (alpha - beta * np.log(d)), np.repeat(np.arange(4), 12))
    assert curves is not None
    fit, interval = fitted(curves)
    assert fit is not None and fit.alpha == pytest.approx(alpha) and interval == (0.0, math.inf)


def test_where_the_peak_was_not_reached_the_interval_is_open() -> None:
    curves = runs(5, 1.5, noise=0.02)
    choice = choose(curves)
    assert not choice.reached_peak and choice.possible[1] == len(curves.kl) - 1
    assert choice.budget >= len(curves.kl) - 3


def test_how_far_a_window_lies_below_the_best_by_hand() -> None:
    # Below the third: 0.3, 0.2, 0.1 and 0.1, 0.2, 0.0, each with a deviation of 0.1 over three runs.
    curves = by_hand([[0.7, 0.9, 1.0, 0.0], [0.8, 0.8, 1.0, 0.0], [0.9, 1.0, 1.0, 0.0]])
    choice = choose(curves)
    assert choice.best == 2 and choice.budget == 2
    first, second = choice.behind[:2]
    assert first is not None and second is not None
    assert math.isclose(first.mean, 0.2) and math.isclose(first.standard_error, 0.1 / math.sqrt(3))
    assert math.isclose(second.mean, 0.1) and math.isclose(second.standard_error, 0.1 / math.sqrt(3))


def test_the_rule_takes_what_is_within_its_error_by_hand() -> None:
    # Second window: 0.1, 0.0, 0.2 below the best; mean 0.1, standard error 0.1 / sqrt(3) = 0.058: not near enough.
    # With 0.3, -0.2, 0.2: mean 0.1, deviation 0.265, error 0.153: near enough.
    near = choose(by_hand([[0.0, 0.7, 1.0], [0.0, 1.2, 1.0], [0.0, 0.8, 1.0]]))
    assert (near.best, near.budget) == (2, 1)
    far = choose(by_hand([[0.0, 0.9, 1.0], [0.0, 1.0, 1.0], [0.0, 0.8, 1.0]]))
    assert (far.best, far.budget) == (2, 2)


def test_where_the_peak_may_lie_by_hand() -> None:
    """Windows that are worse by 1 in every run, give or take a hundredth, are shown to be; those beside the best that
    are as often better as worse are not."""
    small = [[0.01 * ((run + window) % 3) for window in range(5)] for run in range(4)]

    def possible(*shape: float) -> tuple[int, int]:
        rows = [[height + noise for height, noise in zip(shape, row, strict=True)] for row in small]
        choice = choose(by_hand(rows))
        assert choice.reached_peak == (choice.possible[1] < 4)
        return choice.possible

    assert possible(0.0, 1.0, 2.0, 1.0, 0.0) == (2, 2)
    assert possible(0.0, 1.0, 2.0, 2.0, 1.0) == (2, 3)
    assert possible(2.0, 1.0, 1.0, 0.0, 0.0) == (0, 0)
    assert possible(0.0, 0.0, 1.0, 1.0, 2.0) == (4, 4)


def test_what_the_rule_gains_for_units_without_a_say_by_hand() -> None:
    # Whoever is left out, the others choose the second window: its gains over the first are 3, 2, 4 and 3.
    choice = choose(by_hand([[1.0, 4.0, 0.0], [2.0, 4.0, 1.0], [0.5, 4.5, 1.0], [1.0, 4.0, 0.5]]))
    assert choice.expected == mean_estimate([3.0, 2.0, 4.0, 3.0])
    # Of twelve units, which are left out in ten groups, each has a gain.
    assert choose(by_hand([[0.0, 2.0, 1.0 + 0.1 * run] for run in range(12)])).expected == mean_estimate([2.0] * 12)
    # Nobody reaches both the first window and the one that the others choose: nothing is known of a gain.
    nan = math.nan
    unknown = choose(by_hand([[0.0, 1.0, nan], [nan, 1.0, 2.0], [nan, 1.0, 2.1], [nan, 1.0, 1.9]])).expected
    assert math.isnan(unknown.mean) and unknown.interval() == (-math.inf, math.inf) and unknown.n == 0


def test_a_window_at_exactly_its_error_is_near_enough_and_one_unit_tells_nothing() -> None:
    # The first window lies 0 and 2 below the second: mean 1, standard error sqrt(2) / sqrt(2) = 1.
    choice = choose(by_hand([[2.0, 2.0, 1.0], [0.0, 2.0, math.nan]]))
    assert (choice.best, choice.budget) == (1, 0)
    assert choice.behind[0] == mean_estimate([0.0, 2.0]) and choice.behind[2] is None


def test_points_become_windows_by_hand() -> None:
    """Units 0 to 2 have points at d = 0 ... 5 (KL 0 ... 25), unit 3 at 1 and 4, unit 4 at 2. Two different d make a
    window; its centre is the mean KL of its points: 4 / 7 (four points at KL 1, three at 0), 43 / 7 and 139 / 7."""
    d = np.concatenate([np.tile(np.arange(6.0), 3), [1.0, 4.0, 2.0]])
    units = np.concatenate([np.repeat(np.arange(3), 6), [3, 3, 4]])
    kl = d**2
    kl[0] = -0.5  # An estimate may be below 0, and counts as 0.
    curves = curves_of(kl, 10.0 * units + d, units)
    assert curves is not None
    np.testing.assert_allclose(curves.edges, [0.0, 1.5**2, 3.5**2, 25.0])
    np.testing.assert_allclose(curves.kl, [4 / 7, 43 / 7, 139 / 7])
    low, middle, high = np.sqrt(curves.kl)
    between = 31.0 + 3.0 * (middle - low) / (high - low)
    nan = math.nan
    whole = [[10.0 * unit + mean for mean in (0.5, 2.5, 4.5)] for unit in range(3)]
    np.testing.assert_allclose(curves.values, [*whole, [31.0, between, 34.0], [nan, 42.0, nan]])
    for found, given in zip(curves.points, (d**2, 10.0 * units + d, units), strict=True):
        np.testing.assert_array_equal(found, given)


def test_how_many_windows_there_are() -> None:
    def windows(distinct: int, units: int) -> int:
        kl = np.tile(np.arange(float(distinct)), units)
        found = curves_of(kl, np.zeros(len(kl)), np.repeat(np.arange(units), distinct))
        return 0 if found is None else len(found.kl)

    assert [windows(distinct, 3) for distinct in (5, 6, 7, 8, 40)] == [0, 3, 3, 4, 10]
    assert windows(6, 2) == 0
    # Of seven KLs the middle window has three: a KL belongs where the middle of its points is.
    seven = curves_of(np.tile(np.arange(7.0), 3), np.zeros(21), np.repeat(np.arange(3), 7))
    assert seven is not None and seven.kl.tolist() == pytest.approx([0.5, 3.0, 5.5])


def test_a_high_run_that_goes_further_is_no_rise() -> None:
    # Every run falls after its second window; the one that goes on stands 10 higher.
    nan = math.nan
    curves = by_hand([[0.0, 1.0, nan, nan], [0.1, 1.1, nan, nan], [10.0, 11.0, 10.5, 10.0], [10.1, 11.1, 10.6, 10.1]])
    assert choose(curves).best == 1
    np.testing.assert_allclose(curves.gains, [0.0, 1.0, 0.5, 0.0], atol=1e-9)


def test_the_common_curve_is_that_of_least_squares() -> None:
    generator = np.random.default_rng(3)
    values = generator.standard_normal((7, 5))
    # One unit has a point in one window only, one window is reached by one unit, and another one by none.
    values[:5, 4] = values[1, 3] = values[6, [0, 1, 3, 4]] = math.nan
    unit, window = np.nonzero(~np.isnan(values))
    design = np.concatenate([np.eye(7)[unit], np.eye(5)[window][:, 1:]], axis=1)
    wanted = np.linalg.lstsq(design, values[unit, window], rcond=None)[0][7:]
    curves = by_hand([[*row, math.nan] for row in values.tolist()])
    np.testing.assert_allclose(curves.gains, [0.0, *wanted, -math.inf], atol=1e-9)


@pytest.mark.parametrize("number", [3, 5])
def test_flat_runs_seldom_have_a_peak(number: int) -> None:
    said = 0
    for seed in range(150):
        generator = np.random.default_rng(seed)
        curves = curves_of(
            np.tile(np.arange(12.0), number), generator.standard_normal(12 * number), np.repeat(np.arange(number), 12)
        )
        assert curves is not None
        said += choose(curves).reached_peak
    # Several windows are asked at 2.5 % each; a tenth of the runs would be 15.
    assert said < 15


def test_too_little_gives_nothing() -> None:
    assert curves_of([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 6, [0, 0, 0, 1, 1, 1]) is None
    assert curves_of([0.0, 1.0] * 3, [0.0] * 6, [0, 0, 1, 1, 2, 2]) is None
