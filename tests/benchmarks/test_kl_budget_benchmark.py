"""The benchmarks of the KL budget: the laws have the peak that they claim, and what a budget keeps is counted right."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import kl_budget, kl_budget_sandbox


@pytest.mark.parametrize("law", kl_budget.LAWS)
def test_the_gain_is_highest_at_the_peak_and_1_there(law: str) -> None:
    kl = np.linspace(0.01, 16, 1600)
    gains = kl_budget.gain(law, kl)
    assert abs(kl[gains.argmax()] - kl_budget.PEAK) < 0.011
    assert float(kl_budget.gain(law, kl_budget.PEAK)) == pytest.approx(1.0)
    assert float(kl_budget.gain(law, 0.0)) == 0.0


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    kl_budget.main(["--quick", "--seeds", "0", "1", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["results"]) == 5
    assert all(0 <= found["loss"] < 1 for each in answer["results"] for found in each["found"])


def test_a_budget_keeps_the_last_checkpoint_inside() -> None:
    rows = [
        {"step": 0, "kl": 0.0, "utility": -1.0},
        {"step": 2, "kl": 0.5, "utility": 0.5},
        {"step": 4, "kl": 1.5, "utility": 0.2},
        {"step": 6, "kl": 0.9, "utility": 0.1},
    ]
    assert kl_budget_sandbox.worth_at(rows, 0.6) == 0.5
    assert kl_budget_sandbox.worth_at(rows, 1.0) == 0.1
    assert kl_budget_sandbox.worth_at(rows, -1.0) == -1.0
