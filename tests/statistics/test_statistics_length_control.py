"""Length control: a known win rate is recovered from judges with a known bias, also from other ones than are fitted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from prefloop.statistics.length_control import fit_logistic, length_controlled


def judged(judge: str, seed: int, number: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, float]:
    """Wins, length differences and difficulties of a model that writes longer; and its rate without the bias."""
    generator = np.random.default_rng(seed)
    dlen = np.round(generator.normal(-250, 400, number))
    gamma = generator.standard_normal(number)
    given_difficulty = None
    match judge:
        case "fitted":
            chance = special.expit(0.4 - 0.8 * np.tanh(dlen / dlen.std(ddof=1)))
            fair = float(special.expit(0.4))
        case "difficulty":
            chance = special.expit(0.4 - 0.8 * np.tanh(dlen / dlen.std(ddof=1)) + 0.7 * gamma)
            fair, given_difficulty = float(special.expit(0.4 + 0.7 * gamma).mean()), gamma
        case "linear":
            # Does not saturate, and instructions differ in a way that nobody told.
            chance = special.expit(0.4 + 0.5 * gamma - dlen / 600)
            fair = float(special.expit(0.4 + 0.5 * gamma).mean())
        case _:
            chance, fair = special.ndtr(0.25 - dlen / 700), float(special.ndtr(0.25))
    wins = (generator.random(number) < chance).astype(float)
    return wins, dlen, given_difficulty, fair


@pytest.mark.parametrize("judge", ["fitted", "difficulty", "linear", "probit"])
def test_a_known_win_rate_is_recovered(judge: str) -> None:
    # benchmarks/length_control.py has 2,000 rows and 20 seeds; here four seeds and few resamples.
    errors, covered, raw = [], 0, []
    for seed in range(4):
        wins, dlen, difficulty, fair = judged(judge, seed)
        found = length_controlled(wins, dlen, range(len(wins)), difficulty, num_resamples=100)
        errors.append(100 * (found.win_rate - fair))
        raw.append(100 * (wins.mean() - fair))
        covered += found.interval[0] <= fair <= found.interval[1]
        assert found.phi is not None and found.phi < 0
    # The raw rate is off by five points and more.
    assert abs(np.mean(errors)) < 1.6 and np.mean(raw) > 4.5 and covered >= 3


def test_the_fit_is_the_least_penalised_loss() -> None:
    generator = np.random.default_rng(0)
    x = np.stack([np.ones(60), *generator.standard_normal((2, 60))], axis=1)
    p, weights, penalty = generator.random(60), generator.integers(1, 4, 60).astype(float), 0.03

    def loss(found: np.ndarray) -> float:
        logits = x @ found
        rows = np.logaddexp(0, logits) - p * logits
        return float(weights @ rows / weights.sum()) + penalty / 2 * float((found[1:] ** 2).sum())

    best = optimize.minimize(loss, np.zeros(3), tol=1e-12).x
    assert np.allclose(fit_logistic(x, p, weights, penalty), best, atol=1e-4)


def test_newtons_method_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    # After one step from zero: slope (1/2 - 9/10) over curve 1/4.
    monkeypatch.setattr("prefloop.statistics.length_control.NEWTON_STEPS", 1)
    found = fit_logistic(np.ones((10, 1)), np.array([1.0] * 9 + [0.0]), np.ones(10), 0.0)
    assert math.isclose(found[0], 1.6)


def test_theta_is_not_penalised() -> None:
    # Without a length term the answer is the win rate itself, however strong the penalty.
    found = fit_logistic(np.ones((10, 1)), np.array([1.0] * 9 + [0.0]), np.ones(10), 1e6)
    assert math.isclose(special.expit(found[0]), 0.9)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(-500, 500)), min_size=6, max_size=30))
def test_models_exchanged_give_the_rest_to_one(rows: list[tuple[float, int]]) -> None:
    wins, dlen = np.array([p for p, _ in rows]), np.array([length for _, length in rows])
    there = length_controlled(wins, dlen, range(len(rows)), num_resamples=2)
    back = length_controlled(1 - wins, -dlen, range(len(rows)), num_resamples=2)
    assert math.isclose(there.win_rate, 1 - back.win_rate, abs_tol=1e-6)


def test_a_model_against_itself_wins_half() -> None:
    found = length_controlled([0.5] * 20, range(-10, 10), range(20), num_resamples=10)
    assert math.isclose(found.win_rate, 0.5) and not found.separable


def test_one_length_tells_nothing_of_length() -> None:
    found = length_controlled([1, 0, 1, 1], [-7] * 4, range(4), num_resamples=10)
    assert found.phi is None and math.isclose(found.win_rate, 0.75)


def test_one_difficulty_tells_nothing_of_difficulty() -> None:
    found = length_controlled([1, 0, 1, 0.5], [1, 5, -3, 2], range(4), [2.0] * 4, num_resamples=10)
    assert found.psi is None


def test_separable_rows_are_named() -> None:
    # The longer one always wins.
    dlen = np.array([-400, -300, -200, -50, 60, 250, 300, 500])
    found = length_controlled((dlen < 0).astype(float), dlen, range(8), num_resamples=20)
    assert found.separable and 0 < found.win_rate < 1
    mixed = (dlen < 0).astype(float)
    mixed[[1, 6]] = 1 - mixed[[1, 6]]
    assert not length_controlled(mixed, dlen, range(8), num_resamples=20).separable


@pytest.mark.parametrize("won", [0.0, 1.0])
def test_all_wins_or_none_have_an_interval_with_a_width(won: float) -> None:
    found = length_controlled([won] * 12, range(12), range(12), num_resamples=20)
    assert math.isclose(found.win_rate, won, abs_tol=1e-9) and found.separable
    # Wilson for 12 of 12: 12 / (12 + 1.96^2) = 0.757.
    assert math.isclose(found.interval[0] if won else 1 - found.interval[1], 0.7575, abs_tol=1e-3)


def test_copies_of_an_instruction_shrink_no_interval() -> None:
    wins, dlen, _, _ = judged("fitted", 0, 200)
    once = length_controlled(wins, dlen, range(200), num_resamples=300)
    copied = length_controlled(np.repeat(wins, 4), np.repeat(dlen, 4), np.repeat(range(200), 4), num_resamples=300)
    widths = [each.interval[1] - each.interval[0] for each in (once, copied)]
    assert math.isclose(*widths, rel_tol=0.15)


def test_each_instruction_counts_once_in_the_answer() -> None:
    # Difficulty -1 once and +1 nine times: the answer is the mean of the two rates, whatever the number of rows.
    generator = np.random.default_rng(0)
    gamma = np.array([-1.0] * 300 + [1.0] * 300)
    wins = (generator.random(600) < special.expit(gamma)).astype(float)
    dlen = generator.normal(0, 100, 600)
    names = [0] * 300 + [1] * 300
    keep = np.array([True] * 300 + [True] * 100 + [False] * 200)
    few = length_controlled(wins[keep], dlen[keep], np.array(names)[keep], gamma[keep], num_resamples=5)
    rates = [wins[:300].mean(), wins[300:400].mean()]
    assert math.isclose(few.win_rate, np.mean(rates), abs_tol=0.02)


def test_a_single_instruction_is_known_of_nothing() -> None:
    assert length_controlled([1, 0, 0.5], [1, 2, 3], ["a"] * 3, num_resamples=5).interval == (0.0, 1.0)
