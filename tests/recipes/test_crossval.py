"""Cross-validation through the command line, and the commands that runs end with."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prefloop.cli import COMMANDS, split_words
from prefloop.data.read import read_pairs
from prefloop.data.split import fold_of


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
    assert {"longer", "shorter", "majority", "shuffled_prompt"} == set(answer["baselines"])


def test_the_answer_can_be_taken_apart(outcome, data):
    rows = [json.loads(line) for line in (Path(out_of(outcome)) / "margins.jsonl").read_text().splitlines()]
    pairs = {pair.pair_id: pair for pair in read_pairs([str(data / "pairs.jsonl")]).records}
    assert len(rows) == outcome.answer["num_pairs"]
    assert {row["pair_id"] for row in rows} == set(pairs)
    margins = np.array([row["margin"] for row in rows])
    assert outcome.answer["accuracy"] == pytest.approx((margins > 0).mean() + (margins == 0).mean() / 2)
    assert outcome.answer["log_loss"] == pytest.approx(np.log1p(np.exp(-margins)).mean())
    shuffled = np.array([row["shuffled_prompt_margin"] for row in rows])
    assert outcome.answer["baselines"]["shuffled_prompt"] == pytest.approx((shuffled > 0).mean())
    for row in rows:
        assert row["fold"] == fold_of(row["prompt_id"], num_folds=2, seed=0)
        path, line = row["place"].rsplit(":", 1)
        assert pairs[row["pair_id"]].chosen in Path(path).read_text().splitlines()[int(line) - 1]


def test_margins_are_in_units_of_each_folds_own_model(outcome, data):
    """Scores as plain transformers gives them, divided by the deviation that the fold's model keeps."""
    rows = [json.loads(line) for line in (Path(out_of(outcome)) / "margins.jsonl").read_text().splitlines()]
    pairs = {pair.pair_id: pair for pair in read_pairs([str(data / "pairs.jsonl")]).records}
    for fold in range(2):
        directory = Path(out_of(outcome)) / f"fold-{fold}" / "model"
        model = AutoModelForSequenceClassification.from_pretrained(directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)
        row = next(row for row in rows if row["fold"] == fold)
        pair = pairs[row["pair_id"]]
        scores = []
        for response in (pair.chosen, pair.rejected):
            turns = [{"role": "user", "content": pair.prompt.messages[0].content}]
            asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            ids = tokenizer(asked, return_tensors="pt").input_ids
            answer = tokenizer(f"{response}{tokenizer.eos_token}", return_tensors="pt").input_ids
            with torch.no_grad():
                scores.append(float(model(input_ids=torch.cat([ids, answer], dim=1)).logits[0, 0]))
        assert row["margin"] == pytest.approx((scores[0] - scores[1]) / model.config.reward_std, abs=1e-4)


def test_a_killed_crossval_trains_only_the_folds_that_are_missing(prefloop, settings, data, outcome, tmp_path):
    path = tmp_path / "run"
    words = (*settings, "--data", data / "pairs.jsonl", "--out", path)
    shutil.copytree(out_of(outcome), path)
    # As a kill after the first fold leaves it.
    for name in ("result.json", "margins.jsonl"):
        (path / name).unlink()
    shutil.rmtree(path / "fold-1")
    # The runs inside remember their --out.
    config = path / "fold-0" / "config.yaml"
    config.write_text(config.read_text().replace(str(out_of(outcome)), str(path)))
    kept = (path / "fold-0" / "result.json").stat().st_mtime_ns
    again = prefloop(*words)
    assert again.code == 0, again.said
    assert again.answer == outcome.answer
    assert (path / "fold-0" / "result.json").stat().st_mtime_ns == kept


def test_a_finished_crossval_answers_again(prefloop, settings, data, outcome):
    again = prefloop(*settings, "--data", data / "pairs.jsonl", "--out", out_of(outcome))
    assert again.answer == outcome.answer
    assert "already finished" in again.said


def test_too_many_folds_and_settings_without_effect_are_refused(prefloop, settings, data, tmp_path):
    few = tmp_path / "few.jsonl"
    few.write_text("".join((data / "pairs.jsonl").read_text().splitlines(keepends=True)[:2]))
    refused = prefloop(*settings, "--data", few, "--num-folds", 9, "--out", tmp_path / "a")
    assert refused.problem.endswith("different conversations are too few for 9 folds; lower it")
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


def test_the_next_command_carries_what_the_data_needs(prefloop, data, sft_run, tmp_path):
    pairs = tmp_path / "with bad.jsonl"
    pairs.write_text("{broken\n" + (data / "pairs.jsonl").read_text())
    trained = prefloop(
        *("train sft", "--model", sft_run.run, "--data", data / "demonstrations.jsonl", pairs, "--skip-bad"),
        *("--batch-size", 400, "--out", tmp_path / "sft"),
    )
    # The file of demonstrations is not among the pairs; the broken first line of the other is passed over.
    expected = ["prefloop", "train", "reward", "--model", str(tmp_path / "sft"), "--data", str(pairs), "--skip-bad"]
    assert shlex.split(trained.answer["next"]) == expected
    reward = prefloop(
        *("train reward", "--model", sft_run.run, "--data", data / "pairs.jsonl", "--eval-data", pairs),
        *("--skip-bad", "--batch-size", 400, "--out", tmp_path / "reward"),
    )
    words = shlex.split(reward.answer["next"])
    assert words == ["prefloop", "reward", "eval", str(tmp_path / "reward"), str(pairs), "--skip-bad"]
    evaluated = prefloop("reward eval", *words[3:])
    assert shlex.split(evaluated.answer["next"])[-2:] == [str(pairs), "--skip-bad"]
