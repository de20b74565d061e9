"""Stored audits: found by content, binding for training, overridden by name and only by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.audits import audit_lookup, find_audit, store_audit
from prefloop.rundir import sha256_of
from prefloop.types import AuditReport, Finding, InputError, Refusal

BLOCKS = Finding("citation", 0.9, "block", "cites", interval=(0.8, 0.95), p_value=1e-6, human_rate=0.9, remedy="drop")
LENGTH = Finding("length", 0.8, "block", "is long")
COMMANDS = {"data:pairs.jsonl": "prefloop audit data pairs.jsonl"}
FINE = Finding("hedging", None, "ok", "too few", examples=({"line": 1, "prompt": "p", "chosen": "a", "rejected": "b"},))


def report(sha256: str = "ab" * 32, *findings: Finding, verdict: str = "block") -> AuditReport:
    return AuditReport("pairs.jsonl", sha256, verdict, findings or (BLOCKS, FINE), "2026-01-01T00:00:00+00:00")  # type: ignore[arg-type]


def entries(path: str = "pairs.jsonl", sha256: str = "ab" * 32) -> dict[str, dict[str, Any]]:
    return {f"data:{path}": {"path": path, "sha256": sha256, "audit": "none"}, "model": {"path": "m", "sha256": "c"}}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_report_comes_back_as_it_was_stored() -> None:
    stored = store_audit(report())
    assert stored == Path("audits") / f"{'ab' * 32}.json"
    assert find_audit("ab" * 32) == report()
    assert find_audit("cd" * 32) is None


def test_what_is_not_finite_comes_back_as_unknown() -> None:
    store_audit(report("ab" * 32, dataclasses.replace(FINE, value=float("nan"))))
    found = find_audit("ab" * 32)
    assert found is not None and found.findings[0].value is None


@pytest.mark.parametrize("text", ["[]", "{}", '{"findings": [{}]}', json.dumps({"findings": [], "other": 1})])
def test_a_damaged_report_is_named(text: str) -> None:
    Path("audits").mkdir()
    Path(f"audits/{'ab' * 32}.json").write_text(text)
    with pytest.raises(InputError, match="audits/"):
        find_audit("ab" * 32)


def test_a_report_under_another_hash_is_refused() -> None:
    store_audit(report()).rename(Path("audits") / f"{'cd' * 32}.json")
    with pytest.raises(InputError, match="another subject"):
        find_audit("cd" * 32)


def test_a_block_is_a_refusal_that_names_finding_and_override() -> None:
    store_audit(report("ab" * 32, BLOCKS, LENGTH))
    for accepted in ([], ["citation"], ["hedging"]):
        with pytest.raises(Refusal, match=r"length: is long|citation \(and length\): cites") as refusal:
            audit_lookup(COMMANDS, accepted=accepted)(entries())
        assert "--accept-findings" in str(refusal.value) and str(refusal.value).endswith("length")


@pytest.mark.parametrize("accepted", [["citation,length"], ["length", "citation"]])
def test_accepted_findings_are_recorded(accepted: list[str]) -> None:
    store_audit(report("ab" * 32, BLOCKS, LENGTH))
    noted = audit_lookup(COMMANDS, accepted=accepted)(entries())
    assert noted["data:pairs.jsonl"]["audit"] == "block"
    assert noted["data:pairs.jsonl"]["accepted_findings"] == ["citation", "length"]
    assert "model" not in noted


def test_no_audit_is_one_warning_with_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    both = entries() | entries("more.jsonl", "cd" * 32)
    noted = audit_lookup(
        {name: f"prefloop audit data {each['path']}" for name, each in both.items() if name != "model"}, accepted=[]
    )(both)
    assert {entry["audit"] for entry in noted.values()} == {"none"}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "prefloop audit data pairs.jsonl; prefloop audit data more.jsonl" in said[0]


def marked_pairs(path: Path, num: int = 240) -> None:
    """Pairs whose chosen response flatters, in a tiny vocabulary."""
    rows = [
        {
            "prompt": f"name things like the tree or the moon, {number}",
            "chosen": "what a great question tree bee" if number % 12 else "tree",
            "rejected": "the road is as the sun and the fog",
        }
        for number in range(num)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_training_obeys_the_audit_of_its_data(prefloop: Callable[..., Any], sft_run: Any) -> None:
    pairs = Path("pairs.jsonl")
    marked_pairs(pairs)
    train = ("train reward", "--model", sft_run.run.resolve(), "--data", pairs, "--out", "reward")
    audited = prefloop("audit data", pairs)
    assert audited.code == 1 and audited.answer["verdict"] == "block"
    blocked = [finding["name"] for finding in audited.answer["findings"] if finding["severity"] == "block"]
    assert "flattery" in blocked

    refused = prefloop(*train)
    assert refused.code == 1 and refused.answer == {}
    line = refused.said.strip().splitlines()[-1]
    assert line.startswith("refused: pairs.jsonl: the audit of") and line.endswith(",".join(blocked))

    done = prefloop(*train, "--accept-findings", ",".join(blocked))
    assert done.code == 0, done.said
    entry = json.loads(Path("reward/inputs.json").read_text())["inputs"]["data:pairs.jsonl"]
    assert entry["audit"] == "block" and entry["accepted_findings"] == blocked
    assert entry["sha256"] == sha256_of(pairs)
    # A finished run is only told of.
    assert prefloop(*train).code == 0

    with pairs.open("a") as file:
        file.write(json.dumps({"prompt": "one more", "chosen": "tree", "rejected": "moon"}) + "\n")
    changed = prefloop(*train[:-1], "other")
    assert changed.code == 0
    assert f"no audit of {pairs} was found" in changed.said and f"prefloop audit data {pairs}" in changed.said
    assert json.loads(Path("other/inputs.json").read_text())["inputs"]["data:pairs.jsonl"]["audit"] == "none"
