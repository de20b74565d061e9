"""`model interpolate`: weights between two models, by hand."""

from __future__ import annotations

import json

import pytest
import torch

from prefloop.models.load import load_policy


@pytest.fixture(scope="module")
def tuned(tune, data):
    return tune("--reward", f"{data / 'rewards.py'}:count_e", "--num-steps", 4, "--kl-budget", "none")


@pytest.mark.parametrize("weight", [0, 0.25, 1])
def test_weights_lie_between(prefloop, sft_run, tuned, tmp_path, weight):
    words = (sft_run.run, tuned.run, "--weight", weight, "--out", tmp_path / "between")
    outcome = prefloop("model interpolate", *words)
    assert outcome.code == 0, outcome.said
    directories = (tmp_path / "between", sft_run.model, tuned.model)
    found, base, far = (load_policy(directory)[0].state_dict() for directory in directories)
    for name, values in found.items():
        torch.testing.assert_close(values, (1 - weight) * base[name] + weight * far[name])


def test_what_cannot_be_mixed_is_refused(prefloop, data, sft_run, tuned, tmp_path):
    shape = ("--scratch.hidden-size", 16, "--scratch.num-layers", 1, "--scratch.num-heads", 2)
    words = ("--scratch.vocab-size", 330, "--scratch.max-position", 128, "--data", data / "demonstrations.jsonl")
    small = prefloop("train sft", *shape, *words, "--out", tmp_path / "small")
    problem = prefloop("model interpolate", sft_run.run, small.run, "--out", tmp_path / "x").problem
    assert "tuned: has no weight model.embed_tokens.weight of the shape it has in base" in problem
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"prompt": f"x{n}", "completion": "zzz qqq"}) + "\n" for n in range(40)))
    foreign = prefloop("train sft", *shape, *words[:4], "--data", other, "--out", tmp_path / "foreign")
    problem = prefloop("model interpolate", sft_run.run, foreign.run, "--out", tmp_path / "x").problem
    assert problem.endswith("tuned: base and tuned have different tokenizers")
    assert not (tmp_path / "x").exists()
    (tmp_path / "there").mkdir()
    problem = prefloop("model interpolate", sft_run.run, tuned.run, "--out", tmp_path / "there").problem
    assert problem == f"{tmp_path / 'there'}: out: exists already; give a directory to make"
    problem = prefloop("model interpolate", sft_run.run, tuned.run, "--out", tmp_path / "no" / "x").problem
    assert problem == f"{tmp_path / 'no'}: out: no such directory; make it first"
