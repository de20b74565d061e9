"""One whole round in the simulated world, through the command line: what it answers, and what its audit binds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prefloop.audits import INSIDE, find_audit
from prefloop.config import load
from prefloop.recipes.round import run
from prefloop.recipes.round_config import round_config
from prefloop.recipes.round_status import STAGES
from prefloop.recipes.round_text import as_tables
from prefloop.rundir import read_json, sha256_of, write_rows
from prefloop.world.knowledge import World
from prefloop.world.prompts import make_prompts

DOCS = Path(__file__).parents[2] / "docs" / "round.md"
MODEL = Path("round/reward/model")


@dataclass(frozen=True)
class Played:
    """A round whose reward model learns next to nothing, which its audit blocks, and the same with that accepted."""

    root: Path
    refused: Any
    status: dict[str, Any]
    """What `round status` said in between."""
    done: Any
    blocking: list[str]


@pytest.fixture(scope="module")
def played(
    prefloop: Callable[..., Any], data: Path, sft_run: Any, reward_run: Any, tmp_path_factory: pytest.TempPathFactory
) -> Played:
    root = tmp_path_factory.mktemp("simulated")
    prompts = make_prompts(World.build(0), split="train", count=400, seed=0)
    write_rows(root / "prompts.jsonl", [{"prompt": each.messages[-1].content} for each in prompts])
    words = (
        *("round run", "--policy", sft_run.run, "--incumbent", sft_run.run, "--reward", reward_run.run),
        *("--pairs", data / "pairs.jsonl", "--prompts", "prompts.jsonl", "--simulate", "honest", "--out", "round"),
        *("--algorithm", "rloo", "--num-comparisons", 800, "--max-new-tokens", 8, "--held-out-fraction", 0.8),
        *("--num-resamples", 100, "--tune.num-steps", 1, "--tune.prompts-per-step", 4, "--tune.max-new-tokens", 8),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        refused = prefloop(*words)
        status = prefloop("round status", "round").answer
        raised = read_json(Path("round/stages/audit_reward.json"))["raised"]
        blocking = [each["name"] for each in raised if each["severity"] == "block"]
        done = prefloop(*words, "--accept-findings", ",".join(blocking))
    assert done.code == 0, (refused.said, done.said)
    return Played(root, refused, status, done, blocking)


@pytest.fixture(autouse=True)
def _here(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(played.root)


def test_the_audit_of_the_retrained_model_binds(played: Played) -> None:
    assert "accuracy" in played.blocking, "a model that learns next to nothing is no better than a coin"
    assert played.refused.code == 1 and played.refused.answer == {}
    assert f"refused: {MODEL}: the audit of" in played.refused.said
    assert f"--accept-findings {','.join(played.blocking)}" in played.refused.said
    assert played.status["state"] == "next is policy"
    says = {stage["stage"]: stage["says"] for stage in played.status["stages"]}
    assert says["audit_reward"].startswith("block: accuracy") and says["policy"] == ""


def test_the_report_lies_where_training_and_gate_look(played: Played, prefloop: Callable[..., Any]) -> None:
    stored = find_audit(sha256_of(MODEL))
    assert stored is not None and stored.verdict == "block"
    assert read_json(MODEL / INSIDE)["at"] == stored.at
    assert (MODEL / "README.md").read_text().endswith("audit: block\n")
    entry = read_json(Path("round/policy/inputs.json"))["inputs"]["reward"]
    assert entry["audit"] == "block" and entry["accepted_findings"] == played.blocking
    assert "no audit of round/reward" not in played.done.said

    def audit_check(*limits: object) -> dict[str, Any]:
        checks = prefloop("model gate", "round/policy", *limits).answer["checks"]
        (found,) = [each for each in checks if each["name"].startswith("audit")]
        return dict(found)

    # Who bore it in training has not said that it may go live.
    assert not audit_check()["passed"] and f"blocks: {', '.join(played.blocking)}" in audit_check()["reason"]
    assert audit_check("--limits.audit.accept-findings", *played.blocking)["passed"]


def test_the_answer_has_the_keys_that_the_docs_name(played: Played) -> None:
    answer = played.done.answer
    told = DOCS.read_text().split("## The answer")[1].split("\n## ")[0]
    named = dict(line.strip("| ").split(" | ", 1) for line in told.splitlines() if line.startswith("| `"))
    keys = {name.strip("`"): {part.strip("`") for part in has.split(", ")} for name, has in named.items()}
    assert keys.keys() == answer.keys()
    assert {name: set(answer[name]) for name in STAGES} == {name: keys[name] for name in STAGES}
    assert set(answer["seconds"]) == set(STAGES) and answer == read_json(Path("round/result.json"))["answer"]

    label, audited = answer["label"], answer["audit_reward"]
    assert label["num_judged"] == answer["sample"]["num_comparisons"] == label["num_votes"]
    assert label["num_train"] + label["num_held_out"] == label["num_pairs"] == answer["shift"]["new"]["num_pairs"]
    held_out = answer["reward"]["retrained"]
    accuracy = next(each for each in audited["raised"] if each["name"] == "accuracy")["message"]
    assert f"{held_out['accuracy']:.1%} of {held_out['num_pairs']} pairs" in accuracy, "asked about the same pairs"
    shown = as_tables(answer)
    assert "the audit of the retrained model: block" in shown and f"block: accuracy: {accuracy[:30]}" in shown


def test_a_recipe_that_looks_up_no_audits_goes_on(
    played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(played.root, tmp_path / "copy"))
    shutil.rmtree("round/policy")
    shutil.rmtree("audits")
    for name in ("result.json", "stages/policy.json", "stages/audit_reward.json"):
        Path("round", name).unlink()
    own = "round/config.yaml"
    config = load(round_config("rloo"), yaml_path=own)
    answer = run(config.model_copy(update={"accept_findings": ()}), look_up_audits=False)
    assert answer["audit_reward"]["verdict"] == "block" and answer["policy"]["stopped"] == "done"
    assert Path(answer["audit_reward"]["audit"]).parent == Path("round/audits") and not Path("audits").exists()
    remedies = {each["name"]: each["remedy"] for each in read_json(MODEL / INSIDE)["findings"]}
    setting = "retrain.augment.mismatched-fraction"
    assert remedies["prompt_ignored"] == f"prefloop round run --config {own} --out ANOTHER --{setting} 0.5"
    changed = load(round_config("rloo"), yaml_path=own, overrides={setting.replace("-", "_"): "0.5"})
    assert changed.retrain.augment.mismatched_fraction == 0.5
