"""`audit reward` through the command line: stored twice, shown in the card, binding for `train policy`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.audits import INSIDE, find_audit, store_audit, store_inside
from prefloop.cli import main
from prefloop.rundir import sha256_of
from prefloop.types import AuditReport, Finding


@pytest.fixture
def model(reward_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the reward model, to be written into."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(reward_run.model, "model")
    return Path("model")


def test_the_report_lies_beside_the_model_and_changes_not_what_it_is(
    prefloop: Callable[..., Any], model: Path, data: Path
) -> None:
    before = sha256_of(model)
    assert (model / "README.md").read_text().endswith("audit: none\n")
    outcome = prefloop("audit reward", model, data / "pairs.jsonl", "--html", "audit.html")
    assert outcome.code == (1 if outcome.answer["verdict"] == "block" else 0), outcome.said
    assert outcome.answer["subject_sha256"] == before == sha256_of(model)
    stored = json.loads((model / INSIDE).read_text())
    assert stored == json.loads(Path(outcome.answer["audit"]).read_text())
    assert (model / "README.md").read_text().endswith(f"## Audit\n\naudit: {outcome.answer['verdict']}\n")
    found = {finding["name"]: finding for finding in outcome.answer["findings"]}
    # It prefers words with an e: right on all pairs, whatever the prompt.
    assert found["accuracy"]["value"] > 0.9 and found["prompt_ignored"]["severity"] == "warn"
    page = Path("audit.html").read_text()
    assert "What the model pays for" in page and outcome.answer["next"].split()[1] in page
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    assert sha256_of(model) != before


def test_remedies_train_on_what_the_run_was_trained_on(
    prefloop: Callable[..., Any], reward_run: Any, model: Path, data: Path
) -> None:
    shutil.copy(data / "pairs.jsonl", "held-out.jsonl")
    shutil.copytree(reward_run.run, "run")
    inputs = json.loads(Path("run/inputs.json").read_text())["inputs"]
    (trained_on,) = (each["path"] for name, each in inputs.items() if name.startswith("data"))
    for audited, words in (("run", f"{inputs['model']['path']} --data {trained_on}"), (model, "START --data TRAINING")):
        findings = prefloop("audit reward", audited, "held-out.jsonl", "--num-probes", 20).answer["findings"]
        remedy = next(each["remedy"] for each in findings if each["name"] == "prompt_ignored")
        assert f"--model {words}" in remedy and "held-out" not in remedy


def test_people_read_a_table(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["audit", "reward", str(model), str(data / "pairs.jsonl"), "--num-probes", "40"])
    text = capsys.readouterr().out
    assert "prompt_ignored" in text and text.startswith("model: ")
    assert max(map(len, text.splitlines())) <= 130


def test_samples_are_placed_and_their_scores_spread(prefloop: Callable[..., Any], model: Path, data: Path) -> None:
    rows = [json.loads(line) for line in (data / "pairs.jsonl").read_text().splitlines()]
    samples = [{"prompt": row["prompt"], "response": row[side]} for row in rows[:60] for side in ("chosen", "rejected")]
    Path("samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    outcome = prefloop("audit reward", model, data / "pairs.jsonl", "--samples", "samples.jsonl", "--num-probes", 20)
    found = {finding["name"]: finding for finding in outcome.answer["findings"]}
    # They are the file's own responses: about one in twenty is far.
    assert found["distance"]["value"] < 0.2 and found["distance"]["num_pairs"] == 120
    assert found["score_spread"]["value"] > 0.3


@pytest.mark.parametrize(
    ("body", "said"),
    [("[float('nan')] * len(responses)", "returned nan"), ("[1.0]", "returned 1 scores")],
)
def test_a_score_that_is_no_number_is_one_line(
    prefloop: Callable[..., Any], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.py").write_text(f"def rule(prompts, responses):\n    return {body}\n")
    assert said in prefloop("audit reward", "rules.py:rule", data / "pairs.jsonl").problem


def test_a_model_with_several_labels_is_one_line(prefloop: Callable[..., Any], model: Path, data: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config |= {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    (model / "config.json").write_text(json.dumps(config))
    assert "score" in prefloop("audit reward", model, data / "pairs.jsonl").problem
    assert "no content" in prefloop("audit reward", "http://127.0.0.1:1/get_reward", data / "pairs.jsonl").problem


def test_a_model_without_a_pad_token_is_audited_alike(prefloop: Callable[..., Any], model: Path, data: Path) -> None:
    with_pad = prefloop("audit reward", model, data / "pairs.jsonl", "--num-probes", 20).answer["findings"]
    for name, key in (("tokenizer_config.json", "pad_token"), ("config.json", "pad_token_id")):
        settings = json.loads((model / name).read_text())
        assert settings.pop(key) is not None
        (model / name).write_text(json.dumps(settings))
    without = prefloop("audit reward", model, data / "pairs.jsonl", "--num-probes", 20).answer["findings"]
    assert [(each["name"], each["severity"]) for each in without] == [
        (each["name"], each["severity"]) for each in with_pad
    ]
    values = [[each["value"] for each in found if each["value"] is not None] for found in (with_pad, without)]
    assert values[1] == pytest.approx(values[0], abs=1e-5)


def blocking(model: Path) -> AuditReport:
    finding = Finding("flattery", 3.0, "block", "pays for flattery", remedy="train again")
    return AuditReport(str(model), sha256_of(model), "block", (finding,), "2026-01-01T00:00:00+00:00")


def policy(sft_run: Any, model: Path, data: Path, out: str) -> tuple[object, ...]:
    return (
        *("train policy", "--model", sft_run.run.resolve(), "--reward", model, "--prompts", data / "prompts.jsonl"),
        *("--out", out, "--num-steps", 1, "--prompts-per-step", 4, "--max-new-tokens", 4),
    )


def test_policy_training_obeys_the_audit_of_its_reward_model(
    prefloop: Callable[..., Any], sft_run: Any, model: Path, data: Path
) -> None:
    unaudited = prefloop(*policy(sft_run, model, data, "free"))
    assert unaudited.code == 0, unaudited.said
    assert unaudited.said.count("warning: no audit of model") == 1
    assert "prefloop audit reward model PAIRS" in unaudited.said
    assert json.loads(Path("free/inputs.json").read_text())["inputs"]["reward"]["audit"] == "none"

    # Inside the directory it binds, too: also where the model was copied to.
    store_inside(blocking(model), model)
    model.rename("moved")
    moved = Path("moved")
    refused = prefloop(*policy(sft_run, moved, data, "held"))
    assert refused.code == 1 and refused.answer == {}
    assert "flattery: pays for flattery" in refused.said and "--accept-findings flattery" in refused.said
    borne = prefloop(*policy(sft_run, moved, data, "held"), "--accept-findings", "flattery")
    assert borne.code == 0, borne.said
    entry = json.loads(Path("held/inputs.json").read_text())["inputs"]["reward"]
    assert entry["audit"] == "block" and entry["accepted_findings"] == ["flattery"]


def test_the_newest_of_two_reports_counts(prefloop: Callable[..., Any], sft_run: Any, model: Path, data: Path) -> None:
    store_inside(blocking(model), model)
    store_audit(AuditReport("model", sha256_of(model), "pass", (), "2026-02-01T00:00:00+00:00"))
    assert find_audit(sha256_of(model)) is not None
    done = prefloop(*policy(sft_run, model, data, "run"))
    assert done.code == 0 and "no audit of" not in done.said
    assert json.loads(Path("run/inputs.json").read_text())["inputs"]["reward"]["audit"] == "pass"
