"""`evaluate winrate`: both kinds of rows, by hand where that can be done, and every way of getting them wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special

from prefloop.evaluate.config import WinrateConfig
from prefloop.evaluate.winrate import run

KEYS = {
    *("win_rate", "standard_error", "length_controlled_win_rate", "length_coefficient"),
    *("difficulty_used", "num_rows"),
}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judged(seed: int, number: int = 300) -> list[dict[str, Any]]:
    """Rows of a judge who likes length, with a difficulty each."""
    generator = np.random.default_rng(seed)
    first, second = generator.integers(50, 400, number), generator.integers(100, 600, number)
    gamma = generator.standard_normal(number)
    chance = special.expit(0.3 + 0.004 * (second - first) + 0.8 * gamma)
    return [
        {
            "instruction": f"question {place}",
            "output_1": "x" * int(first[place]),
            "output_2": "\u00e9" * int(second[place]),
            "preference": int(1 + (generator.random() < chance[place])),
            "difficulty": float(gamma[place]),
        }
        for place in range(number)
    ]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_texts_and_lengths_give_the_same_answer(tmp_path: Path, name: str) -> None:
    rows = judged(0)
    measured = [
        {
            **{key: row[key] for key in ("instruction", "preference", "difficulty")},
            "length_1": len(row["output_1"]),
            # Characters, not bytes.
            "length_2": len(row["output_2"]),
        }
        for row in rows
    ]
    texts = run(WinrateConfig(file=str(written(tmp_path / name, rows)), num_resamples=50))
    lengths = run(WinrateConfig(file=str(written(tmp_path / f"measured-{name}", measured)), num_resamples=50))
    assert texts == lengths and texts.keys() >= KEYS
    assert texts["difficulty_used"] and texts["length_coefficient"] < 0 and texts["num_rows"] == 300
    assert texts["length_controlled_win_rate"] < texts["win_rate"]
    low, high = texts["length_controlled_win_rate_interval"]
    assert low < texts["length_controlled_win_rate"] < high


def test_the_raw_rate_by_hand(tmp_path: Path) -> None:
    # 1, 0, 1/2, 1 -> 62.5 %; deviations .375, -.625, -.125, .375: sd sqrt(0.6875 / 3), over sqrt(4): 0.2394.
    rows = [
        {"instruction": str(place), "preference": preference, "length_1": 10 + place, "length_2": 20 - place}
        for place, preference in enumerate([2, 1, 1.5, 2])
    ]
    answer = run(WinrateConfig(file=str(written(tmp_path / "rows.jsonl", rows)), num_resamples=20))
    assert answer["win_rate"] == 62.5
    assert math.isclose(answer["standard_error"], 23.94, abs_tol=0.01)
    assert not answer["difficulty_used"]


def test_rows_of_one_instruction_are_not_independent(tmp_path: Path) -> None:
    rows = judged(1, 100)
    once = run(WinrateConfig(file=str(written(tmp_path / "once.jsonl", rows)), num_resamples=20))
    four = run(WinrateConfig(file=str(written(tmp_path / "four.jsonl", rows * 4)), num_resamples=20))
    assert math.isclose(once["standard_error"], four["standard_error"], rel_tol=1e-9)
    assert np.allclose(once["win_rate_interval"], four["win_rate_interval"])


def test_all_wins_have_an_interval_with_a_width(tmp_path: Path) -> None:
    rows = [{**row, "preference": 2} for row in judged(2, 30)]
    answer = run(WinrateConfig(file=str(written(tmp_path / "rows.jsonl", rows)), num_resamples=20))
    assert answer["win_rate"] == 100 and answer["win_rate_interval"][0] < 95
    assert math.isclose(answer["length_controlled_win_rate"], 100)
    assert any("guess" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"output_1": "abc", "output_2": "abcd"}, "length cannot be controlled"),
        ({"difficulty": 1.0}, "all difficulties are equal"),
        ({"instruction": "the same"}, "all rows have one instruction"),
    ],
)
def test_what_cannot_be_told_apart_is_said(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    rows = [{**row, **change} for row in judged(3, 40)]
    answer = run(WinrateConfig(file=str(written(tmp_path / "rows.jsonl", rows)), num_resamples=20))
    assert any(told in warning for warning in answer["warnings"])


def test_a_difficulty_that_some_rows_lack_is_not_used(tmp_path: Path) -> None:
    rows = judged(4, 40)
    rows[7]["difficulty"] = None
    answer = run(WinrateConfig(file=str(written(tmp_path / "rows.jsonl", rows)), num_resamples=20))
    assert not answer["difficulty_used"]
    assert answer["warnings"] == ["1 of 40 rows have no difficulty: it is not used"]


GOOD = {"instruction": "a", "preference": 1, "length_1": 3, "length_2": 4}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({**GOOD, "preference": 0}, "preference: is 0; give a number from 1 to 2"),
        ({**GOOD, "preference": "2"}, "preference: is '2'; give a number from 1 to 2"),
        ({**GOOD, "preference": True}, "preference: is True; give a number from 1 to 2"),
        ({**GOOD, "preference": None}, "preference: is null; give a number from 1 to 2"),
        ({"preference": 1}, "instruction: is missing; give what both responses answer"),
        ({"instruction": "a", "preference": 1}, "output_1: is missing; give output_1 and output_2, or length_1"),
        ({"instruction": "a", "preference": 1, "output_2": "b"}, "output_1: is missing; give both responses as text"),
        ({"instruction": "a", "preference": 1, "output_1": "b", "output_2": 3}, "output_2: is a number; give both"),
        ({**GOOD, "length_2": -1}, "length_2: is -1; give a number of at least 0"),
        ({"instruction": "a", "preference": 1, "length_1": 3}, "length_2: is missing; give a number of at least 0"),
        ({**GOOD, "difficulty": "hard"}, "difficulty: is 'hard'; give a number"),
    ],
)
def test_a_bad_row_is_named_with_its_line(
    prefloop: Callable[..., Any], tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    path = written(tmp_path / "rows.jsonl", [{**GOOD, "instruction": "b", "preference": 2}, row])
    assert prefloop("evaluate winrate", path).problem.startswith(f"{path}:2: {problem}")
    outcome = prefloop("evaluate winrate", path, "--skip-bad", "--num-resamples", 5)
    assert outcome.code == 0 and (outcome.answer["num_rows"], outcome.answer["num_bad"]) == (1, 1)
    assert f"left out 1 of 2 rows that cannot be used: {path}:2 ({problem.partition(';')[0]}" in outcome.said


def test_files_that_hold_nothing(prefloop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    assert "the file holds no rows" in prefloop("evaluate winrate", tmp_path / "empty.jsonl").problem
    assert "no such file" in prefloop("evaluate winrate", tmp_path / "none.jsonl").problem
    bad = written(tmp_path / "bad.jsonl", [{"preference": 1}])
    assert "none of 1 rows can be used" in prefloop("evaluate winrate", bad, "--skip-bad").problem
