"""Rewards of every kind in the on-policy loop: sums, ensembles, servers that come and go, shaping."""

from __future__ import annotations

import json
import shutil
import threading

import pytest
import torch

from prefloop.reward import client
from prefloop.reward.function import FunctionScorer
from prefloop.reward.serve import PATH, allowed_hosts, listen, make_app, server_of

FEW = ("--prompts-per-step", 8, "--kl-budget", "none", "--kl-coef", 0)


@pytest.fixture(scope="module")
def functions(data):
    return data / "rewards.py"


def rollouts_of(outcome):
    return [json.loads(line) for line in (outcome.run / "rollouts" / "rollouts.jsonl").read_text().splitlines()]


def without_times(outcome):
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in outcome.metrics()]


def test_a_weighted_sum_of_functions(tune, functions):
    rewards = (f"{functions}:count_e@0.5", f"{functions}:short@2")
    outcome = tune("--reward", *rewards, "--num-steps", 1, "--shaping.score-clip", 100, *FEW)
    assert outcome.code == 0, outcome.said
    assert "the weighted sum 0.5 x" in outcome.said
    for row in rollouts_of(outcome):
        words, number = row["response"].split(), row["response"].count("e")
        assert row["score"] == pytest.approx(0.5 * number - 2 * len(words))
    inputs = json.loads((outcome.run / "inputs.json").read_text())["inputs"]
    assert {"reward:0", "reward:1"} <= inputs.keys()


def test_an_ensemble_writes_its_spread(prefloop, tune, data, sft_run, reward_run, tmp_path):
    second = prefloop(
        *("train reward", "--model", sft_run.run, "--data", data / "pairs.jsonl", "--out", tmp_path / "second"),
        *("--optimizer.lr", 3e-3, "--seed", 5),
    )
    for place, run in enumerate((reward_run, second)):
        shutil.copytree(run.model, tmp_path / "ensemble" / f"member-{place}")
    words = ("--num-steps", 1, "--shaping.score-clip", 100, *FEW)
    mean = tune("--reward", tmp_path / "ensemble", *words)
    worst = tune("--reward", tmp_path / "ensemble", "--scoring.ensemble", "worst", *words)
    assert mean.code == 0 and worst.code == 0, mean.said + worst.said
    for row, low in zip(rollouts_of(mean), rollouts_of(worst), strict=True):
        # Two members: the worst lies one (biased) deviation below the mean.
        assert row["response"] == low["response"]
        assert row["score_spread"] == pytest.approx(low["score_spread"]) and row["score_spread"] > 0
        assert low["score"] == pytest.approx(row["score"] - row["score_spread"], abs=1e-5)
    spread = sum(row["score_spread"] for row in rollouts_of(mean)) / 8
    assert mean.metrics()[0]["score/spread"] == pytest.approx(spread, rel=1e-5)
    assert mean.answer["outputs"]["value"], "the value model starts from the first member"


class Server:
    """Our own reward server around a function; it answers 503 from request `away_after` on, until told otherwise."""

    def __init__(self, scorer, away_after):
        self.scorer, self.left = scorer, away_after
        self.version = scorer.version
        self.socket = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}{PATH}"
        app = make_app(self, hosts=allowed_hosts("127.0.0.1"), token=None, max_body_bytes=10**6, max_batch=100)
        self.server = server_of(app)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    def score_with_spread(self, prompts, responses):
        from prefloop.types import EnvironmentStop

        if self.left == 0:
            raise EnvironmentStop("the accelerator is gone")
        self.left -= 1
        return self.scorer.score(prompts, responses), None

    def close(self):
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()


def test_a_run_whose_reward_server_stays_away_goes_on_later(tune, functions, monkeypatch, tmp_path):
    monkeypatch.setattr(client.time, "sleep", lambda seconds: None)
    words = ("--num-steps", 6, "--checkpoint-every", 50, "--scoring.retries", 2, *FEW)
    server = Server(FunctionScorer(f"{functions}:count_e"), away_after=10**6)
    try:
        whole = tune("--reward", server.url, *words, out=tmp_path / "whole")
        assert whole.code == 0, whole.said
        server.left = 3
        stopped = tune("--reward", server.url, *words, out=tmp_path / "run")
        assert stopped.code == 3
        last = stopped.said.strip().splitlines()[-1]
        assert last.startswith(f"stopped: reward server {server.url}: status 503 the accelerator is gone (tried 3")
        assert last.endswith("; run the same command again to go on")
        assert not (tmp_path / "run" / "result.json").exists()
        server.left = 10**6
        resumed = tune("--reward", server.url, *words, out=tmp_path / "run")
    finally:
        server.close()
    assert f"resuming from {tmp_path / 'run' / 'checkpoints' / 'step-000003'}" in resumed.said, "three rounds are done"
    assert without_times(resumed) == without_times(whole)
    same = [(outcome.model / "model.safetensors").read_bytes() for outcome in (resumed, whole)]
    assert same[0] == same[1]


def test_scores_relative_to_the_reference_lie_between_0_and_1(tune, functions):
    words = ("--reward", f"{functions}:count_e", "--num-steps", 2, "--shaping.relative-to-reference", "true", *FEW)
    outcome = tune(*words, "--shaping.num-reference-samples", 3, "--save-rollouts", 100)
    assert outcome.code == 0, outcome.said
    rows = rollouts_of(outcome)
    assert all(0 < row["score"] < 1 for row in rows)
    # More e means a higher score, but not in proportion: it depends on the reference's answers to the same prompt.
    few, many = ([row["score"] for row in rows if (row["response"].count("e") > 5) == more] for more in (False, True))
    assert sum(many) / len(many) > sum(few) / len(few) + 0.2
    other = tune(*words, "--shaping.num-reference-samples", 2, "--save-rollouts", 100)
    assert [row["score"] for row in rollouts_of(other)] != [row["score"] for row in rows]
    again = tune(*words, "--shaping.num-reference-samples", 3, "--save-rollouts", 100)
    assert [row["score"] for row in rollouts_of(again)] == [row["score"] for row in rows]


def test_masked_responses_teach_nothing(tune, functions):
    """With one token, what is finished is empty and scores 0: without a baseline only cut-off responses could teach."""
    words = ("--reward", f"{functions}:count_e", "--algorithm", "reinforce", "--settings.baseline", "none")
    words = (*words, "--num-steps", 1, "--max-new-tokens", 1, "--prompts-per-step", 40, *FEW[2:])
    masked, kept = (tune(*words, "--shaping.truncated", how).metrics()[0] for how in ("mask", "keep"))
    assert 0.5 < masked["response/truncated_fraction"] < 1
    assert masked["policy/grad_norm"] == 0 and kept["policy/grad_norm"] > 0
    assert masked["policy/ratio_mean"] == pytest.approx(1), "the mean is over what is left"


def test_free_length_and_price_by_hand(tune, functions):
    words = ("--reward", f"{functions}:count_e", "--num-steps", 1, "--shaping.score-clip", 100, *FEW)
    priced = ("--shaping.length-penalty-coef", 0.5, "--shaping.free-length", 3)
    plain, less = rollouts_of(tune(*words)), rollouts_of(tune(*words, *priced))
    differences = {round(row["score"] - other["score"], 4) for row, other in zip(plain, less, strict=True)}
    assert differences <= {0.5 * tokens for tokens in range(14)} and len(differences) > 2
    problem = tune(*words, "--shaping.free-length", 3).problem
    assert "free_length has no effect without a length_penalty_coef" in problem


def test_a_masked_row_is_in_no_denominator():
    """Half of the rows masked: the loss is that of the other half alone."""
    from prefloop.functional.losses import loss_denominator, policy_gradient_loss

    logprobs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
    mask, advantages = torch.ones(2, 2, dtype=torch.bool), torch.tensor([[1.0, 1.0], [5.0, 5.0]])
    masked = mask & torch.tensor([[True], [False]])
    denominator = loss_denominator(masked, reduction="response")
    assert policy_gradient_loss(logprobs, advantages, masked, denominator=denominator).loss.item() == 3.0
