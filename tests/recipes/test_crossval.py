"""Cross-validation through the command line, and the commands that runs end with."""

import json
import shlex

import numpy as np
import pytest

from prefloop.cli import COMMANDS, split_words
from prefloop.data.read import read_pairs


@pytest.fixture(scope="module")
def settings(sft_run):
    return (
        *("reward crossval", "--model", sft_run.run, "--num-folds", 2, "--batch-size", 16),
        *("--optimizer.lr", 3e-3, "--num-epochs", 2, "--eval-fraction", 0),
    )


@pytest.fixture(scope="module")
def outcome(prefloop, settings, data, tmp_path_factory):
    found = prefloop(*settings, "--data", data / "pairs.jsonl", "--out", tmp_path_factory.mktemp("crossval") / "run")
    assert found.code == 0, found.said
    return found


def out_of(outcome):
    return next(line for line in outcome.said.splitlines() if line.startswith("run directory: ")).split(": ")[1]


def test_every_pair_is_scored_once_by_a_model_that_did_not_see_its_prompt(outcome, data):
    answer = outcome.answer
    everything = read_pairs([str(data / "pairs.jsonl")]).records
    assert answer["num_pairs"] == len(everything)
    trained = [read_pairs([f"{out_of(outcome)}/fold-{fold}.jsonl"]).records for fold in range(2)]
    ids = [{pair.prompt.prompt_id for pair in fold} for fold in trained]
    assert ids[0].isdisjoint(ids[1])
    assert ids[0] | ids[1] == {pair.prompt.prompt_id for pair in everything}
    assert sum(map(len, trained)) == len(everything)


def test_the_pooled_accuracy_is_the_weighted_mean_of_the_folds(outcome):
    answer = outcome.answer
    # Fold 0 is held out from the file that fold 1 makes up, and the other way round.
    sizes = [len(read_pairs([f"{out_of(outcome)}/fold-{fold}.jsonl"]).records) for fold in (1, 0)]
    assert answer["accuracy"] == pytest.approx(np.average(answer["fold_accuracies"], weights=sizes))
    assert answer["accuracy"] > 0.8, "the preference of the test data is easy"
    low, high = answer["accuracy_interval"]
    assert low <= answer["accuracy"] <= high
    assert {"longer", "shuffled_prompt"} == set(answer["baselines"])


def test_a_finished_crossval_answers_again(prefloop, settings, data, outcome):
    again = prefloop(*settings, "--data", data / "pairs.jsonl", "--out", out_of(outcome))
    assert again.answer == outcome.answer
    assert "already finished" in again.said


def test_too_many_folds_and_settings_without_effect_are_refused(prefloop, settings, data, tmp_path):
    few = tmp_path / "few.jsonl"
    few.write_text("".join((data / "pairs.jsonl").read_text().splitlines(keepends=True)[:2]))
    refused = prefloop(*settings, "--data", few, "--num-folds", 9, "--out", tmp_path / "a")
    assert refused.problem.endswith("different prompts are too few for 9 folds; lower it")
    refused = prefloop(*settings, "--data", few, "--eval-data", few, "--out", tmp_path / "b")
    assert "eval_data has no effect here" in refused.problem
    refused = prefloop(*settings, "--data", f"{data / 'pairs.jsonl'}@2", "--out", tmp_path / "c")
    assert "weights have no effect here" in refused.problem


def test_each_of_the_five_commands_ends_with_the_next(prefloop, data, sft_run, reward_run, tmp_path):
    pairs = data / "pairs.jsonl"
    checked = prefloop("data check", pairs).answer["next"]
    assert checked == f"prefloop train sft --data {shlex.quote(str(pairs))}"
    assert sft_run.answer["next"] == f"prefloop train reward --model {sft_run.run} --data pairs.jsonl"
    assert reward_run.answer["next"] == f"prefloop reward eval {reward_run.run} held-out.jsonl"
    evaluated = prefloop("reward eval", reward_run.run, pairs).answer["next"]
    # The reward model's run knows the SFT model that it began with.
    start = json.loads((reward_run.run / "inputs.json").read_text())["inputs"]["model"]["path"]
    assert evaluated == f"prefloop train policy --model {start} --reward {reward_run.run} --prompts {pairs}"
    words = shlex.split(evaluated)[1:]
    assert split_words(words)[0] in COMMANDS
    tuned = prefloop(*words[:2], *words[2:], "--num-steps", 1, "--max-new-tokens", 4, "--out", tmp_path / "tuned")
    assert tuned.code == 0, tuned.said
    reported = shlex.split(tuned.answer["next"])
    assert prefloop(reported[1], *reported[2:]).code == 0
    assert (tmp_path / "tuned" / "report.html").exists()
