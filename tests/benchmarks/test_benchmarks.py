"""What the benchmarks compute and print, where the answer is known by hand; no runs."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import pytest
import torch

from prefloop.statistics.intervals import Estimate

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


def load(name):
    return importlib.import_module(f"benchmarks.{name}")


def test_noise_over_signal_by_hand():
    # Mean (3, 0), deviations (0, +-1): noise (1 + 1 + 1 + 1) / 3, squared length 9 less a quarter of the noise.
    gradients = torch.tensor([[3.0, 1.0], [3.0, -1.0], [3.0, 1.0], [3.0, -1.0]])
    found = load("variance").noise_over_signal(gradients)
    assert found["noise_over_signal"] == pytest.approx((4 / 3) / (9 - 1 / 3))
    assert found["cosine_of_halves"] == pytest.approx(1)


def test_noise_without_a_signal_is_infinite_and_scale_means_nothing():
    variance = load("variance")
    assert math.isinf(variance.noise_over_signal(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))["noise_over_signal"])
    gradients = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)) + 2
    once, twice = (variance.noise_over_signal(scale * gradients) for scale in (1.0, 7.0))
    assert once["noise_over_signal"] == pytest.approx(twice["noise_over_signal"], rel=1e-5)
    # Five directions of variance 1 around a mean of squared length 20.
    many = torch.randn(20_000, 5, generator=torch.Generator().manual_seed(1)) + 2
    assert variance.noise_over_signal(many)["noise_over_signal"] == pytest.approx(5 / 20, rel=0.02)


def test_repetition_by_hand():
    repetition = load("kl_sweep").repetition
    assert repetition("a b c") == 0 and repetition("") == 0 and repetition("a") == 0
    # Pairs ab, ba, ab, ba: two of four stood there before.
    assert repetition("a b a b a") == 0.5


def test_the_last_quarter():
    steps = [{"x": float(number)} for number in range(8)]
    assert load("kl_sweep").last_quarter(steps, "x") == 6.5
    assert load("kl_sweep").last_quarter(steps[:3], "x") == 2.0


def test_tables_and_cells():
    options = load("options")
    assert options.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert options.gain_cell(Estimate(0.334, 0.04, 9), Estimate(0.5, 0.1, 9)) == "0.33 ± 0.04 (5.0)"


def test_every_algorithm_has_its_command_and_every_command_is_valid():
    from prefloop.train.algorithms import ALGORITHMS

    algorithms, start, variance, sweep = (load(name) for name in ("algorithms", "start", "variance", "kl_sweep"))
    assert list(algorithms.SETTINGS) == list(ALGORITHMS)
    needed = ("--model", "a", "--reward", "b", "--prompts", "c")
    lines = [f"--algorithm {name} {algorithms.SHARED} {given}" for name, given in algorithms.SETTINGS.items()]
    lines += [f"{given} {variance.SHARED}" for given in variance.ESTIMATORS.values()]
    lines += [variance.WARM_UP, f"{variance.FOUR_PASSES} --settings.clip-range 1e6", sweep.SHARED, sweep.ADAPTIVE]
    for line in lines:
        _, config = start.configured("train", "policy", *line.split(), *needed)
        assert config.prompts_per_step * config.settings.group_size == 96, line


def test_the_verdict_names_what_gains_too_little():
    algorithms = load("algorithms")
    rows = {
        name: algorithms.Row(Estimate(0, 1, 9), Estimate(6, 1, 9), Estimate(0, 1, 9), None)
        for name in algorithms.SETTINGS
    }
    assert algorithms.verdict({1: rows}) == "Below 5 standard errors: none."
    rows["ppo"] = algorithms.Row(Estimate(0, 1, 9), Estimate(3, 1, 9), Estimate(0, 1, 9), None)
    assert algorithms.verdict({1: rows}) == "Below 5 standard errors: ppo on seed 1 (3.0)."
