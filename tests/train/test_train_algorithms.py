"""Every algorithm on a tiny policy: it learns, it does what sets it apart, and micro-batches change nothing."""

from __future__ import annotations

import itertools
import json
import math
import shutil

import pytest
import torch

from prefloop.data.read import read_demonstrations
from prefloop.models.load import load_policy
from prefloop.train.algorithms import ALGORITHMS
from prefloop.train.sft import mean_loss

WITHOUT_REWARD_LOSS = {"online_dpo": "preference/loss"}
FEW = ("--prompts-per-step", 8, "--kl-budget", "none", "--kl-coef", 0)


@pytest.fixture(scope="module")
def count_e(data):
    return ("--reward", f"{data / 'rewards.py'}:count_e")


@pytest.fixture(scope="module")
def rewards(tmp_path_factory):
    """Reward functions with ties: whether the response has a tree, and the same for every response."""
    path = tmp_path_factory.mktemp("rewards") / "ties.py"
    path.write_text(
        "def has_tree(prompts, responses):\n    return [float('tree' in text) for text in responses]\n\n\n"
        "def constant(prompts, responses):\n    return [0.7] * len(responses)\n"
    )
    return path


def weights_of(directory):
    return load_policy(directory)[0].state_dict()


def assert_same_weights(a, b):
    for name, weight in weights_of(a).items():
        assert torch.equal(weight, weights_of(b)[name]), name


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_raises_the_score(tune, count_e, algorithm):
    # GSPO's clip of a few ten-thousandths wants many small updates; the others take larger ones.
    settings = ("--settings.clip-range", 0.05, "--settings.clip-range-high", 0.05) if algorithm == "gspo" else ()
    outcome = tune(*count_e, "--algorithm", algorithm, "--num-steps", 20, "--kl-budget", "none", *settings)
    assert outcome.code == 0, outcome.said
    rows = outcome.metrics()
    early, late = (sum(row["score/mean"] for row in rows[part]) / 4 for part in (slice(0, 4), slice(-4, None)))
    assert late > early + 1.0
    assert rows[0]["kl/full"] == pytest.approx(0, abs=1e-5) and rows[-1]["kl/full"] > 0.05


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name not in ("ppo", "rloo")])
def test_micro_batches_change_neither_loss_nor_gradient(tune, count_e, algorithm):
    words = (*count_e, "--algorithm", algorithm, "--num-steps", 2, "--prompts-per-step", 8, "--kl-coef", 0.1)
    whole, split = (tune(*words, "--token-budget", budget).metrics() for budget in (10**6, 256))
    loss = WITHOUT_REWARD_LOSS.get(algorithm, "policy/loss")
    for row, other in zip(whole, split, strict=True):
        for key in ("policy/grad_norm", "policy/entropy", "kl/full", "policy/clip_fraction"):
            assert other[key] == pytest.approx(row[key], rel=2e-5, abs=1e-6), key
        assert other[loss] == pytest.approx(row[loss], rel=1e-5, abs=1e-6)


def test_dapo_samples_further_prompts_in_place_of_flat_groups(tune, rewards):
    words = ("--reward", f"{rewards}:has_tree", "--algorithm", "dapo", "--num-steps", 2, "--save-rollouts", 64)
    settings = ("--settings.group-size", 3, "--settings.num-resamples", 8, *FEW)
    outcome = tune(*words, *settings)
    first = outcome.metrics()[0]
    assert first["group/flat_fraction"] > 0 and first["group/resamples"] >= 1
    rollouts = [json.loads(line) for line in (outcome.run / "rollouts" / "rollouts.jsonl").read_text().splitlines()]
    for step in (1, 2):
        groups = {}
        for row in rollouts:
            if row["step"] == step:
                groups.setdefault(row["group"], []).append(row)
        assert len(groups) == 8, "as many groups as were asked for"
        assert all(len({row["score"] for row in group}) == 2 for group in groups.values())
        assert all(len({row["prompt_id"] for row in group}) == 1 for group in groups.values())
    once = tune(*words, *settings, "--settings.num-resamples", 0).metrics()[0]
    assert "group/resamples" not in once
    assert first["tokens/generated"] > once["tokens/generated"], "what was thrown away was generated too"


@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "rloo", "online_dpo"])
def test_without_spread_nothing_is_learned_and_it_is_said_once(tune, rewards, sft_run, algorithm):
    words = ("--reward", f"{rewards}:constant", "--algorithm", algorithm, "--num-steps", 3)
    outcome = tune(*words, *FEW)
    assert outcome.code == 0
    warnings = [line for line in outcome.said.splitlines() if line.startswith("warning")]
    assert warnings == ["warning: in step 1 no group has scores that differ: nothing to learn from"]
    assert all(row["group/flat_fraction"] == 1 for row in outcome.metrics())
    assert_same_weights(outcome.model, sft_run.model)


def test_ppo_with_a_value_head_learns_values_on_the_trunk(tune, count_e):
    words = (*count_e, "--num-steps", 20, "--kl-budget", "none", "--settings.value-head", "true")
    outcome = tune(*words, "--settings.vf-coef", 0.5)
    assert outcome.code == 0, outcome.said
    rows = outcome.metrics()
    assert rows[0]["value/explained_variance"] == pytest.approx(0, abs=1e-6), "a head of zeros explains nothing"
    assert max(row["value/explained_variance"] for row in rows) > 0.1
    assert "value" not in outcome.answer["outputs"] and "value/lr" not in rows[0]


def test_a_value_head_survives_a_resume(prefloop, tune, count_e, tmp_path):
    words = (*count_e, "--num-steps", 6, "--settings.value-head", "true", "--checkpoint-every", 2, *FEW)
    words = (*words, "--keep-checkpoints", 9)
    whole = tune(*words, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    (tmp_path / "half" / "result.json").unlink()
    shutil.rmtree(tmp_path / "half" / "checkpoints" / "step-000006")
    resumed = tune(*words, out=tmp_path / "half")
    assert f"resuming from {tmp_path / 'half' / 'checkpoints' / 'step-000004'}" in resumed.said
    assert_same_weights(resumed.model, whole.model)
    for row, other in zip(resumed.metrics(), whole.metrics(), strict=True):
        assert row["value/loss"] == other["value/loss"]


def test_the_weight_of_a_head_means_nothing_to_a_value_model(tune, count_e):
    problem = tune(*count_e, "--settings.vf-coef", 0.5).problem
    assert "vf_coef has no effect without value_head" in problem


@pytest.mark.parametrize("value_head", ["true", "false"])
def test_warm_up_trains_the_value_model_only(tune, count_e, sft_run, value_head):
    # The rate of a head is the policy's, which stands still.
    words = (*count_e, "--settings.value-head", value_head, "--settings.value-warmup-steps", 2, *FEW)
    words = (*words, "--optimizer.lr", 3e-2)
    warm = tune(*words, "--num-steps", 2)
    assert_same_weights(warm.model, sft_run.model)
    rows = tune(*words, "--num-steps", 4).metrics()
    assert [row["kl/full"] == pytest.approx(0, abs=1e-6) for row in rows] == [True, True, True, False]
    assert rows[1]["value/loss"] < rows[0]["value/loss"]


def test_an_update_ends_where_the_policy_has_moved_far_enough(tune, count_e):
    words = (*count_e, "--num-steps", 3, "--settings.num-epochs", 8, *FEW, "--optimizer.lr", 1e-2)
    free = tune(*words).metrics()
    held = tune(*words, "--settings.max-update-kl", 0.01).metrics()
    assert [row["policy/num_updates"] for row in free] == [8, 8, 8]
    for row in held:
        assert 1 <= row["policy/num_updates"] < 8
        assert row["policy/approx_kl"] <= 0.01, "the mean of the updates that were made"


def test_the_moving_average_by_hand(tune, count_e, sft_run):
    words = (*count_e, "--num-steps", 3, "--checkpoint-every", 1, "--keep-checkpoints", 5, "--ema-decay", 0.75, *FEW)
    outcome = tune(*words)
    steps = [outcome.run / "checkpoints" / f"step-{step:06d}" for step in (1, 2, 3)]
    name = "model.layers.0.mlp.up_proj.weight"
    expected = weights_of(sft_run.model)[name]
    for step in steps:
        expected = 0.75 * expected + 0.25 * weights_of(step / "policy")[name]
        torch.testing.assert_close(weights_of(step / "ema")[name], expected)
    assert outcome.answer["outputs"]["ema"] == str((steps[-1] / "ema").relative_to(outcome.run))


def test_a_refreshed_reference_is_the_policy_of_that_step(prefloop, tune, count_e, tmp_path):
    words = (*count_e, "--num-steps", 7, "--reference-refresh-every", 3, "--checkpoint-every", 2, *FEW)
    outcome = tune(*words, "--keep-checkpoints", 9, out=tmp_path / "run")
    kl = [row["kl/full"] for row in outcome.metrics()]
    # Measured before the update of each step: 0 at first, and again right after steps 3 and 6.
    assert [value == pytest.approx(0, abs=1e-5) for value in kl] == [True, False, False, True, False, False, True]
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000006")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000007")
    resumed = tune(*words, "--keep-checkpoints", 9, out=tmp_path / "run")
    assert [row["kl/full"] for row in resumed.metrics()] == kl
    refused = tune(*count_e, "--reference-refresh-every", 3, "--kl-budget", 1).problem
    assert "kl_budget would bound" in refused


def test_a_mixture_keeps_the_likelihood_up(tune, data, tmp_path):
    """Optimised for short responses, a policy forgets how to write long ones; with ptx less so."""
    words = ("--reward", f"{data / 'rewards.py'}:short", "--num-steps", 20, "--kl-budget", "none", "--kl-coef", 0)
    text = tmp_path / "words.txt"
    text.write_text("\n\n".join(["name things like the moon or the bee"] * 200))
    few = tmp_path / "few.jsonl"
    few.write_text("".join((data / "demonstrations.jsonl").read_text().splitlines(keepends=True)[:100]))
    losses = {}
    for name, more in {
        "alone": (),
        "demonstrations": ("--ptx-data", few, "--ptx-coef", 3),
        "text": ("--ptx-data", text, "--ptx-coef", 3, "--ptx-batch-size", 2),
    }.items():
        outcome = tune(*words, *more)
        assert outcome.code == 0, outcome.said
        assert all(("ptx/loss" in row) == bool(more) for row in outcome.metrics())
        model, chat = load_policy(outcome.model)
        rows = [
            chat.encode((*row.prompt, *row.completion), num_context=len(row.prompt))
            for row in read_demonstrations([str(data / "demonstrations.jsonl")]).records[100:200]
        ]
        losses[name] = mean_loss(model, chat, rows, token_budget=4096)
        if name == "text":
            assert outcome.metrics()[-1]["ptx/loss"] < outcome.metrics()[0]["ptx/loss"] - 0.5
    assert losses["demonstrations"] < losses["alone"] - 0.2


def test_a_mixture_that_cannot_be_read(tune, count_e, tmp_path):
    (tmp_path / "bytes.txt").write_bytes(b"caf\xe9 \xff")
    problem = tune(*count_e, "--ptx-data", tmp_path / "bytes.txt").problem
    assert problem.startswith(f"{tmp_path / 'bytes.txt'}: ptx_data: cannot be read as UTF-8 text")
    (tmp_path / "empty.txt").write_text("\n\n")
    assert tune(*count_e, "--ptx-data", tmp_path / "empty.txt").problem.startswith("ptx_data: no row of these files")
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "a", "completion": "bee " * 400}) + "\n")
    problem = tune(*count_e, "--ptx-data", tmp_path / "long.jsonl").problem
    assert problem.startswith(f"ptx_data: {tmp_path / 'long.jsonl'}:1 has ") and "--skip-bad" in problem


def test_the_best_checkpoint_is_the_held_out_scorers(tune, data, tmp_path):
    """The reward likes every e; the held-out scorer likes short answers, which that reward makes rarer."""
    words = ("--reward", f"{data / 'rewards.py'}:count_e", "--eval-reward", f"{data / 'rewards.py'}:short")
    words = (*words, "--eval-prompts", data / "prompts.jsonl", "--eval-every", 2, "--num-steps", 12, *FEW)
    outcome = tune(*words)
    assert outcome.code == 0, outcome.said
    held_out = {row["step"]: row["eval/score"] for row in outcome.metrics() if "eval/score" in row}
    best = max(held_out, key=held_out.get)
    assert list(held_out) == [2, 4, 6, 8, 10, 12] and best < 12
    assert outcome.model.parent.name == f"step-{best:06d}"
    stopped = tune(*words, "--patience", 2)
    assert stopped.answer["stopped"] == "early_stopping"
    assert stopped.model.parent.name == f"step-{best:06d}"
    same = ("--reward", f"{data / 'rewards.py'}:short", "--eval-reward", f"{data / 'rewards.py'}:short")
    refused = tune(*same, "--eval-prompts", data / "prompts.jsonl").problem
    assert "the best checkpoint is never chosen by the proxy score" in refused
    assert "belong together" in tune(*words[:4]).problem


@pytest.mark.parametrize("penalty", ["loss_k2", "loss_k3"])
def test_the_penalty_as_a_loss_holds_the_policy(tune, count_e, penalty):
    words = (*count_e, "--algorithm", "rloo", "--kl-penalty", penalty, "--kl-budget", "none", "--num-steps", 15)
    words = (*words, "--shaping.score-clip", 100)
    loose, tight = (tune(*words, "--kl-coef", coef).metrics() for coef in (0.01, 10.0))
    assert tight[-1]["kl/full"] < loose[-1]["kl/full"] / 2
    assert all(row["reward/mean"] == pytest.approx(row["score/mean"]) for row in tight), "no KL in the reward"
    assert tight[0]["kl/loss"] == pytest.approx(0, abs=1e-6) and tight[-1]["kl/loss"] > 0


def test_k1_is_not_offered_as_a_loss(tune, count_e):
    problem = tune(*count_e, "--kl-penalty", "loss_k1").problem
    assert problem.startswith("--kl-penalty: is ") and "loss_k2" in problem


def test_the_budget_left_is_logged(tune, count_e):
    rows = tune(*count_e, "--num-steps", 6, "--kl-budget", 3, "--prompts-per-step", 10).metrics()
    seen = list(itertools.accumulate([row["kl/full"] for row in rows]))
    for number, row in enumerate(rows, start=1):
        # Ten responses a step: the window of 256 still holds all of them.
        assert row["kl/budget_left"] == pytest.approx(3 - seen[number - 1] / number, abs=1e-4)
    assert not any("kl/budget_left" in row for row in tune(*count_e, "--num-steps", 2, *FEW).metrics())


def test_the_adaptive_coefficient_steers_a_loss_too(tune, count_e):
    words = (*count_e, "--algorithm", "grpo", "--kl-target", 0.3, "--kl-coef", 0.01, "--kl-horizon", 1)
    rows = tune(*words, "--num-steps", 8, "--kl-budget", "none").metrics()
    for row, following in itertools.pairwise(rows):
        error = min(max(row["kl/sequence"] / 0.3 - 1, -0.2), 0.2)
        assert following["kl/coef"] == pytest.approx(row["kl/coef"] * (1 + error))
    assert not math.isclose(rows[-1]["kl/coef"], 0.01)
