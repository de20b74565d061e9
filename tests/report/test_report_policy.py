"""The page of a policy run: alarms where they came, the curve that turns, the gate's word, whom to read first."""

import json
import math
import random

import pytest

from prefloop.report.command import make
from prefloop.report.config import ReportConfig
from prefloop.report.policy import render_policy
from prefloop.report.suspicious import doubt
from prefloop.types import InputError

DECISION = {
    "verdict": "hold",
    "label": "helper:2",
    "candidate": "ab" * 32,
    "checks": [
        {"name": "audit", "passed": True, "observed": "pass", "required": "not blocked", "reason": "audit passes"},
        {"name": "win_rate", "passed": False, "observed": 0.48, "required": "above 0.5", "reason": "no better <b>"},
    ],
}


@pytest.fixture
def run_dir(tmp_path):
    """Ten steps: the score rises, the held-out score is at its best in step 5; an alarm to read and one to stop."""
    path = tmp_path / "policy"
    (path / "rollouts").mkdir(parents=True)
    result = {"command": "train policy", "stopped": "monitor", "outputs": {"model": "checkpoints/step-000006/policy"}}
    metrics = [
        {
            "step": step,
            "score/mean": 0.1 * step,
            "held_out/score": -abs(step - 5) / 10,
            "kl/full": 0.04 * step**2,
            "kl/budget_left": 9 - 0.04 * step**2,
            "policy/entropy": 1 / step,
            "monitor/confidence": 0.05 * step,
            "monitor/language": 0.0,
            "monitor/held_out_score": -abs(step - 5) / 10,
            "monitor/num_alarms": 0.0,
        }
        for step in range(1, 11)
    ]
    rows = [
        {
            "rollout_id": f"r{step}-{place}",
            "prompt": f"prompt {step}-{place}",
            "response": f"response {step}-{place}",
            "score": step + place / 100,
            "kl": 1.0,
            "finish_reason": "stop",
            "step": step,
            "score_spread": 1.5 if (step, place) == (2, 7) else None,
            "out_of_distribution": (step, place) in ((1, 3), (4, 9)),
            "held_out_score": -0.25,
        }
        for step in range(1, 12)
        for place in range(20)
    ]

    def example(step, place):
        row = next(row for row in rows if row["rollout_id"] == f"r{step}-{place}")
        return {name: row[name] for name in ("step", "prompt", "response", "score")}

    def alarm(step, signal, action, *places):
        return {
            **{
                "signal": signal,
                "step": step,
                "value": 0.35,
                "limit": 0.2,
                "action": action,
                "message": "it <i>left</i>",
            },
            "examples": [example(step, place) for place in places],
        }

    alarms = [alarm(7, "confidence", "review", 1, 2), alarm(11, "held_out_score", "stop", 1, 2, 3)]
    (path / "result.json").write_text(json.dumps(result))
    for name, records in (("metrics", metrics), ("alarms", alarms), ("rollouts/rollouts", rows)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    return path


def test_the_alarms_stand_in_a_table_and_on_the_curves(run_dir, read_page):
    read = read_page(render_policy(run_dir))
    assert "ended: stopped by an alarm" in read.words
    assert "7 confidence read these responses it <i>left</i>" in read.words
    assert "11 held out score stop the run" in read.words
    marked = {}
    for figure in read.figures:
        shapes = figure["layout"].get("shapes", [])
        # The curves in the fold at the end have the same name.
        marked.setdefault(figure["data"][0]["name"], [(each["x0"], each["line"]["color"]) for each in shapes])
    yellow, red = (7, "#d9a400"), (11, "#e0542f")
    assert marked["run"] == [yellow, red]
    assert marked["confidence"] == [yellow] and marked["held out score"] == [red]
    # The alarm's own step was not trained on: its value comes from the alarm.
    (signal,) = [figure["data"] for figure in read.figures if figure["data"][0]["name"] == "held out score"]
    assert (signal[0]["x"][-1], signal[0]["y"][-1]) == (11, 0.35) and signal[1]["y"] == [0.2, 0.2]
    assert "The same in every look: language (0)." in read.words


def test_the_proxy_and_the_held_out_score_are_drawn_over_the_root_of_the_kl(run_dir, read_page):
    figures = read_page(render_policy(run_dir)).figures
    (figure,) = [each for each in figures if each["data"][0]["name"] == "score that is optimised"]
    proxy, held_out, result, alarm = figure["data"]
    assert proxy["x"] == held_out["x"] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert proxy["y"][-1] == pytest.approx(1) and max(held_out["y"]) == held_out["y"][4] == 0
    # The policy after six updates wrote the responses of step 7.
    assert (result["name"], result["x"], result["y"]) == ("the result, step 6", [pytest.approx(1.4)], [-0.2])
    assert alarm["name"] == "held-out alarm, step 11"
    assert figure["layout"]["annotations"][0]["text"] == "KL budget 9"
    assert figure["layout"]["shapes"][0]["x0"] == pytest.approx(math.sqrt(9))


def test_ten_suspicious_responses_are_those_of_the_alarms_then_the_doubtful_then_the_high(run_dir, read_page):
    words = read_page(render_policy(run_dir)).words
    start, end = words.index("Examples of the alarms first"), words.index("10 of the 220 responses")
    shown = words[start:end]
    order = ["7-1", "11-1", "7-2", "11-2", "11-3", "4-9", "1-3", "11-19", "11-18", "11-17"]
    places = [shown.index(f"prompt {name} ") for name in order]
    assert places == sorted(places) and shown.count("alarm: ") == 5
    assert shown.count("high score, out of distribution") == 2
    assert "held-out \N{MINUS SIGN}0.25" in shown
    assert render_policy(run_dir) == render_policy(run_dir)


def test_doubt_puts_distance_first_and_counts_what_the_members_allow():
    rows = [{"score": 2.0}, {"score": 1.5, "score_spread": 0.7}, {"score": -3.0, "out_of_distribution": True}]
    shuffled = random.Random(1).sample(rows, 3)
    assert sorted(shuffled, key=doubt, reverse=True) == rows[::-1]


def test_the_gate_s_decision_stands_on_the_page_what_failed_first(run_dir, read_page):
    words = read_page(render_policy(run_dir, DECISION, "registry, event 4")).words
    assert "helper:2, hold: 2 checks, 1 passed; recorded in registry, event 4." in words
    failed = words.index("no win_rate 0.48 above 0.5 no better <b>")
    assert failed < words.index("yes audit pass not blocked audit passes")
    assert "The gate" not in read_page(render_policy(run_dir)).words
    with pytest.raises(InputError, match="checks"):
        render_policy(run_dir, {"verdict": "hold", "checks": 3}, "registry")


def test_a_run_that_was_not_watched_says_so(run_dir, read_page):
    (run_dir / "alarms.jsonl").unlink()
    assert "No signal left its limits." in read_page(render_policy(run_dir)).words
    (run_dir / "metrics.jsonl").write_text('{"step": 1, "score/mean": 0.5}\n')
    words = read_page(render_policy(run_dir)).words
    assert "The run was not watched" in words and "Score against KL" not in words


def test_a_decision_has_no_place_on_another_page(tmp_path):
    (tmp_path / "result.json").write_text('{"command": "train sft", "stopped": "done"}')
    with pytest.raises(InputError, match="registry: has no effect on a run of train sft"):
        make(ReportConfig(run=str(tmp_path)), DECISION, "registry")
