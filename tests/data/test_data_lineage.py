"""What a model's ancestors were trained on, over run directories written by hand."""

from __future__ import annotations

import hashlib
import json

import pytest

from prefloop.data.lineage import prompts_met
from prefloop.data.read import iter_prompts


def write_run(path, **inputs):
    """A run directory as `RunDir` leaves it."""
    path.mkdir(parents=True)
    entries = {
        name.replace("__", ":"): {
            "path": str(file),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "of a directory",
        }
        for name, file in inputs.items()
    }
    (path / "inputs.json").write_text(json.dumps({"inputs": entries}))
    return path


@pytest.fixture
def family(tmp_path):
    """A reward model trained on b, from a policy fine-tuned on a; c is the data of neither."""
    files = {name: tmp_path / f"{name}.jsonl" for name in "abc"}
    for name, file in files.items():
        rows = [{"prompt": f"{name} {number}", "chosen": "yes", "rejected": "no"} for number in range(3)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    sft = write_run(tmp_path / "sft", data__a=files["a"])
    trunk = sft / "checkpoints" / "step-000010" / "policy"
    trunk.mkdir(parents=True)
    reward = write_run(tmp_path / "reward", model=trunk, data__b=files["b"], eval_data__c=files["c"])
    return sft, reward, files


def ids(*files):
    return {prompt.prompt_id for prompt in iter_prompts([str(file) for file in files], skip_bad=True)}


def test_what_the_model_and_its_trunk_were_trained_on_is_met(family, capsys):
    sft, reward, files = family
    everything = ids(*files.values())
    assert prompts_met(str(reward), everything) == ids(files["a"], files["b"])
    assert prompts_met(str(reward / "model"), everything) == ids(files["a"], files["b"])
    said = capsys.readouterr().err
    assert f"warning: 3 of 9 prompts are also in {files['a']}, which {sft} was trained on: for them" in said
    assert str(files["c"]) not in said


def test_other_prompts_are_not_and_nothing_is_said(family, capsys):
    sft, reward, files = family
    assert prompts_met(str(reward), ids(files["c"])) == set()
    assert prompts_met(str(sft), ids(files["b"])) == set()
    assert capsys.readouterr().err == ""


def test_a_model_without_a_run_tells_nothing(tmp_path, family, capsys):
    _, _, files = family
    plain = tmp_path / "plain"
    plain.mkdir()
    assert prompts_met(str(plain), ids(files["a"])) == set()
    assert prompts_met("rewards.py:short", ids(files["a"])) == set()
    assert capsys.readouterr().err == ""


def test_files_that_are_gone_or_changed_are_named(family, capsys):
    sft, reward, files = family
    wanted = ids(files["a"], files["b"])
    files["a"].write_text(files["c"].read_text())
    files["b"].unlink()
    assert prompts_met(str(reward), wanted) == set()
    said = capsys.readouterr().err
    assert f"warning: {files['a']}, which {sft} was trained on, is gone or changed" in said
    assert f"warning: {files['b']}, which {reward} was trained on, is gone or changed" in said
