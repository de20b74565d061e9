"""`train policy` under the monitor: alarms in the run, an end where one is asked for, and the same after a crash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.monitor.config import TrainingMonitor
from prefloop.monitor.log import LogWatch

QUICK = ("--monitor.reference-responses", 64, "--monitor.responses", 32, "--save-rollouts", 32)


@pytest.fixture
def longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """Settings of a run that is rewarded for words, and learns to write as many as it may."""
    monkeypatch.chdir(tmp_path)
    Path("rules.py").write_text(
        "def words(prompts, responses):\n    return [float(len(r.split())) for r in responses]\n"
    )
    return (
        "--reward",
        "rules.py:words",
        "--algorithm",
        "rloo",
        "--settings.group-size",
        4,
        "--kl-budget",
        "none",
        *QUICK,
    )


def stored(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


@pytest.fixture
def stopped(tune: Callable[..., Any], longer: tuple[object, ...]) -> Any:
    return tune(
        *(*longer, "--num-steps", 40, "--prompts-per-step", 8, "--checkpoint-every", 2, "--keep-checkpoints", 100),
        *("--monitor.stop-on", "length", "--out", "watched"),
    )


def test_an_alarm_that_stops_gives_the_last_policy_before_it(stopped: Any, tune: Callable[..., Any]) -> None:
    assert stopped.answer["stopped"] == "monitor", stopped.said
    (alarm,) = [each for each in stored(stopped.run, "alarms.jsonl") if each["signal"] == "length"]
    # Two looks of one step: the first of them was by the policy after this many updates.
    first_bad = alarm["step"] - 2
    kept = int(Path(stopped.answer["outputs"]["model"]).parent.name.removeprefix("step-"))
    assert kept < first_bad <= kept + 2
    assert f"alarm at step {alarm['step']}, length (review): characters: " in stopped.said
    rows = stopped.metrics()
    assert "monitor/length" not in rows[0] and rows[-1]["monitor/length"] > rows[2]["monitor/length"]
    # The step of the alarm is not trained on.
    assert rows[-1]["step"] == alarm["step"] - 1
    assert stored(stopped.run, "rollouts/rollouts.jsonl")[-1]["step"] == alarm["step"]


def test_without_a_word_on_it_a_run_goes_on_and_without_the_monitor_nothing_is_watched(
    tune: Callable[..., Any], longer: tuple[object, ...]
) -> None:
    words = (*longer, "--num-steps", 4, "--prompts-per-step", 8)
    watched, alone = tune(*words), tune(*words, "--monitor.enabled", "false")
    assert watched.answer["stopped"] == alone.answer["stopped"] == "done"
    assert any(key.startswith("monitor/") for key in watched.metrics()[-1])
    assert not any(key.startswith("monitor/") for row in alone.metrics() for key in row)
    # Watching changes nothing of the run.
    for key in ("score/mean", "kl/full", "policy/grad_norm"):
        assert [row[key] for row in watched.metrics()] == [row[key] for row in alone.metrics()]


def test_a_run_that_goes_on_after_a_crash_is_watched_as_if_unbroken(
    stopped: Any, tune: Callable[..., Any], longer: tuple[object, ...]
) -> None:
    broken = Path("broken")
    shutil.copytree(stopped.run, broken)
    (broken / "result.json").unlink()
    for directory in sorted((broken / "checkpoints").iterdir())[3:]:
        shutil.rmtree(directory)
    (broken / "alarms.jsonl").unlink()
    again = tune(
        *(*longer, "--num-steps", 40, "--prompts-per-step", 8, "--checkpoint-every", 2, "--keep-checkpoints", 100),
        *("--monitor.stop-on", "length", "--out", "broken"),
    )
    assert again.answer["stopped"] == "monitor"
    assert Path(again.answer["outputs"]["model"]) == Path(stopped.answer["outputs"]["model"])
    assert stored(broken, "alarms.jsonl") == stored(stopped.run, "alarms.jsonl")


def test_a_log_read_in_pieces_is_the_log_read_at_once(stopped: Any, tmp_path: Path) -> None:
    settings = TrainingMonitor(reference_responses=64, responses=40, patience=1)
    whole = LogWatch(settings)
    alarms = whole.read_on(stopped.run / "rollouts" / "rollouts.jsonl")
    assert alarms
    lines = (stopped.run / "rollouts" / "rollouts.jsonl").read_text().splitlines(keepends=True)
    piecewise, path, found = LogWatch(settings), tmp_path / "log.jsonl", []
    for start in range(0, len(lines), 32):
        with path.open("a") as file:
            file.writelines(lines[start : start + 32])
        found += piecewise.read_on(path)
    assert found == alarms
    assert piecewise.watch is not None and whole.watch is not None
    assert piecewise.watch.signals == whole.watch.signals


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("--save-rollouts", 0), "save_rollouts: the monitor watches the stored responses, and none are stored"),
        (("--monitor.stop-on", "lenght"), "no signal 'lenght' has limits; known: length, "),
    ],
)
def test_what_cannot_be_watched_is_said(
    tune: Callable[..., Any], longer: tuple[object, ...], settings: Any, said: str
) -> None:
    assert said in tune(*longer, "--num-steps", 1, *settings).problem
