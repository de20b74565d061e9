"""`model gate` from the command line: with and without a registry, up to a promotion and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.audits import store_audit, store_inside
from prefloop.gate.decide import Evidence
from prefloop.rundir import sha256_of
from prefloop.types import Approval, AuditReport, Evaluation

PASSES = ("--limits.audit.required", "false")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def models() -> list[Path]:
    """Three directories with other weights."""
    made = [Path(name) for name in ("one", "two", "three")]
    for path in made:
        path.mkdir()
        (path / "model.safetensors").write_text(path.name)
    return made


@pytest.fixture
def evidence(good: Evidence, write: Callable[..., Path]) -> Callable[..., Path]:
    """A file of evaluations of one directory beside another, all of which pass."""

    def make(candidate: Path, baseline: Path, **changed: Any) -> Path:
        hashes = {"candidate_sha256": sha256_of(candidate), "baseline_sha256": sha256_of(baseline)}
        rows = [dataclasses.replace(each, **{**hashes, **changed}) for each in good.evaluations]
        return write(Path(f"{candidate.name}-{baseline.name}.jsonl"), *rows)

    return make


def test_the_answer_is_the_contracts_json(
    models: list[Path], evidence: Callable[..., Path], prefloop: Callable[..., Any]
) -> None:
    one, two, _ = models
    outcome = prefloop("model gate", two, "--evidence", evidence(two, one), "--incumbent", one, *PASSES)
    assert outcome.code == 0
    assert outcome.answer["verdict"] == "promote"
    assert all(set(each) == {"name", "passed", "observed", "required", "reason"} for each in outcome.answer["checks"])
    assert (outcome.answer["candidate"], outcome.answer["incumbent"]) == (sha256_of(two), sha256_of(one))
    assert outcome.answer["event"] is None
    assert "there is no registry at registry: the decision is not recorded" in outcome.said
    assert not Path("registry").exists()

    stricter = ("--limits.win-rate.at-least", 54)
    refused = prefloop("model gate", two, "--evidence", evidence(two, one), "--incumbent", one, *PASSES, *stricter)
    assert refused.code == 1 and refused.answer["verdict"] == "hold"
    (failed,) = [each for each in refused.answer["checks"] if not each["passed"]]
    assert failed["name"] == "win_rate" and failed["required"] == "95 % interval at least 54, 100 rows"
    assert failed["reason"].endswith("not shown to be at least 54, the interval crosses the limit")
    # What comes next asks for more evidence under the same limits.
    words = refused.answer["next"].split()[1:]
    assert words.pop(words.index("MORE.jsonl")) and "--limits.audit.required" in words
    again = prefloop(*words)
    assert again.answer["checks"] == refused.answer["checks"]


def test_without_evidence_everything_holds(models: list[Path], prefloop: Callable[..., Any]) -> None:
    outcome = prefloop("model gate", models[0])
    assert outcome.code == 1 and outcome.answer["verdict"] == "hold"
    assert [each["passed"] for each in outcome.answer["checks"]] == [False] * len(outcome.answer["checks"])


def test_limits_come_from_a_file(
    models: list[Path], evidence: Callable[..., Path], prefloop: Callable[..., Any], write: Callable[..., Path]
) -> None:
    one, two, _ = models
    Path("gate.yaml").write_text(
        "limits:\n  audit:\n    required: false\n  max_age_days: 100000\n  more:\n    toxicity:\n"
        "      evaluations: [toxicity]\n      at_most: 0.01\n"
    )
    words = ("model gate", two, "--incumbent", one, "--config", "gate.yaml", "--evidence", evidence(two, one))
    held = prefloop(*words)
    assert held.code == 1
    assert [each["name"] for each in held.answer["checks"] if not each["passed"]] == ["toxicity"]
    more = Evaluation("toxicity", sha256_of(two), sha256_of(one), "c" * 64, 0.0, (0.0, 0.01), 500, "2026-06-29")
    assert prefloop(*words, write(Path("more.jsonl"), more)).code == 0
    Path("gate.yaml").write_text("limits:\n  more:\n    win_rate:\n      evaluations: [win_rate]\n      at_least: 0\n")
    assert "limits: more.win_rate is the name of a built-in check" in prefloop(*words).problem
    Path("gate.yaml").write_text("limits:\n  win_rate:\n    at_least: high\n")
    assert prefloop(*words).problem == 'gate.yaml:3: limits.win_rate.at_least: is "high"; should be a number'


def test_audits_are_found_where_they_are_kept(
    models: list[Path], evidence: Callable[..., Path], prefloop: Callable[..., Any], report: Callable[..., AuditReport]
) -> None:
    one, two, reward = models
    prefloop("model register", one, "--name", "helper")
    prefloop("model promote", "helper:1", "--override", "--why", "first")
    prefloop("model register", two, "--name", "helper", "--reward", reward)

    def audit_check() -> dict[str, Any]:
        answer = prefloop("model gate", "helper:2", "--evidence", evidence(two, one)).answer
        (check,) = [each for each in answer["checks"] if each["name"].startswith("audit")]
        assert (answer["verdict"] == "promote") == check["passed"]
        return check

    assert audit_check()["reason"] == f"there is no audit of {reward}"
    store_audit(report(subject_sha256=sha256_of(reward)))
    assert audit_check()["passed"]
    # The newer one, inside the model, binds.
    newer = dataclasses.replace(report("length", subject_sha256=sha256_of(reward)), at="2026-06-30T00:00:00+00:00")
    store_inside(newer, reward)
    assert "blocks: length" in audit_check()["reason"]


def test_from_evidence_to_live_and_back(
    models: list[Path], evidence: Callable[..., Path], prefloop: Callable[..., Any]
) -> None:
    one, two, three = models
    for model in models:
        assert prefloop("model register", model, "--name", "helper").code == 0
    assert prefloop("model promote", "helper:1", "--override", "--why", "first").code == 0

    # Evidence of older weights, and beside what is not live, holds and says so.
    stale = prefloop("model gate", "helper:2", "--evidence", evidence(three, one), *PASSES)
    assert stale.code == 1
    assert "it is of helper:3 (" in stale.answer["checks"][0]["reason"]
    stale = prefloop("model gate", "helper:2", "--evidence", evidence(two, three), *PASSES)
    assert "it compares with helper:3 (" in stale.answer["checks"][0]["reason"]
    assert prefloop("model promote", "helper:2").code == 1

    # The candidate by its directory is the registered version; the decision is recorded with its evidence.
    file = evidence(two, one)
    passed = prefloop("model gate", two, "--evidence", file, *PASSES, "--who", "Ada", "--why", "weekly")
    assert passed.code == 0 and passed.answer["event"] == 8
    event = prefloop("model history", "--event", 8).answer
    assert (event["who"], event["why"]) == ("Ada", "weekly")
    assert event["body"]["label"] == "helper:2" and event["body"]["files"] == {str(file): sha256_of(file)}
    assert event["body"]["evaluations"] == [json.loads(line) for line in file.read_text().splitlines()]
    assert event["body"]["limits"]["win_rate"]["at_least"] == 50.0
    following = passed.answer["next"].split()
    assert following[:3] == ["prefloop", "model", "promote"]
    assert prefloop(*following[1:]).answer["live"] == "helper:2"
    assert (Path("registry/live") / "model.safetensors").read_text() == "two"

    # Another decision over what is no longer live allows nothing.
    assert prefloop("model gate", "helper:3", "--evidence", evidence(three, one), *PASSES).code == 1
    # Of what is live the gate says whether it may stay; what was live before is its baseline.
    stays = prefloop("model gate", "helper:2", "--evidence", evidence(two, one), *PASSES)
    assert stays.code == 0 and stays.answer["incumbent"] == sha256_of(one)
    worse = prefloop("model gate", "helper:2", "--evidence", evidence(two, one, interval=(-1.0, -0.5)), *PASSES)
    assert worse.code == 1 and worse.answer["verdict"] == "rollback"
    assert worse.answer["next"] == "prefloop model rollback"
    assert prefloop("model rollback", "--why", "worse").answer["live"] == "helper:1"
    assert (Path("registry/live") / "model.safetensors").read_text() == "one"
    assert prefloop("model verify").code == 0


def test_a_person_is_asked(models: list[Path], evidence: Callable[..., Path], prefloop: Callable[..., Any]) -> None:
    one, two, _ = models
    words = ("model gate", two, "--evidence", evidence(two, one), "--incumbent", one, *PASSES)
    asked = (*words, "--limits.approval.people", 1)
    held = prefloop(*asked)
    assert held.code == 1 and held.answer["checks"][-1]["reason"] == "nobody has said yes"
    yes = prefloop(*asked, "--approved-by", "Ada", "--why", "read fifty answers")
    assert yes.code == 0 and yes.answer["checks"][-1]["observed"] == "Ada"


def test_a_refusal_stands_until_who_refused_says_yes(
    models: list[Path], evidence: Callable[..., Path], prefloop: Callable[..., Any], write: Callable[..., Path]
) -> None:
    one, two, _ = models
    prefloop("model register", one, "--name", "helper")
    prefloop("model promote", "helper:1", "--override", "--why", "first")
    words = ("model gate", two, *PASSES, "--evidence", evidence(two, one))
    assert prefloop(*words).code == 0
    refusal = Approval(sha256_of(two), False, "Ada", "it flatters", "2026-06-01T00:00:00+00:00")
    assert prefloop(*words, write(Path("no.jsonl"), refusal)).code == 1
    # Leaving the file out is no way around it, nor is another's yes, nor one that she had said before.
    older = write(Path("old.jsonl"), dataclasses.replace(refusal, approved=True, at="2026-05-01T00:00:00+00:00"))
    for more in ((), ("--approved-by", "Eve"), (older,)):
        held = prefloop(*words, *more)
        assert held.code == 1 and held.answer["checks"][-1]["reason"] == "Ada said no: it flatters"
    assert prefloop(*words, "--approved-by", "Ada", "--why", "read again").code == 0
    assert prefloop(*words).code == 0


def test_a_decision_need_not_be_recorded(models: list[Path], prefloop: Callable[..., Any]) -> None:
    prefloop("model register", models[0], "--name", "helper")
    outcome = prefloop("model gate", "helper:1", "--no-record")
    assert outcome.answer["event"] is None
    assert len(prefloop("model history").answer["events"]) == 2


def test_an_unregistered_candidate_is_judged_too(models: list[Path], prefloop: Callable[..., Any]) -> None:
    prefloop("model register", models[0], "--name", "helper")
    outcome = prefloop("model gate", models[1])
    assert outcome.answer["candidate"] == sha256_of(models[1]) and outcome.answer["event"] == 3


def test_bad_input_of_the_gate(models: list[Path], evidence: Callable[..., Path], prefloop: Callable[..., Any]) -> None:
    problem = prefloop("model gate", "none").problem
    assert problem == (
        "none: candidate: no such model; give a model directory or a finished run; there is no registry at registry"
    )
    assert "none.jsonl: no such file" in prefloop("model gate", models[0], "--evidence", "none.jsonl").problem
    file = evidence(models[1], models[0])
    file.write_text(file.read_text() + '{"name": "win_rate"}\n')
    lines = len(file.read_text().splitlines())
    problem = prefloop("model gate", models[1], "--evidence", file).problem
    assert problem.startswith(f"{file}:{lines}: candidate_sha256: is missing")
    prefloop("model register", models[0], "--name", "helper")
    before = Path("registry/ledger.sqlite").read_bytes()
    assert (
        "incumbent: what is live in the registry is"
        in prefloop("model gate", "helper", "--incumbent", models[1]).problem
    )
    assert "there is no version other" in prefloop("model gate", "other").problem
    assert "limits.more" in prefloop("model gate", "helper", "--limits.more", "x").problem
    assert Path("registry/ledger.sqlite").read_bytes() == before


def test_what_the_terminal_shows(
    models: list[Path], evidence: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from prefloop.cli import main

    one, two, _ = models
    file = evidence(two, one, interval=(-0.2, 0.3))
    assert main(["model", "gate", str(two), "--evidence", str(file), "--incumbent", str(one), *PASSES]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "two: hold: not shown to be good enough"
    assert shown[2] == "  NO   win_rate"
    assert shown[3].startswith(
        "       win_rate is 58 (95 % interval -0.2 to 0.3, 400 rows): the whole interval is below"
    )
    assert shown[-1].startswith("next: prefloop model gate two")
