"""The demo and a sandbox scenario through the command line, small enough for seconds."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prefloop
from prefloop.cli import main

SMALL = [
    *("--num-demonstrations", "240", "--sft-epochs", "1", "--num-pairs", "96", "--num-eval-prompts", "60"),
    *("--num-steps", "2", "--prompts-per-step", "16", "--max-new-tokens", "12", "--kl-budget", "50"),
    *("--scratch.hidden-size", "32", "--scratch.num-layers", "1", "--scratch.num-heads", "2"),
]
POLICIES = ("sft", "tuned", "hacked_peak", "hacked", "guarded")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demo that was killed once on the way."""
    out = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, "-m", "prefloop", "demo", *SMALL, "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("stages/tuned/checkpoints/step-*/manifest.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "result.json").exists()
    assert main(["demo", *SMALL, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def answer(demo: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((demo / "result.json").read_text())["answer"]
    return stored


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_answer_has_what_programs_rely_on(answer: Mapping[str, Any], demo: Path) -> None:
    assert answer["report"] == str(demo / "report.html")
    assert answer["num_prompts"] == 60
    assert set(answer["kl"]) == {"tuned", "hacked", "guarded"}
    assert set(answer["true_utility"]) == set(answer["proxy"]) == set(POLICIES)
    assert answer["seconds"] >= max(answer["stages"].values()) > 0
    assert answer["peak_memory_bytes"] > 100_000_000


def test_reported_means_and_differences_come_from_the_stored_rollouts(answer: Mapping[str, Any], demo: Path) -> None:
    rows = [row for row in read(demo / "rollouts" / "evaluation.jsonl") if row["half"] == "report"]
    values = {name: [row["true_utility"] for row in rows if row["policy"] == name] for name in POLICIES}
    prompts = {name: [row["prompt_id"] for row in rows if row["policy"] == name] for name in POLICIES}
    for name in POLICIES:
        assert prompts[name] == prompts["sft"] and len(values[name]) == 30
        stored = answer["true_utility"][name]
        assert stored["mean"] == pytest.approx(np.mean(values[name]))
        assert stored["standard_error"] == pytest.approx(np.std(values[name], ddof=1) / 30**0.5)
    for row in rows:
        assert sum(row["parts"].values()) == pytest.approx(row["true_utility"])
    paired = np.subtract(values["tuned"], values["sft"])
    assert answer["differences"]["tuned_minus_sft"]["mean"] == pytest.approx(paired.mean())
    assert answer["differences"]["tuned_minus_sft"]["standard_error"] == pytest.approx(paired.std(ddof=1) / 30**0.5)


def test_the_peak_is_chosen_on_the_other_half(answer: Mapping[str, Any], demo: Path) -> None:
    curve = {row["step"]: row for row in read(demo / "curve.jsonl") if row["run"] == "hacked"}
    assert set(curve) == {0, 1, 2}
    assert curve[answer["peak_step"]]["true_utility"]["mean"] == pytest.approx(
        answer["true_utility"]["hacked_peak"]["mean"]
    )


def test_runs_start_at_the_sft_policy_and_guarded_equals_hacked_inside_the_budget(demo: Path) -> None:
    curve = read(demo / "curve.jsonl")
    for row in curve:
        if row["step"] == 0:
            assert row["kl"] == pytest.approx(0, abs=1e-6)
    hacked = {row["step"]: row["true_utility"] for row in curve if row["run"] == "hacked"}
    guarded = {row["step"]: row["true_utility"] for row in curve if row["run"] == "guarded"}
    assert guarded == {step: hacked[step] for step in guarded}


def test_no_evaluation_prompt_was_trained_on(demo: Path) -> None:
    asked = {row["prompt"] for row in read(demo / "rollouts" / "evaluation.jsonl")}
    for name in ("demonstrations", "prompts", "pairs-honest", "pairs-confidence"):
        assert asked.isdisjoint(row["prompt"] for row in read(demo / "data" / f"{name}.jsonl"))


def test_the_report_is_self_contained(demo: Path) -> None:
    page = (demo / "report.html").read_text()
    assert "plotly" in page and "reward hacking" in page
    without_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "http://" not in without_scripts and "https://" not in without_scripts


def test_a_finished_demo_answers_again_without_work(
    demo: Path, answer: Mapping[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (demo / "report.html").stat().st_mtime_ns
    assert main(["demo", *SMALL, "--out", str(demo), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == answer
    assert "already finished" in captured.err
    assert (demo / "report.html").stat().st_mtime_ns == before


def test_a_scenario_without_bias_cannot_be_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--scenario", "honest", "--out", str(tmp_path / "x")]) == 2
    assert "have no bias to show; known: length" in capsys.readouterr().err
    assert main(["demo", "--scenario", "confidense", "--out", str(tmp_path / "x")]) == 2
    assert "no scenario 'confidense'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["--seed", "-1"], "--seed: is -1; should be greater than or equal to 0"),
        (["--num-eval-prompts", "5000"], "num_eval_prompts: 5000 prompts need 2000 of kind fact, and split test has "),
        (["--algorithm", "pppo"], "algorithm: unknown algorithm 'pppo'; known: "),
        (["--max-new-tokens", "128"], "max_new_tokens 128 leaves no room for a prompt in the 128 positions"),
        (["--num-pairs", "1"], "--num-pairs: is 1; should be greater than or equal to 50"),
        (["--scratch.hidden-size", "30"], "--scratch: hidden_size 30 must be divisible by 2 x num_heads (4)"),
        (["--scratch.vocab-size", "269"], "--scratch: vocab_size 269 is below 270: 256 bytes and the special tokens"),
        (["--scratch.vocab-size", "999999999999"], "--scratch.vocab-size: is 999999999999; should be less than or "),
    ],
)
@pytest.mark.parametrize("command", [["demo"], ["sandbox", "run", "length"]])
def test_what_a_late_stage_would_refuse_is_refused_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], settings: list[str], problem: str
) -> None:
    assert main([*command, *settings, "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.startswith(problem)
    assert not (tmp_path / "x").exists()


def test_a_sandbox_scenario_runs_unguarded_and_guarded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sandbox", "run", "refusal_gap", *SMALL, "--algorithm", "rloo", "--out", str(tmp_path / "s"), "--json"]
    assert main(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["true_utility"]) == {"sft", "unguarded_peak", "unguarded", "guarded"}
    assert {"fact", "unknown", "unsafe", "lookalike", "open"} == set(answer["kinds"]["sft"])
    pairs = read(tmp_path / "s" / "data" / "pairs-refusal_gap.jsonl")
    assert pairs and all(set(row) == {"prompt", "chosen", "rejected"} for row in pairs)
    assert main(arguments) == 0
    again = capsys.readouterr()
    assert json.loads(again.out) == answer and "already finished" in again.err


def test_only_the_evaluation_and_the_annotators_read_the_truth() -> None:
    source = Path(prefloop.__file__).parent
    readers = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and node.module == "prefloop.world.truth")
        or (isinstance(node, ast.Import) and any(name.name == "prefloop.world.truth" for name in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "prefloop.world" and "truth" in str(ast.dump(node)))
    }
    assert readers == {"recipes/measure.py", "world/annotators.py"}


def test_sandbox_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "list", "--json"]) == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)["scenarios"]}
    assert {"honest", "length", "confidence", "citation", "disclaimer", "refusal_gap"} <= names
