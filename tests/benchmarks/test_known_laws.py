"""The benchmarks of over-optimisation and of length control run, and their truths are true."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import integrate, stats

from benchmarks import length_control, overoptimization


def test_over_optimisation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    overoptimization.main(["--quick", "--seeds", "0", "1"])
    text = capsys.readouterr().out
    assert all(f"| {name} |" in text for name in overoptimization.ERRORS)
    overoptimization.main(["--quick", "--seeds", "0", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["runs"]) == 6 and answer["uniform"][0]["answers"] == 4


def test_length_control_runs(capsys: pytest.CaptureFixture[str]) -> None:
    length_control.main(["--quick", "--seeds", "0", "--json"])
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["judge"] for run in runs] == list(length_control.JUDGES)


@pytest.mark.parametrize(("freedom", "name"), [(3, "t3"), (2, "t2")])
def test_the_true_peaks(freedom: int, name: str) -> None:
    # E[gold of the best of n] = integral of E[gold | proxy = s] d F(s)^n, with proxy = N(0, 1) + t.
    gold = np.linspace(-8, 8, 401)
    weight = stats.norm.pdf(gold) * (gold[1] - gold[0])
    proxy = np.concatenate([-np.geomspace(1e5, 1e-2, 700), np.geomspace(1e-2, 1e5, 700)])
    density = np.array([weight @ stats.t.pdf(at - gold, freedom) for at in proxy])
    mean = np.array([(weight * gold) @ stats.t.pdf(at - gold, freedom) for at in proxy]) / density
    above = np.array([weight @ stats.t.sf(at - gold, freedom) for at in proxy])

    def worth(n: int) -> float:
        return float(integrate.trapezoid(mean, np.exp(n * np.log1p(-np.minimum(above, 1 - 1e-12)))))

    best = max(range(2, 60), key=worth)
    assert abs(math.log(best) - (best - 1) / best - overoptimization.TRUE_PEAKS[name]) < 0.06


@pytest.mark.parametrize("judge", length_control.JUDGES)
def test_judges_like_length_and_have_the_rate_that_they_claim(judge: str) -> None:
    wins, dlen, _, fair = length_control.judged(judge, 0, 200_000)
    # Where lengths are about equal, the judge's bias is gone.
    near = np.abs(dlen) < 15
    assert abs(100 * wins[near].mean() - fair) < 2.5
    assert 100 * wins.mean() > fair + 4
