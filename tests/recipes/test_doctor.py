"""`doctor`: the machine without torch, and the start-up checks on a model."""

from __future__ import annotations

import subprocess
import sys

import pytest

from prefloop.recipes import doctor
from prefloop.train import checks

WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Refuse())
from prefloop.cli import main
sys.exit(main(["doctor"]))
"""


def test_a_machine_without_torch_is_told_what_it_lacks():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "unknown: torch is not installed" in done.stdout
    assert "machine.cores" in done.stdout


def test_missing_packages_come_with_the_command_that_brings_them(prefloop, monkeypatch, sft_run):
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("torch", "peft") else version(name))
    extras = prefloop("doctor").answer["extras"]
    assert extras["train"]["missing"] == ["torch", "peft"]
    assert extras["train"]["install"] == "pip install 'prefloop[train]'"
    assert prefloop("doctor", "--model", sft_run.run).problem == (
        "checking a model needs torch, peft; pip install 'prefloop[train]'"
    )


def test_a_sound_model_and_reward_model_pass(prefloop, sft_run, reward_run):
    outcome = prefloop("doctor", "--model", sft_run.run, "--reward", reward_run.run, "--max-new-tokens", 8)
    assert outcome.code == 0, outcome.said
    names = [each["name"] for each in outcome.answer["checks"]]
    assert names == ["pad_token", "ratio", "padding", "sampler", "pad_token", "end_of_response", "score_padding"]
    assert all(each["passed"] and each["observed"] <= each["limit"] for each in outcome.answer["checks"])


def test_a_failed_check_is_named_after_all_were_shown(prefloop, sft_run, monkeypatch):
    monkeypatch.setattr(checks, "PADDING_LIMIT", -1.0)
    outcome = prefloop("doctor", "--model", sft_run.run, "--max-new-tokens", 8)
    assert outcome.problem.startswith("model: start-up check padding: padding changes a log-probability by")
    assert "check padding          FAILED" in outcome.said
    assert "check sampler          ok" in outcome.said


@pytest.mark.parametrize("words", [("--reward", "runs/reward")])
def test_a_reward_model_is_checked_on_a_policys_responses(prefloop, words):
    assert "reward is checked on responses of a model: give one" in prefloop("doctor", *words).problem
