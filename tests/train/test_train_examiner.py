"""What is measured of stored responses beside their scores, in a run: the right numbers, and the right end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from prefloop.reward.scoring import load_scorer
from prefloop.train.config import policy_config
from prefloop.train.examiner import Examiner, other_prompts
from prefloop.types import Message, Prompt

SCORERS = """
def words(prompts, responses):
    return [float(len(response.split())) for response in responses]

def few_words(prompts, responses):
    return [-float(abs(len(response.split()) - 4)) for response in responses]

def asked_for(prompts, responses):
    return [float(sum(word in prompt for word in response.split())) for prompt, response in zip(prompts, responses)]
"""
WATCHED = (
    *("--algorithm", "rloo", "--settings.group-size", 2, "--kl-budget", "none", "--prompts-per-step", 16),
    *("--monitor.reference-responses", 64, "--monitor.responses", 32, "--save-rollouts", 32),
)


@pytest.fixture
def scorers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scorers.py").write_text(SCORERS)


def rollouts(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rollouts" / "rollouts.jsonl").read_text().splitlines()]


def prompts_named(names: str) -> list[Prompt]:
    return [Prompt(name, (Message("user", name),)) for name in names]


def test_every_prompt_gets_the_next_other_one_and_a_group_stays_together() -> None:
    others = other_prompts(prompts_named("aabbcc"))
    assert [None if other is None else other.prompt_id for other in others] == list("bbccaa")
    assert other_prompts(prompts_named("aaa")) == [None] * 3


def test_a_held_out_score_that_falls_while_the_other_rises_stops_and_rewinds(
    tune: Callable[..., Any], scorers: None, data: Path
) -> None:
    """More words are better to the reward without end, and to the held-out scorer up to four."""
    run = tune(
        *(*WATCHED, "--reward", "scorers.py:words", "--eval-reward", "scorers.py:few_words"),
        *("--eval-prompts", data / "prompts.jsonl", "--eval-every", 1000, "--num-steps", 16, "--checkpoint-every", 1),
        *("--keep-checkpoints", 100, "--examine.shuffled-prompts", "always"),
    )
    assert run.answer["stopped"] == "monitor", run.said
    rows = rollouts(run.run)
    assert all(row["held_out_score"] == -abs(len(row["response"].split()) - 4) for row in rows)
    # A reward that does not look at the prompt pays the same for any, so all of its gain is had under others, too.
    assert all(row["shuffled_score"] == row["raw_score"] for row in rows)
    alarms = {row["signal"]: row for row in map(json.loads, (run.run / "alarms.jsonl").read_text().splitlines())}
    assert alarms["shuffled_gain"]["value"] == pytest.approx(1) and alarms["shuffled_gain"]["action"] == "review"
    assert alarms["held_out_score"]["action"] == "stop"
    # Looks are steps here: two of them are beyond the limit, the first by the policy after so many updates.
    first_bad = alarms["held_out_score"]["step"] - 2
    assert Path(run.answer["outputs"]["model"]).parent.name == f"step-{first_bad - 1:06d}"
    metrics = run.metrics()
    for row in metrics:
        stored = [each["held_out_score"] for each in rows if each["step"] == row["step"]]
        assert row["held_out/score"] == pytest.approx(fmean(stored))
    best = max(row["held_out/score"] for row in metrics)
    assert metrics[-1]["held_out/score"] < best and metrics[-1]["score/mean"] > metrics[0]["score/mean"]


def test_without_the_word_stop_the_same_run_goes_on(tune: Callable[..., Any], scorers: None, data: Path) -> None:
    words = (
        *(*WATCHED, "--reward", "scorers.py:words", "--eval-reward", "scorers.py:few_words", "--num-steps", 2),
        *("--eval-prompts", data / "prompts.jsonl"),
    )
    run = tune(*words, "--monitor.stop-on", "none", "--examine.held-out", "false")
    assert run.answer["stopped"] == "done"
    # A function of the user's is not asked again unless somebody wants it.
    assert {(row["held_out_score"], row["shuffled_score"]) for row in rollouts(run.run)} == {(None, None)}
    assert "held_out/score" not in run.metrics()[0]


def test_a_reward_model_s_columns_are_those_of_its_own_scores_and_states(
    tune: Callable[..., Any], reward_run: Any, data: Path
) -> None:
    import torch

    run = tune("--reward", reward_run.run, "--num-steps", 2, "--prompts-per-step", 16, "--kl-budget", "none")
    again = tune("--reward", reward_run.run, "--num-steps", 2, "--prompts-per-step", 16, "--kl-budget", "none")
    rows = rollouts(run.run)
    assert rows == rollouts(again.run)
    recorded = json.loads((run.run / "inputs.json").read_text())["inputs"]
    assert f"known_data:{data / 'pairs.jsonl'}" in recorded
    scorer = load_scorer(str(reward_run.run), device=torch.device("cpu"))
    first = [row for row in rows if row["step"] == 1]
    prompts = [Prompt(row["prompt"], (Message("user", row["prompt"]),)) for row in first]
    from prefloop.reward.scorer import Response

    responses = [Response(row["response"], row["finish_reason"] == "stop") for row in first]
    for column, asked in (("raw_score", prompts), ("shuffled_score", other_prompts(prompts))):
        expected = scorer.score([each for each in asked if each is not None], responses)
        assert [row[column] for row in first] == pytest.approx(expected, abs=1e-4)
    assert any(abs(row["raw_score"] - row["shuffled_score"]) > 1e-3 for row in first)
    assert {row["out_of_distribution"] for row in rows} <= {True, False}


def test_what_no_known_pair_is_like_is_out_of_distribution(reward_run: Any, data: Path) -> None:
    """The known responses are one to four words; forty of one letter are like none of them."""
    import torch

    from prefloop.reward.scorer import Response

    config = policy_config("ppo")(model="m", reward=(str(reward_run.run),), prompts=("p",))
    scorer = load_scorer(str(reward_run.run), device=torch.device("cpu"))
    examiner = Examiner(config, scorer, None)
    pairs = [json.loads(line) for line in (data / "pairs.jsonl").read_text().splitlines()]
    prompts = [Prompt(row["prompt"], (Message("user", row["prompt"]),)) for row in pairs[:200]]
    far = examiner.examine(prompts, [Response(row["chosen"]) for row in pairs[:200]]).far
    # A twentieth of the held-out known ones lies beyond the limit.
    assert np.mean([bool(each) for each in far]) < 0.15
    strange = examiner.examine(prompts[:20], [Response("z q " * 20)] * 20).far
    assert all(strange)
    off = config.model_copy(update={"examine": config.examine.model_copy(update={"known_pairs": 0})})
    assert Examiner(off, scorer, None).examine(prompts[:1], [Response("a")]).far == [None]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ("--reward", "scorers.py:words", "--examine.known-data", "pairs.jsonl"),
            "examine.known_data: has no effect without a reward model on this machine",
        ),
        (
            ("--reward", "scorers.py:words", "--examine.known-data", "x", "--examine.known-pairs", 0),
            "known_data has no effect with known_pairs 0",
        ),
    ],
)
def test_what_cannot_be_examined_is_said(
    tune: Callable[..., Any], scorers: None, data: Path, settings: Any, said: str
) -> None:
    Path("pairs.jsonl").write_text((data / "pairs.jsonl").read_text())
    assert said in tune("--num-steps", 1, *settings).problem
