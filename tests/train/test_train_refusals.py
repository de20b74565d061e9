"""Bad input to the training commands: exit code 2, one line that says what would be right, nothing taken for done."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from prefloop.data.dialogue import prompt_id_of
from prefloop.data.split import split_of
from prefloop.models.load import load_policy, save_model
from prefloop.train.algorithms import ALGORITHMS
from prefloop.types import Message


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def model_copy(sft_run, tmp_path):
    """The tiny policy's directory, to be spoiled."""
    return shutil.copytree(sft_run.model, tmp_path / "model")


@pytest.fixture
def reward_on(prefloop, data, tmp_path):
    """`train reward` on a given model."""

    def call(model, *settings):
        words = ("--model", model, "--data", data / "pairs.jsonl", "--out", tmp_path / "reward", *settings)
        return prefloop("train reward", *words)

    return call


def test_a_model_that_is_not_there(reward_on, tmp_path):
    assert reward_on(tmp_path / "nowhere").problem == (
        f"{tmp_path}/nowhere: model: no such directory; give a model directory or a finished run"
    )
    (tmp_path / "file").touch()
    assert reward_on(tmp_path / "file").problem == (
        f"{tmp_path}/file: model: is a file; give a model directory or a finished run"
    )
    assert not (tmp_path / "reward").exists()


def test_a_directory_that_is_no_model(reward_on, tmp_path):
    (tmp_path / "empty").mkdir()
    assert reward_on(tmp_path / "empty").problem == (
        f"{tmp_path}/empty: model: no config.json: this is no model directory; give a Hugging Face directory"
    )


def test_a_model_without_tokenizer(reward_on, model_copy):
    (model_copy / "tokenizer.json").unlink()
    (model_copy / "tokenizer_config.json").unlink()
    assert reward_on(model_copy).problem == (
        f"{model_copy}: model: this model directory has no tokenizer; "
        "copy tokenizer.json and tokenizer_config.json of the model into it"
    )


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt"])
def test_pickled_weights_are_not_read(reward_on, model_copy, name):
    (model_copy / "model.safetensors").unlink()
    (model_copy / name).write_bytes(b"\x80\x04cos\nsystem\n")
    problem = reward_on(model_copy).problem
    assert problem.startswith(
        f"{model_copy}: model: the weights are pickled, and unpickling a file can run code; convert"
    )
    assert "save_pretrained" in problem


def test_a_model_without_weights(reward_on, model_copy):
    (model_copy / "model.safetensors").unlink()
    assert reward_on(model_copy).problem == f"{model_copy}: model: no weights (*.safetensors) in this directory"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_broken_file_of_a_model(reward_on, model_copy, name):
    path = model_copy / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reward_on(model_copy).problem.startswith(f"{model_copy}: model: transformers cannot load this ")


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"num_hidden_layers": 3}, "weights are missing: model.layers.2."),
        ({"hidden_size": 64}, "weights are of another shape than config.json says: model.embed_tokens.weight, "),
        ({"hidden_size": "wide"}, "transformers cannot load this tokenizer: Validation error for field 'hidden_size'"),
    ],
)
def test_a_config_that_does_not_fit_the_weights(reward_on, model_copy, setting, problem):
    """Left alone, transformers fills such weights with random numbers."""
    config = json.loads((model_copy / "config.json").read_text())
    (model_copy / "config.json").write_text(json.dumps(config | setting))
    assert reward_on(model_copy).problem.startswith(f"{model_copy}: model: {problem}")


def test_a_classifier_with_three_labels_is_no_reward_model(tune, sft_run, tmp_path):
    chat = load_policy(sft_run.model)[1]
    save_model(
        AutoModelForSequenceClassification.from_pretrained(sft_run.model, num_labels=3), chat, tmp_path / "three"
    )
    assert tune("--reward", tmp_path / "three").problem == (
        f"{tmp_path}/three: reward: this classifier has 3 labels; a reward model has one"
    )


def test_a_language_model_is_no_reward_model(tune, sft_run):
    assert tune("--reward", sft_run.run).problem == (
        f"{sft_run.model}: reward: this is a language model, not a reward model; "
        "train one: prefloop train reward --model DIR --data PAIRS"
    )


def test_an_unfinished_run_is_no_model(reward_on, sft_run, tmp_path):
    unfinished = shutil.copytree(sft_run.run, tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    assert reward_on(unfinished).problem == (
        f"{unfinished}: model: this run is not finished; run its command again: it resumes by itself"
    )


def test_a_data_file_that_is_not_there_leaves_no_directory(prefloop, data, sft_run, tmp_path):
    words = ("--model", sft_run.run, "--out", tmp_path / "run")
    for settings, field in (
        (("--data", tmp_path / "none.jsonl"), "data"),
        (("--data", data / "pairs.jsonl", "--eval-data", tmp_path / "none.jsonl"), "eval_data"),
    ):
        problem = prefloop("train reward", *words, *settings).problem
        assert problem == f"{tmp_path}/none.jsonl: {field}: no such file"
    assert not (tmp_path / "run").exists()


def test_bad_rows_are_named_and_the_mended_file_is_taken(prefloop, data, tmp_path, sft_run):
    lines = (data / "pairs.jsonl").read_text().splitlines()[:64]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join([*lines[:16], '{"prompt": "a", "chosen": 3', *lines[16:]]))
    words = ("train reward", "--model", sft_run.run, "--data", path, "--out", tmp_path / "run", "--eval-fraction", 0)
    assert prefloop(*words).problem.startswith(f"{path}:17: broken JSON at column 28")
    path.write_text("\n".join(lines))
    assert prefloop(*words).code == 0, "nothing was made yet, so the directory belongs to nobody"


def long_pairs():
    def pair(index, words):
        return {"prompt": f"question {index}", "chosen": " ".join(["bee"] * words), "rejected": "moon"}

    return [pair(index, 60 if index in (3, 5) else 2) for index in range(12)]


def test_over_long_rows_are_counted_and_named(prefloop, sft_run, tmp_path):
    path = write_rows(tmp_path / "pairs.jsonl", long_pairs())
    words = ("train reward", "--model", sft_run.run, "--data", path, "--eval-fraction", 0, "--max-length", 40)
    problem = prefloop(*words, "--out", tmp_path / "run").problem
    assert problem.startswith("max_length: 2 of 12 pairs are longer than 40 tokens: ")
    assert problem.endswith("; raise it, or leave them out with --skip-bad")
    assert problem.count(" tokens)") == 2
    outcome = prefloop(*words, "--skip-bad", "--out", tmp_path / "skipping", "--batch-size", 5)
    assert outcome.code == 0 and "left out 2 of 12 pairs longer than 40 tokens: " in outcome.said
    assert len(outcome.metrics()) == 2, "ten rows are left"
    allowing = prefloop(*words, "--max-length", 100, "--out", tmp_path / "run", "--batch-size", 5)
    assert len(allowing.metrics()) == 3, "and the remedy works in the same directory"


def test_rows_beyond_the_models_positions(prefloop, sft_run, tmp_path):
    rows = [{"prompt": "say bee", "completion": " ".join(["bee"] * 130)}, {"prompt": "say moon", "completion": "moon"}]
    path = write_rows(tmp_path / "demonstrations.jsonl", rows)
    words = ("train sft", "--model", sft_run.run, "--data", path, "--eval-fraction", 0, "--out", tmp_path / "run")
    problem = prefloop(*words).problem
    assert problem.startswith("model: 1 of 2 demonstrations are longer than 128 tokens: ")
    assert "its 128 positions are the limit" in problem
    assert prefloop(*words, "--skip-bad").code == 0


def test_rows_beyond_the_positions_of_a_model_from_scratch(prefloop, tmp_path):
    path = write_rows(tmp_path / "d.jsonl", [{"prompt": "p", "completion": f"{n} " * 60} for n in range(100, 105)])
    shape = ("--scratch.hidden-size", 16, "--scratch.num-heads", 2, "--scratch.num-layers", 1)
    words = ("train sft", "--data", path, *shape, "--scratch.vocab-size", 270, "--scratch.max-position", 40)
    problem = prefloop(*words, "--out", tmp_path / "run").problem
    assert problem.startswith("scratch.max_position: ") and "are longer than 40 tokens: " in problem
    assert "; raise it, or leave them out with --skip-bad" in problem


def test_an_empty_model_is_no_model_from_scratch(prefloop, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("train sft", "--data", data / "demonstrations.jsonl", "--out", "run")
    assert prefloop(*words, "--model", "").problem == "--model: is empty; give a value, or leave it out"
    (tmp_path / "c.yaml").write_text("model: ''\n")
    assert prefloop(*words, "--config", "c.yaml").problem.startswith(".: model: no config.json")


def test_no_row_short_enough(prefloop, sft_run, tmp_path):
    path = write_rows(tmp_path / "pairs.jsonl", long_pairs())
    words = ("--data", path, "--max-length", 3, "--skip-bad", "--out", tmp_path / "run", "--eval-fraction", 0)
    assert prefloop("train preference", "--model", sft_run.run, *words).problem == (
        "max_length: none of the 12 pairs is short enough; raise it"
    )


def test_a_held_out_share_of_long_rows_only_is_no_error(prefloop, sft_run, tmp_path):
    """What falls into the share is chance; a file that is named for evaluation is not."""
    sides = {side: [] for side in ("train", "eval")}
    for index in range(100):
        prompt_id = prompt_id_of((Message("user", f"question {index}"),))
        sides[split_of(prompt_id, eval_fraction=0.1, seed=0)].append(f"question {index}")
    short = [{"prompt": prompt, "chosen": "bee", "rejected": "moon"} for prompt in sides["train"]]
    long = [{"prompt": prompt, "chosen": " ".join(["bee"] * 60), "rejected": "moon"} for prompt in sides["eval"]]
    assert long
    path = write_rows(tmp_path / "pairs.jsonl", short + long)
    words = ("--max-length", 40, "--skip-bad", "--batch-size", 100)
    for command in ("sft", "reward", "preference"):
        settings = ("--model", sft_run.run, "--data", path, "--eval-fraction", 0.1, *words)
        outcome = prefloop(f"train {command}", *settings, "--out", tmp_path / command)
        assert outcome.code == 0, outcome.said
        assert f"left out {len(long)} of {len(long)} " in outcome.said
        assert f"{path}:{len(short) + 1} (" in outcome.said, "named by its line"
        assert not any(key.startswith("eval/") for row in outcome.metrics() for key in row)
    evaluation = write_rows(tmp_path / "long.jsonl", long)
    settings = ("--model", sft_run.run, "--data", path, "--eval-data", evaluation, *words)
    assert prefloop("train reward", *settings, "--out", tmp_path / "x").problem == (
        f"max_length: none of the {len(long)} pairs is short enough; raise it"
    )


def test_prompts_that_do_not_fit_the_context(prefloop, tune, data, tmp_path):
    path = write_rows(tmp_path / "prompts.jsonl", [{"prompt": " ".join(["bee"] * 120)}, {"prompt": "name things"}])
    words = ("--prompts", path, "--reward", f"{data / 'rewards.py'}:short", "--num-steps", 1, "--prompts-per-step", 60)
    problem = tune(*words).problem
    assert problem.startswith("max_new_tokens: 1 of 52 prompts are longer than 112 tokens: ")
    assert "prompt and 16 new tokens must fit the model's 128 positions" in problem
    assert tune(*words, "--max-prompt-length", 20).problem.startswith("max_prompt_length: 1 of 52 prompts are longer")
    outcome = tune(*words, "--skip-bad")
    assert outcome.code == 0 and "left out 1 of 52 prompts" in outcome.said


REWARDS = {
    "raises": (
        "    return [scores[9] for scores in [[1.0]]]",
        "rewards.py:2: reward: raised IndexError: list index out",
    ),
    "too_few": ("    return [1.0]", "rewards.py:f: reward: returned 1 scores for 32 responses; return a list with one"),
    "none": ("    pass", "rewards.py:f: reward: returned NoneType for 32 responses; return a list with one"),
    "nan": (
        "    return [float('nan') if 'moon or the bee' in prompt else 0.0 for prompt in prompts]",
        "rewards.py:f: reward: returned nan for the prompt 'name things like the moon or the bee'; return a list",
    ),
    "text": ("    return ['good'] * len(prompts)", "rewards.py:f: reward: returned 'good' for the prompt 'name things"),
    "syntax": ("    return [", "rewards.py:2: reward: raised SyntaxError: '[' was never closed"),
}


@pytest.mark.parametrize("kind", REWARDS)
def test_a_reward_function_that_misbehaves(tune, tmp_path, kind):
    body, problem = REWARDS[kind]
    path = tmp_path / "rewards.py"
    path.write_text(f"def f(prompts, responses):\n{body}\n")
    words = ("--reward", f"{path}:f", "--num-steps", 3, "--prompts-per-step", 32)
    assert tune(*words, out=tmp_path / "run").problem.startswith(f"{tmp_path}/{problem}")
    path.write_text("def f(prompts, responses):\n    return [0.5] * len(prompts)\n")
    assert tune(*words, out=tmp_path / "run").code == 0, "mended, it goes on in the same directory"


def test_a_reward_function_that_is_not_there(tune, data, tmp_path):
    path = data / "rewards.py"
    assert tune("--reward", f"{tmp_path}/none.py:f").problem == f"{tmp_path}/none.py: reward: no such file"
    assert tune("--reward", f"{path}:shrot").problem == (
        f"{path}: reward: no shrot in this file; it has count_e, short"
    )


def test_unknown_algorithms(tune, data, tmp_path):
    words = ("--reward", f"{data / 'rewards.py'}:short")
    assert tune(*words, "--algorithm", "pppo").problem == (
        f"algorithm: unknown algorithm 'pppo'; known: {', '.join(ALGORITHMS)}, or file.py:Class"
    )
    assert tune(*words, "--algorithm", f"{data / 'rewards.py'}:short").problem == (
        f"algorithm: {data / 'rewards.py'}:short is no Algorithm class; subclass prefloop.train.algorithms.Algorithm"
    )


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            ("--algorithm", "rloo", "--settings.group-size", 1),
            "--settings.group-size: is 1; should be greater than or eq",
        ),
        (("--kl-coef", -0.1), "--kl-coef: is -0.1; should be greater than or equal to 0"),
        (("--kl-coef", "nan"), "--kl-coef: is NaN; should be"),
        (("--kl-coef", "inf"), "--kl-coef: is Infinity; should be a finite number"),
        (("--shaping.truncated-score", "nan"), "--shaping.truncated-score: is NaN; should be a finite number"),
        (("--optimizer.lr", 0), "--optimizer.lr: is 0; should be greater than 0"),
        (("--temperature", 0), "--temperature: is 0; should be greater than 0"),
        (("--kl-target", -1), "--kl-target: is -1; should be greater than 0"),
        # The controller multiplies by at least 1 - 0.2 / horizon: below a fifth of a round it would turn negative.
        (("--kl-target", 1, "--kl-horizon", 0), "--kl-horizon: is 0; should be greater than 0"),
        (("--kl-target", 1, "--kl-horizon", 0.1), "--kl-horizon: is 0.1; should be a whole number"),
        (
            ("--kl-target", 1, "--kl-coef", 0),
            "kl_target adapts kl_coef by factors, which leave 0 at 0: give a kl_coef a",
        ),
        (("--kl-target", 5, "--kl-budget", 4), "kl_target 5 is not inside kl_budget 4"),
        (("--kl-budget", 4, "--keep-checkpoints", 1), "keep_checkpoints must be at least 2 with a kl_budget"),
        (("--seed", -1), "--seed: is -1; should be greater than or equal to 0"),
        (("--num-steps", 0), "--num-steps: is 0; should be greater than 0"),
        (("--algorithm", "rloo", "--value", "anything"), "anything: value: no such directory"),
    ],
)
def test_settings_out_of_range(tune, data, settings, problem):
    assert tune("--reward", f"{data / 'rewards.py'}:short", *settings).problem.startswith(problem)


def test_settings_without_effect_are_refused(tune, data, reward_run, tmp_path, sft_run, prefloop):
    function = f"{data / 'rewards.py'}:short"
    assert tune("--reward", function, "--algorithm", "rloo", "--value", reward_run.run).problem == (
        "value: rloo has no value model; leave it out"
    )
    path = write_rows(tmp_path / "prompts.jsonl", [{"prompt": "name things"}])
    weighted = tune("--reward", function, "--prompts", f"{path}@2", "--num-steps", 1)
    assert weighted.problem == "prompts: weights have no effect on prompts; leave them out"
    words = ("--model", sft_run.run, "--data", data / "demonstrations.jsonl", "--out", tmp_path / "run")
    assert prefloop("train sft", *words, "--scratch.num-layers", 1).problem == (
        "scratch has no effect together with model; leave one of them out"
    )
    assert prefloop("train sft", *words, "--patience", 2, "--eval-fraction", 0).problem == (
        "patience: patience needs held-out rows, and there are none; give --eval-data, or raise --eval-fraction"
    )


def test_a_learning_rate_that_blows_up(prefloop, data, sft_run, tmp_path):
    words = ("--model", sft_run.run, "--data", data / "demonstrations.jsonl", "--out", tmp_path / "run")
    problem = prefloop("train sft", *words, "--optimizer.lr", 1e30, "--optimizer.max-grad-norm", 1e30).problem
    assert problem.startswith("optimizer.lr: the gradient norm of step ")
    assert problem.endswith(" is nan; lower the learning rate")


def test_a_tiny_file_of_which_nothing_is_held_out(prefloop, data, sft_run, tmp_path):
    rows = [json.loads(line) for line in (data / "pairs.jsonl").read_text().splitlines()[:6]]
    path = write_rows(tmp_path / "pairs.jsonl", rows)
    for command in ("reward", "preference"):
        words = ("--model", sft_run.run, "--data", path, "--eval-fraction", 1e-9, "--out", tmp_path / command)
        outcome = prefloop(f"train {command}", *words)
        assert outcome.code == 0, outcome.said
        assert not any(key.startswith("eval/") for row in outcome.metrics() for key in row)
        assert outcome.model.is_dir()


def test_a_file_of_which_everything_would_be_held_out(prefloop, data, sft_run, tmp_path):
    path = write_rows(tmp_path / "pairs.jsonl", long_pairs()[:2])
    words = ("--model", sft_run.run, "--data", path, "--eval-fraction", 0.999999, "--out", tmp_path / "run")
    assert prefloop("train reward", *words).problem == (
        "eval_fraction: all 2 rows would be held out, none is left to train on; lower it, or give another --seed"
    )


def test_models_with_different_tokenizers(prefloop, tune, data, sft_run, reward_run, tmp_path):
    other = prefloop(
        *("train sft", "--scratch.hidden-size", 32, "--scratch.num-layers", 1, "--scratch.num-heads", 2),
        *("--scratch.vocab-size", 300, "--data", data / "demonstrations.jsonl", "--out", tmp_path / "other"),
        *("--batch-size", 600, "--eval-fraction", 0),
    )
    assert tune("--reward", reward_run.run, "--reference", other.run).problem == (
        f"{other.model}: reference: model and reference have different tokenizers"
    )
    words = ("--model", sft_run.run, "--reference", other.run, "--data", data / "pairs.jsonl")
    assert prefloop("train preference", *words, "--out", tmp_path / "dpo").problem == (
        f"{other.model}: reference: model and reference have different tokenizers"
    )
    far_reward = prefloop(
        *("train reward", "--model", other.run, "--data", data / "pairs.jsonl", "--out", tmp_path / "reward"),
        *("--batch-size", 320, "--eval-fraction", 0),
    )
    assert tune("--reward", reward_run.run, "--value", far_reward.run).problem == (
        f"{far_reward.run}: value: model and value model have different tokenizers"
    )
    # As text, its scores are as good as any; only its weights cannot start the value model.
    outcome = tune("--reward", far_reward.run, "--num-steps", 2)
    assert outcome.code == 0, outcome.said
    assert "the value model starts from the policy's trunk" in outcome.said


def test_a_reward_model_of_nan(tune, reward_run, tmp_path):
    spoiled = shutil.copytree(reward_run.model, tmp_path / "spoiled")
    model = AutoModelForSequenceClassification.from_pretrained(spoiled)
    with torch.no_grad():
        model.score.weight.fill_(torch.nan)
    model.save_pretrained(spoiled)
    problem = tune("--reward", spoiled, "--algorithm", "rloo", "--num-steps", 1).problem
    assert problem.startswith(f"{spoiled}: reward: returned nan for the prompt 'name things like the ")
    assert problem.endswith("; train this reward model again")


def test_held_out_prompts_that_were_trained_on_are_said(prefloop, data, sft_run, tmp_path):
    words = ("--model", sft_run.run, "--data", data / "pairs.jsonl", "--eval-data", data / "pairs.jsonl")
    outcome = prefloop("train reward", *words, "--out", tmp_path / "run", "--batch-size", 320)
    assert outcome.code == 0
    prompts = {json.loads(line)["prompt"] for line in (data / "pairs.jsonl").read_text().splitlines()}
    assert f"warning: {len(prompts)} prompts of the held-out pairs are also in the training data" in outcome.said
