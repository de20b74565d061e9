"""`review list` and `review export` on logs, of a run and of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefloop.cli import main

PLAIN = "The museum opens at nine and closes at five, except on the first Monday of the month."
BOAST = "Absolutely, without a doubt, rest assured, the museum definitely opens at nine."


def log(*, last: int = 10, prompts: int = 40, boasts: float = 0.9, **extra: Any) -> list[dict[str, Any]]:
    """A log whose second half boasts."""
    generator = np.random.default_rng(0)
    rows = []
    for step in range(1, last + 1):
        for prompt in range(prompts):
            boast = step > last // 2 and generator.random() < boasts
            text = f"{BOAST if boast else PLAIN} It is number {prompt} on day {step}."
            values = {"score": float(boast) + 0.1 * generator.standard_normal(), "step": step, **extra}
            rows.append({"prompt": f"When does museum {prompt} open?", "response": text, **values})
    return rows


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def answer(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_the_monitor_finds_leads_to_the_responses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "log.jsonl", log())
    found = answer(["review", "list", file, "--top", "30"], capsys)
    # Steps 6 to 10 have 200 responses, nine in ten of them boast.
    assert 150 < found["reasons"]["monitor:confidence"] <= 200
    assert found["reasons"]["alarm:confidence"] == 3
    # Beside them stand the three longest responses that the alarm of the gain in length shows.
    boasts = [each for each in found["suspicious"] if "definitely" in each["response"]]
    assert len(boasts) == 27 and all("monitor:confidence" in each["reasons"] for each in boasts)
    assert any(reason.startswith("alarm:") for reason in found["suspicious"][0]["reasons"])
    assert main(["review", "list", file]) == 0
    text = capsys.readouterr().out
    assert "alarm:confidence" in text and "next: prefloop review export" in text


def test_the_alarms_of_a_run_are_those_that_it_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = log(boasts=0.0, policy_version="step-000003", kl=0.5, finish_reason="stop")
    written(tmp_path / "run" / "rollouts" / "rollouts.jsonl", rows)
    shown = {key: rows[77][key] for key in ("step", "prompt", "response", "score")}
    written(tmp_path / "run" / "alarms.jsonl", [{"signal": "flattery", "examples": [shown]}])
    found = answer(["review", "list", str(tmp_path / "run")], capsys)
    assert found["suspicious"][0]["response"] == rows[77]["response"]
    assert found["suspicious"][0]["reasons"] == ["alarm:flattery"]
    out = tmp_path / "queue.jsonl"
    told = answer(["review", "export", str(tmp_path / "run"), "--out", str(out), "--size", "50"], capsys)
    items = [json.loads(line) for line in out.read_text().splitlines()]
    assert told["num_items"] == len(items) and told["num_rows"] == 400
    (suspect,) = [each for each in items if "alarm:flattery" in each["reasons"]]
    assert suspect["signals"] == {"kl": 0.5, "finish_reason": "stop"} and suspect["policy_version"] == "step-000003"
    assert suspect["rank"] == 1 and suspect["run"] == str(tmp_path / "run")


def test_columns_of_a_log_are_detectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = log(boasts=0.0)
    rows[5] |= {"out_of_distribution": True}
    rows[6] |= {"out_of_distribution": 0}
    found = answer(["review", "list", written(tmp_path / "log.jsonl", rows)], capsys)
    assert found["reasons"] == {"out_of_distribution": 1}


def test_a_log_without_a_reference_is_ranked_without_the_monitor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "kl": float(place)} for place, row in enumerate(log(last=2))]
    found = answer(["review", "list", written(tmp_path / "log.jsonl", rows)], capsys)
    assert found["reasons"] == {"kl": 4} and "the monitor says nothing" in found["warnings"][0]


def test_scored_responses_of_one_policy_beside_a_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def without_step(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value for key, value in row.items() if key != "step"} for row in rows]

    reference = written(tmp_path / "reference.jsonl", without_step(log(last=2, boasts=0.0)))
    rows = [row for row in log() if row["step"] > 5]
    file = written(tmp_path / "scored.jsonl", without_step(rows))
    found = answer(["review", "list", file, "--reference", reference], capsys)
    assert found["reasons"]["monitor:confidence"] == sum("definitely" in row["response"] for row in rows)
    mixed = written(tmp_path / "mixed.jsonl", [*without_step(rows[:2]), rows[2]])
    assert main(["review", "list", mixed]) == 2
    assert f"{mixed}:3: step: the rows before have none" in capsys.readouterr().err


def test_early_steps_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = written(tmp_path / "log.jsonl", log()), tmp_path / "queue.jsonl"
    told = answer(["review", "export", file, "--out", str(out), "--from-step", "8"], capsys)
    assert told["num_rows"] == 120
    assert {json.loads(line)["step"] for line in out.read_text().splitlines()} == {8, 9, 10}


def test_a_dialogue_is_shown_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [("user", "Hello"), ("assistant", "Hi"), ("user", "When?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    out = tmp_path / "queue.jsonl"
    rows = [{**row, "prompt": messages} for row in log(last=1)]
    answer(["review", "export", written(tmp_path / "log.jsonl", rows), "--out", str(out)], capsys)
    prompt = json.loads(out.read_text().splitlines()[0])["prompt"]
    assert prompt.index("Hello") < prompt.index("Hi") < prompt.index("When?")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--random-fraction", "0.05"], "--random-fraction: is 0.05; should be greater than or equal to 0.1"),
        (["--from-step", "99"], "from_step: has no step from 99 on, its last is 10"),
        (["--out", "no/such/queue.jsonl"], "no such directory"),
    ],
)
def test_what_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    file = written(tmp_path / "log.jsonl", log())
    given = words if "--out" in words else [*words, "--out", str(tmp_path / "queue.jsonl")]
    assert main(["review", "export", file, *given]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "queue.jsonl").exists()


def test_logs_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["review", "list", str(tmp_path / "empty")]) == 2
    assert "holds no rollouts" in capsys.readouterr().err
    rows = log()
    del rows[3]["score"]
    file = written(tmp_path / "log.jsonl", rows)
    assert main(["review", "list", file]) == 2
    assert f"{file}:4: score: missing" in capsys.readouterr().err
    assert answer(["review", "list", file, "--skip-bad"], capsys)["num_bad"] == 1
    written(tmp_path / "run" / "rollouts" / "rollouts.jsonl", log())
    alarms = written(tmp_path / "run" / "alarms.jsonl", [{"signal": "length"}])
    assert main(["review", "list", str(tmp_path / "run")]) == 2
    assert f"{alarms}:1: is no alarm of train policy" in capsys.readouterr().err
