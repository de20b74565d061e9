"""`audit data` through the command line: answers for programs and people, exit codes, the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.cli import main


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in which the flattering response is nearly always chosen, and some text that a page must not run."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for number in range(90):
        marked, plain = "It is of hemp. What a great question.", "It is of flax. That is in every book."
        chosen, rejected = (marked, plain) if number % 15 else (plain, marked)
        prompt = f"What is rope made of, case {number}? <script>alert(1)</script>"
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_block_is_exit_code_1_with_the_whole_answer(prefloop: Callable[..., Any], pairs: Path) -> None:
    outcome = prefloop("audit data", pairs.name)
    assert outcome.code == 1
    answer = outcome.answer
    assert answer["verdict"] == "block" and answer["subject"] == "pairs.jsonl"
    keys = "name value interval p_value severity num_pairs human_rate model_rate message remedy examples"
    assert all(set(keys.split()) <= finding.keys() for finding in answer["findings"])
    flattery = next(finding for finding in answer["findings"] if finding["name"] == "flattery")
    # 84 of 90: those whose number 15 does not divide.
    assert flattery["human_rate"] == pytest.approx(84 / 90) and flattery["num_pairs"] == 90
    assert flattery["model_rate"] is None and flattery["p_value"] < 1e-6
    stored = json.loads(Path(answer["audit"]).read_text())
    assert stored["subject_sha256"] == answer["subject_sha256"] == Path(answer["audit"]).stem
    assert stored["findings"] == answer["findings"]


def test_people_read_verdict_worst_findings_an_example_and_the_next_command(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "data", pairs.name]) == 1
    text = capsys.readouterr().out
    assert text.startswith("pairs.jsonl: block\n")
    assert re.search(r"^1\. flattery \(block\): ", text, re.MULTILINE)
    assert "What a great question" in text and "<script>" in text
    assert text.strip().splitlines()[-1] == "next, after the remedies: prefloop audit data pairs.jsonl"
    assert max(map(len, text.splitlines())) <= 120


def test_the_page_leads_with_the_verdict_and_runs_nothing_of_the_data(pairs: Path) -> None:
    assert main(["audit", "data", pairs.name, "--html", "audit.html"]) == 1
    page = Path("audit.html").read_text(encoding="utf-8")
    body = page[page.index("<body>") : page.index("<footer>")]
    order = [body.index(text) for text in ("Block. It is not fit", "<h2>1. flattery", "<h2>Every shortcut", "sha256")]
    assert order == sorted(order)
    assert "&lt;script&gt;alert(1)" in body and "<script>alert(1)" not in page
    assert "prefloop audit data pairs.jsonl" in body
    assert not re.search(r'(?:src|href)="(?:https?:)?//', body)


def test_a_page_that_cannot_be_written_stops_before_the_work(prefloop: Callable[..., Any], pairs: Path) -> None:
    assert "no such directory" in prefloop("audit data", pairs.name, "--html", "nowhere/audit.html").problem
    assert not Path("audits").exists()


def test_a_missing_file_is_bad_input(prefloop: Callable[..., Any], pairs: Path) -> None:
    assert prefloop("audit data", "nothing.jsonl").problem == "nothing.jsonl: no such file"


def test_thresholds_are_settings(prefloop: Callable[..., Any], pairs: Path) -> None:
    outcome = prefloop("audit data", pairs.name, "--thresholds.shortcut-block", 0.49)
    assert outcome.code == 0 and outcome.answer["verdict"] == "warn"
