"""`evaluate overoptimization`: known laws through the command line, both kinds of rows, and bad ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefloop.evaluate.config import OveroptimizationConfig
from prefloop.evaluate.overoptimization import run


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def samples(error: str, seed: int, prompts: int = 60, number: int = 500) -> list[dict[str, Any]]:
    """Rows of gold and gold + error."""
    generator = np.random.default_rng(seed)
    gold = generator.standard_normal((prompts, number))
    if error == "gaussian":
        proxy = gold + generator.standard_normal(gold.shape)
    elif error == "bounded":
        proxy = gold + 5 * ((gold < 0) & (generator.random(gold.shape) < 0.03))
    else:
        proxy = gold + generator.standard_t(float(error), gold.shape)
    return [
        {"prompt_id": f"p{row}", "proxy": proxy[row, column], "gold": gold[row, column]}
        for row in range(prompts)
        for column in range(number)
    ]


@pytest.mark.parametrize(("error", "alarm"), [("2", True), ("bounded", True), ("gaussian", False)])
def test_samples_of_a_known_law(tmp_path: Path, error: str, alarm: bool) -> None:
    path = written(tmp_path / "rows.jsonl", samples(error, 0))
    answer = run(OveroptimizationConfig(file=str(path), num_resamples=100))
    assert answer["overoptimized"] == alarm
    points = answer["best_of_n"]
    assert (points[0]["n"], points[-1]["n"], points[0]["kl"]) == (1, 50, 0.0)
    assert all(point["gold_interval"][0] <= point["gold"] <= point["gold_interval"][1] for point in points)
    assert [point["proxy"] for point in points] == sorted(point["proxy"] for point in points)
    assert math.isclose(points[-1]["kl"], math.log(50) - 49 / 50)
    assert (answer["fit"]["peak_kl"] is None) == (answer["fit"]["beta"] <= 0)
    assert answer["num_prompts"] == 60 and answer["num_rows"] == 30_000
    if error == "2":
        assert answer["tail_index"] < 2.6 and answer["fit"]["beta"] > 0
        assert abs(answer["empirical_peak_kl"] / 1.57 - 1) < 0.25
    if error == "gaussian":
        assert answer["tail_index"] > 5 and answer["empirical_peak_kl"] == points[-1]["kl"]


def test_proxy_in_another_unit_changes_nothing_but_the_proxy(tmp_path: Path) -> None:
    rows = samples("3", 1, prompts=10, number=100)
    stretched = [{**row, "proxy": 7 * row["proxy"] - 100} for row in rows]
    answers = [
        run(OveroptimizationConfig(file=str(written(tmp_path / f"{place}.jsonl", each)), num_resamples=20))
        for place, each in enumerate((rows, stretched))
    ]
    kept = [
        {key: value for key, value in answer.items() if key not in ("best_of_n", "tail_index")} for answer in answers
    ]
    assert kept[0] == kept[1]
    assert math.isclose(answers[0]["tail_index"], answers[1]["tail_index"], rel_tol=1e-6)


@pytest.mark.parametrize("answers", [4, 10])
def test_answers_that_repeat_have_their_exact_kl(tmp_path: Path, answers: int) -> None:
    generator = np.random.default_rng(0)
    rows = [
        {"prompt_id": prompt, "proxy": int(score), "gold": float(score)}
        for prompt in range(20)
        for score in generator.integers(answers, size=400)
    ]
    points = run(OveroptimizationConfig(file=str(written(tmp_path / "rows.jsonl", rows)), num_resamples=20))[
        "best_of_n"
    ]
    for point in points:
        n = point["n"]
        mass = [(i / answers) ** n - ((i - 1) / answers) ** n for i in range(1, answers + 1)]
        exact = sum(q * math.log(answers * q) for q in mass if q > 0)
        assert math.isclose(point["kl"], exact, abs_tol=0.05)


def test_prompts_with_other_numbers_of_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = samples("gaussian", 0, prompts=5, number=100)
    path = written(tmp_path / "rows.jsonl", rows[:-50])
    answer = run(OveroptimizationConfig(file=str(path), num_resamples=20))
    assert answer["best_of_n"][-1]["n"] == 5
    assert "n goes to 5, a tenth of the 50 samples of one prompt; others have up to 100" in capsys.readouterr().err


def test_one_prompt_tells_a_curve_and_nothing_else(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", samples("2", 0, prompts=1, number=1000))
    answer = run(OveroptimizationConfig(file=str(path), num_resamples=20))
    assert not answer["overoptimized"] and answer["drop"] is None and len(answer["warnings"]) == 2
    assert answer["best_of_n"][0]["gold_interval"] is None and answer["empirical_peak_kl_interval"] is None


# A training run


def steps(alpha: float, beta: float, number: int, noise: float = 0.0, seed: int = 0) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    kl = np.linspace(0, 20, number)
    d = np.sqrt(kl)
    gold = 0.7 + d * alpha - beta * d * np.log(np.maximum(d, 1e-300)) + noise * generator.standard_normal(number)
    return [{"step": place, "kl": kl[place], "proxy": 2 * d[place], "gold": gold[place]} for place in range(number)]


@pytest.mark.parametrize(("alpha", "beta", "alarm"), [(1.2, 0.8, True), (1.0, 0.1, False)])
def test_a_run_of_a_known_law(tmp_path: Path, alpha: float, beta: float, alarm: bool) -> None:
    path = written(tmp_path / "rows.jsonl", steps(alpha, beta, 60))
    answer = run(OveroptimizationConfig(file=str(path), num_resamples=20))
    fit = answer["fit"]
    assert answer["kind"] == "rl"
    assert np.allclose([fit["alpha"], fit["beta"], fit["r_squared"]], [alpha, beta, 1], atol=1e-6)
    assert math.isclose(fit["peak_kl"], math.exp(2 * (alpha / beta - 1)), rel_tol=1e-4)
    assert answer["overoptimized"] == alarm
    if alarm:
        # exp(2 (1.5 - 1)) = 2.72, between the steps of a third each.
        assert abs(answer["empirical_peak_kl"] - math.e) < 0.7
    assert len(answer["curve"]) == 10 and answer["curve"][0]["num_rows"] == 6


def test_noise_does_not_make_an_alarm(tmp_path: Path) -> None:
    alarms = []
    for alpha, beta in ((1.2, 0.9), (1.0, 0.0)):
        path = written(tmp_path / "rows.jsonl", steps(alpha, beta, 200, noise=0.3))
        alarms.append(run(OveroptimizationConfig(file=str(path), num_resamples=20))["overoptimized"])
    assert alarms == [True, False]


def test_rows_of_prompts_in_a_run(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = [
        {
            **row,
            "prompt_id": f"p{generator.integers(30)}",
            "gold": row["gold"] + float(generator.standard_normal()),
        }
        for row in steps(1.2, 0.9, 40)
        for _ in range(16)
    ]
    answer = run(OveroptimizationConfig(file=str(written(tmp_path / "rows.jsonl", rows)), num_resamples=20))
    assert answer["overoptimized"] and answer["num_steps"] == 40 and answer["num_rows"] == 640


def test_a_short_run_is_fitted_and_not_judged(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", steps(1.2, 0.8, 8))
    answer = run(OveroptimizationConfig(file=str(path), num_resamples=20))
    assert math.isclose(answer["fit"]["alpha"], 1.2) and not answer["overoptimized"] and answer["drop"] is None
    assert answer["warnings"] == ["8 rows are too few to say whether gold fell: three times five are the least"]
    few = run(OveroptimizationConfig(file=str(written(tmp_path / "few.jsonl", steps(1.2, 0.8, 3))), num_resamples=20))
    assert few["fit"] == {"alpha": None, "beta": None, "r_squared": None, "peak_kl": None}


def test_a_kl_below_zero_is_said(tmp_path: Path) -> None:
    rows = steps(1.2, 0.8, 30)
    rows[0]["kl"] = -0.01
    answer = run(OveroptimizationConfig(file=str(written(tmp_path / "rows.jsonl", rows)), num_resamples=20))
    assert answer["warnings"] == ["1 steps have a KL below 0 (an estimate may): counted as 0"]


# Bad rows

SAMPLE, STEP = {"prompt_id": "p", "proxy": 1, "gold": 2}, {"step": 0, "kl": 0.1, "proxy": 1, "gold": 2}


@pytest.mark.parametrize(
    ("first", "row", "problem"),
    [
        (SAMPLE, {"prompt_id": "p", "proxy": 1}, "gold: is missing; give a number"),
        (SAMPLE, {**SAMPLE, "proxy": "1"}, "proxy: is '1'; give a number"),
        (SAMPLE, {**SAMPLE, "gold": None}, "gold: is null; give a number"),
        (SAMPLE, {"proxy": 1, "gold": 2}, "prompt_id: is missing; name the prompt"),
        (SAMPLE, {**SAMPLE, "prompt_id": [1]}, "prompt_id: is no name; name the prompt"),
        (SAMPLE, {**SAMPLE, **STEP}, "step: the rows before are samples, not steps of a run; give one kind"),
        (STEP, {"step": 1, "proxy": 1, "gold": 2}, "kl: is missing; give a number"),
        (STEP, SAMPLE, "kl: is missing; give a number"),
    ],
)
def test_a_bad_row_is_named_with_its_line(
    prefloop: Callable[..., Any], tmp_path: Path, first: dict[str, Any], row: dict[str, Any], problem: str
) -> None:
    path = written(tmp_path / "rows.jsonl", [first] * 40 + [row])
    assert prefloop("evaluate overoptimization", path).problem.startswith(f"{path}:41: {problem}")
    outcome = prefloop("evaluate overoptimization", path, "--skip-bad", "--num-resamples", 5)
    assert outcome.code == 0 and (outcome.answer["num_rows"], outcome.answer["num_bad"]) == (40, 1)


def test_rows_of_no_kind_and_prompts_with_few_samples(prefloop: Callable[..., Any], tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", [{"proxy": 1, "gold": 2}])
    problem = prefloop("evaluate overoptimization", path).problem
    assert problem.startswith(f"{path}:1: prompt_id: is missing; give prompt_id, proxy, gold (samples) or step, kl")
    path = written(tmp_path / "few.jsonl", [SAMPLE] * 19)
    problem = prefloop("evaluate overoptimization", path).problem
    assert problem == (
        f"{path}: prompt_id: the prompt 'p' has 19 samples; 20 are the least; sample more, or leave it out"
    )
