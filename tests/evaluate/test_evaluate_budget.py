"""`evaluate budget`: runs of train policy, files of rows, what is no repetition, and what the proxy may not say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefloop.cli import main
from prefloop.config import load
from prefloop.evaluate.budget import run
from prefloop.evaluate.config import BudgetConfig
from prefloop.types import InputError

PEAK = 4.0


def worth(kl: float) -> float:
    """Rises in d to KL 4 and falls after it; 1 at the peak."""
    d = math.sqrt(kl / PEAK)
    return d * (1 - math.log(d)) if d > 0 else 0.0


def write_run(path: Path, kls: list[float], *, seed: int = 0, reward: str = "a") -> Path:
    """A run as train policy leaves it: round n is sampled by the policy after n - 1 updates, which evaluation n - 1
    measured."""
    generator = np.random.default_rng(seed)
    path.mkdir(parents=True)
    inputs = {name: {"path": name, "sha256": name, "audit": "none"} for name in ("model", "eval_prompts:0")}
    inputs |= {
        "reward": {"path": "r", "sha256": reward, "audit": "none"},
        "eval_reward:x": {"path": "e", "sha256": "e"},
    }
    (path / "inputs.json").write_text(json.dumps({"inputs": inputs}))
    rows = []
    for round_, kl in enumerate(kls, start=1):
        row = {"step": round_, "kl/full": kl, "score/mean": 100 + kl}
        if round_ < len(kls) + 1:
            following = kls[round_] if round_ < len(kls) else 50.0
            row["eval/score"] = worth(following) + 0.01 * generator.standard_normal()
        rows.append(row)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def three(tmp_path: Path, top: float = 16.0) -> list[str]:
    kls = [0.0, *(top * (step / 14) ** 1.5 for step in range(1, 15))]
    return [str(write_run(tmp_path / f"run-{seed}", kls, seed=seed)) for seed in range(3)]


def test_the_kl_of_an_evaluation_is_that_of_the_next_round(tmp_path: Path) -> None:
    answer = run(BudgetConfig(runs=tuple(three(tmp_path))))
    # Paired with its own round the curve would peak a step early; the last evaluation has no round after it.
    assert answer["num_evaluations"] == 3 * 14 and answer["repeated_over"] == "runs"
    assert answer["reached_peak"] and answer["interval"][0] <= PEAK <= answer["interval"][1]
    assert abs(answer["fit"]["peak_kl"] / PEAK - 1) < 0.05
    # What the budget gives up, of a peak worth 1.
    assert 1 - worth(answer["kl_budget"]) < 0.05
    assert all(point["proxy"] == pytest.approx(100 + point["kl"]) for point in answer["curve"])
    assert f"--kl-budget {answer['kl_budget']:.3g}" in answer["next"]


def test_runs_that_stop_short_say_so(tmp_path: Path) -> None:
    answer = run(BudgetConfig(runs=tuple(three(tmp_path, top=2.0))))
    assert not answer["reached_peak"] and answer["interval"][1] is None
    assert answer["says"].startswith("no peak seen up to KL ") and answer["interval"][0] < 2.0
    assert answer["kl_budget"] > 1.0


def rows_of(number: int, prompts: int, *, seed: int = 0) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    rows = []
    for name in range(number):
        for step in range(14):
            kl = 16 * (step / 13) ** 1.5
            for prompt in range(prompts):
                noise = 0.05 * generator.standard_normal()
                row = {"run": name, "step": step, "kl": kl, "proxy": kl, "held_out": worth(kl) + 0.1 * prompt + noise}
                rows.append(row | ({"prompt_id": f"p{prompt}"} if prompts > 1 else {}))
    return rows


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("number", "prompts", "kind", "units"),
    [(4, 1, "runs", 4), (1, 30, "prompts", 30), (2, 1, "evaluations", 4), (1, 1, "evaluations", 4)],
)
def test_what_repeats_the_experiment(tmp_path: Path, number: int, prompts: int, kind: str, units: int) -> None:
    answer = run(BudgetConfig(file=written(tmp_path / "rows.jsonl", rows_of(number, prompts))))
    assert (answer["repeated_over"], answer["num_repetitions"]) == (kind, units)
    assert answer["interval"][0] <= PEAK <= (answer["interval"][1] or math.inf)
    assert any("three are the least" in warning for warning in answer["warnings"]) == (kind != "runs")


def test_the_kl_of_a_policy_is_the_mean_over_its_responses(tmp_path: Path) -> None:
    # Single responses have KLs that scatter around that of the policy, and more so where it is large.
    rows = rows_of(1, 20)
    generator = np.random.default_rng(0)
    scattered = [{**row, "kl": row["kl"] * generator.exponential()} for row in rows]
    points = run(BudgetConfig(file=written(tmp_path / "rows.jsonl", scattered)))["curve"]
    assert points[-1]["kl_to"] < 30 and points[0]["kl_from"] == 0.0


def test_the_proxy_has_no_say(tmp_path: Path) -> None:
    rows = rows_of(3, 1)
    other = [{**row, "proxy": -7.0 * row["proxy"] ** 2} for row in rows]
    answers = [run(BudgetConfig(file=written(tmp_path / f"{n}.jsonl", each))) for n, each in enumerate((rows, other))]
    for answer in answers:
        for point in answer["curve"]:
            del point["proxy"]
    assert answers[0] == answers[1]


def test_another_unit_of_the_held_out_score_changes_no_kl(tmp_path: Path) -> None:
    rows = rows_of(3, 1)
    other = [{**row, "held_out": 10 * row["held_out"] - 3} for row in rows]
    first, second = (
        run(BudgetConfig(file=written(tmp_path / f"{n}.jsonl", each))) for n, each in enumerate((rows, other))
    )
    assert (first["kl_budget"], first["interval"]) == (second["kl_budget"], second["interval"])
    assert math.isclose(first["fit"]["peak_kl"], second["fit"]["peak_kl"], rel_tol=1e-6)


def test_runs_that_are_no_repetitions_are_refused(tmp_path: Path) -> None:
    runs = three(tmp_path)
    other = write_run(tmp_path / "other", [0.0, 1.0, 2.0], reward="b")
    with pytest.raises(InputError, match="has another reward than"):
        run(BudgetConfig(runs=(*runs, str(other))))
    with pytest.raises(InputError, match="named twice"):
        run(BudgetConfig(runs=(runs[0], runs[0])))
    with pytest.raises(InputError, match="is no run with metrics"):
        run(BudgetConfig(runs=(str(tmp_path),)))


def test_a_run_without_held_out_evaluations_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", [0.0, 1.0])
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    (path / "metrics.jsonl").write_text(
        "".join(json.dumps({k: v for k, v in r.items() if k != "eval/score"}) + "\n" for r in rows)
    )
    with pytest.raises(InputError, match="holds no held-out evaluation"):
        run(BudgetConfig(runs=(str(path),)))


def test_bad_rows_and_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(1, 1)
    rows[2]["kl"] = "much"
    path = written(tmp_path / "rows.jsonl", rows)
    assert main(["evaluate", "budget", path]) == 2
    assert f"{path}:3: kl: is 'much'" in capsys.readouterr().err
    assert main(["evaluate", "budget", path, "--skip-bad", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_bad"] == 1
    assert main(["evaluate", "budget", written(tmp_path / "few.jsonl", rows_of(1, 1)[:4])]) == 2
    assert "4 evaluations in 1 run are too few" in capsys.readouterr().err


def test_one_source() -> None:
    with pytest.raises(InputError, match="give a file of rows, or --runs"):
        load(BudgetConfig, overrides={})
