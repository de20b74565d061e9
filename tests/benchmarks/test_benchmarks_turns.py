"""Processes that take their steps when they are told to."""

from __future__ import annotations

import os
import sys

import pytest
from benchmarks.peers.cases import Case, told
from benchmarks.peers.turns import Runner

from prefloop.types import EnvironmentStop

COUNTER = """
from benchmarks.peers.meter import Meter
print("noise")
meter = Meter(threads=1, answers={"twice": lambda word: {"said": 2 * word}})
meter.ready(order=[1, 2])
for step in range(3):
    meter.counts["tokens"] += step + 10
    print("more noise")
    sum(range(200_000))
    meter.step_done()
raise RuntimeError("no more steps")
"""


def runner(code: str) -> Runner:
    return Runner("a peer", [sys.executable, "-c", code], environment=os.environ)


def test_steps_questions_and_the_end() -> None:
    with runner(COUNTER.replace('print("noise")', "")) as process:
        assert process.facts == {"order": [1, 2]}
        assert process.step()["tokens"] == 10
        assert process.ask("twice ab") == {"said": "abab"}
        second = process.step()
        assert second["tokens"] == 11
        assert 0 < second["seconds"] < 10 and second["peak_mib"] > 1
        process.step()
        with pytest.raises(EnvironmentStop, match=r"a peer ended with 1:[\s\S]*no more steps"):
            process.step()
    assert [report["tokens"] for report in process.reports] == [10, 11, 12]


def test_seconds_leave_out_the_waiting() -> None:
    sleeper = COUNTER.replace('print("noise")', "import time").replace("sum(range(200_000))", "time.sleep(0.3)")
    with runner(sleeper) as process:
        # One thread counts this process's CPU seconds.
        assert process.step()["seconds"] < 0.2


def test_a_case_survives_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("grpo", "small", "fixed", "fp32", 1, 6, "bed", order=(3, 1), settings={"micro_batch": 8})
    monkeypatch.setattr(sys, "argv", ["ours", case.words()])
    assert told() == case
