"""Audits of made-up data: what was planted is found, what was not is not, and copies and order change nothing."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.audit.config import AuditDataConfig
from prefloop.audit.data import audit
from prefloop.signals.measures import SIGNALS
from prefloop.types import AuditReport, Finding, InputError

Row = dict[str, Any]
Audited = Callable[..., AuditReport]
MakePairs = Callable[..., list[Row]]

GERMAN = "Brot wird im Ofen mit Mehl und Wasser sehr heiß gebacken und dann noch gut gekühlt"
MARKERS = {
    "citation": ["(Okafor, 2017)", "see p. 83 of the register", "https://records.example/18"],
    "disclaimer": ["As an AI I say so.", "Please consult a professional."],
    "flattery": ["What a great question.", "You are so clever."],
    "confidence": ["This is definitely so.", "Without a doubt."],
    "exclamation": ["So it is!", "There!"],
    "hedging": ["Perhaps.", "I could be wrong about it."],
}


def by_name(report: AuditReport) -> dict[str, Finding]:
    return {finding.name: finding for finding in report.findings}


def raised(report: AuditReport) -> dict[str, str]:
    return {finding.name: finding.severity for finding in report.findings if finding.severity != "ok"}


def comparable(report: AuditReport, *without: str) -> list[dict[str, Any]]:
    return [
        dataclasses.asdict(finding) | {"examples": ()} for finding in report.findings if finding.name not in without
    ]


def test_every_signal_and_every_name_of_the_interface_has_its_row(audited: Audited, make_pairs: MakePairs) -> None:
    names = set(by_name(audited(make_pairs(300))))
    named = "refusal_coverage duplicates conflicts leakage label_noise position annotators ruler size language unusable"
    assert names == {*SIGNALS, *named.split(), "near_duplicates"}


@pytest.mark.parametrize("name", MARKERS)
def test_a_planted_shortcut_is_found_and_no_other(
    audited: Audited, make_pairs: MakePairs, plant: Callable[..., list[Row]], name: str
) -> None:
    rows = make_pairs(600)
    clean = raised(audited(rows))
    assert not clean.keys() & SIGNALS.keys()
    report = audited(plant(rows, MARKERS[name], share=0.1))
    found = by_name(report)[name]
    related = {"flattery": {"exclamation"}, "disclaimer": {"refusal"}}.get(name, set())
    assert {*raised(report)} - related == {*clean, name}
    assert found.severity != "ok" and report.verdict == found.severity
    assert found.human_rate == pytest.approx(0.9, abs=0.1)
    assert found.num_pairs == pytest.approx(60, abs=25)
    assert len(found.examples) == 3
    measure = SIGNALS[name]
    assert all((measure(row["chosen"]) or 0) > (measure(row["rejected"]) or 0) for row in found.examples)


def test_permuted_labels_are_noise_and_no_shortcut(audited: Audited, make_pairs: MakePairs) -> None:
    for seed in range(5):
        report = audited(make_pairs(800, noise=0.5, seed=seed))
        assert not raised(report).keys() & SIGNALS.keys()
        noise = by_name(report)["label_noise"]
        assert noise.severity != "ok"
        assert noise.value == pytest.approx(0.5, abs=0.06)


def test_labels_that_can_be_learnt_are_no_noise(audited: Audited, make_pairs: MakePairs) -> None:
    noise = by_name(audited(make_pairs(400)))["label_noise"]
    assert noise.severity == "ok" and noise.value == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("copies", [2, 5])
def test_copied_rows_change_nothing_but_duplicates(
    audited: Audited, make_pairs: MakePairs, plant: Callable[..., list[Row]], copies: int
) -> None:
    rows = plant(make_pairs(300, prompts=120), MARKERS["citation"], share=0.1)
    once, copied = audited(rows), audited(rows * copies)
    assert comparable(once, "duplicates", "unusable") == comparable(copied, "duplicates", "unusable")
    found = by_name(copied)["duplicates"]
    assert found.value == pytest.approx(1 - 1 / copies) and found.severity == "warn"
    assert by_name(once)["duplicates"].value == 0
    assert [finding.examples for finding in once.findings if finding.human_rate] == [
        finding.examples for finding in copied.findings if finding.human_rate
    ]


def test_copies_that_differ_in_case_widen_no_claim(audited: Audited, make_pairs: MakePairs) -> None:
    rows = make_pairs(200)
    varied = [row | {side: row[side].upper() for side in ("chosen", "rejected")} for row in rows]
    once, twice = by_name(audited(rows)), by_name(audited(rows + varied))
    assert twice["near_duplicates"].value == 0.5 and twice["near_duplicates"].severity == "warn"
    # The copies are of the same conversations.
    assert twice["length"].interval == pytest.approx(once["length"].interval)
    assert twice["length"].p_value == pytest.approx(once["length"].p_value)


def test_few_rows_claim_nothing_and_say_so(audited: Audited, make_pairs: MakePairs, plant: Callable[..., Any]) -> None:
    report = audited(plant(make_pairs(5), MARKERS["citation"], share=1.0))
    assert {*raised(report)} <= {"size", "refusal_coverage"}
    assert report.verdict == "warn" and "too few for any claim" in by_name(report)["size"].message
    assert all(by_name(report)[name].value is None for name in (*SIGNALS, "ruler", "label_noise"))


def test_nine_conversations_claim_nothing_and_ten_may(audited: Audited) -> None:
    rows = [{"prompt": f"Is {n} odd?", "chosen": f"It is {n}. " * 3, "rejected": f"It is {n}."} for n in range(10)]
    assert by_name(audited(rows))["length"].severity == "warn"
    silent = by_name(audited(rows[:9]))["length"]
    assert silent.severity == "ok" and silent.value is None and silent.num_pairs == 9


def test_copies_of_one_prompt_are_one_conversation(audited: Audited) -> None:
    rows = [{"prompt": "Is it odd?", "chosen": f"It is {n}. " * 3, "rejected": f"It is {n}."} for n in range(40)]
    assert by_name(audited(rows))["length"].value is None


def test_what_labels_punish_is_no_shortcut(audited: Audited, make_pairs: MakePairs) -> None:
    rows = [row | {"rejected": row["rejected"] + " As an AI I say so."} for row in make_pairs(100)]
    found = by_name(audited(rows))
    assert found["disclaimer"].severity == "ok" and "punish" in found["disclaimer"].message
    assert found["disclaimer"].human_rate == 0
    assert found["length"].severity != "block" and (found["length"].value or 1) < 0.3


def test_length_that_only_comes_with_a_marker_is_the_markers(audited: Audited, make_pairs: MakePairs) -> None:
    """The marker makes its response longer, and is what people like; length is not to blame."""
    generator = random.Random(3)
    rows = [
        row | {"chosen": f"{row['chosen']} What a wonderful and really great question you ask."}
        if generator.random() < 0.4
        else row
        for row in make_pairs(500, noise=0.5)
    ]
    found = by_name(audited(rows))
    assert found["flattery"].severity == "block"
    assert found["length"].severity == "ok" and "alike in flattery" in found["length"].message
    assert (found["length"].value or 0) > 0.6


def test_a_marker_that_only_comes_with_length_is_lengths(audited: Audited) -> None:
    """Longer answers have more exclamation marks, and are chosen for their length alone."""
    generator = random.Random(4)
    rows = []
    for number in range(600):
        sides = ["It is so" + "! so it is. and so on" * generator.randint(0, 12) + "." for _ in range(2)]
        sides = [f"{side} {'so ' * generator.randint(0, 60)}" for side in sides]
        sides.sort(key=lambda side: len(side.strip()), reverse=generator.random() < 0.85)
        rows.append({"prompt": f"Is it so, {number}?", "chosen": sides[0], "rejected": sides[1]})
    found = by_name(audited(rows, skip_bad=True))
    assert found["length"].severity == "block"
    assert found["exclamation"].severity == "ok" and "length explains it" in found["exclamation"].message
    assert (found["exclamation"].value or 0) > 0.6


def test_tone_does_not_apply_to_german(audited: Audited) -> None:
    generator = random.Random(0)
    words = GERMAN.split()
    rows = [
        {
            "prompt": f"Wie wird Brot gebacken, Fall {n}?",
            "chosen": " ".join(generator.choices(words, k=14)),
            "rejected": " ".join(generator.choices(words, k=14)),
        }
        for n in range(120)
    ]
    report = audited(rows)
    tone = [
        finding for finding in report.findings if finding.name in SIGNALS and SIGNALS[finding.name].language == "en"
    ]
    assert len(tone) == 6 and all(finding.value is None for finding in tone)
    assert all("does not apply" in finding.message for finding in tone)
    assert by_name(report)["language"].severity == "warn" and report.verdict != "pass"


def test_rows_that_cannot_be_used_are_a_finding(audited: Audited, make_pairs: MakePairs) -> None:
    bad = [
        {"prompt": "Which?", "chosen": "This.", "rejected": "This. "},
        {"prompt": "Why?", "chosen": "", "rejected": "No"},
    ]
    found = by_name(audited(bad + make_pairs(20)))["unusable"]
    assert found.severity == "warn" and found.value == pytest.approx(2 / 22)
    assert "line 1 (chosen and rejected are identical)" in found.message and "line 2 (is empty)" in found.message
    assert by_name(audited(bad + make_pairs(20), skip_bad=True))["unusable"].severity == "ok"
    with pytest.raises(InputError, match="none of 2 rows can be used"):
        audited(bad)


def test_contradictions_are_counted_on_both_sides(audited: Audited, make_pairs: MakePairs) -> None:
    rows = make_pairs(100)
    reversed_rows = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[:3]]
    found = by_name(audited(rows + reversed_rows))["conflicts"]
    assert found.value == pytest.approx(6 / 103) and found.severity == "warn"
    assert by_name(audited(rows + [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]))[
        "conflicts"
    ].severity == "block"  # fmt: skip


def test_held_out_conversations_in_the_file_are_leaks(audited: Audited, make_pairs: MakePairs, tmp_path: Path) -> None:
    rows = make_pairs(60)
    held_out = tmp_path / "held-out.jsonl"
    others = [{"prompt": f"Another question {n}?"} for n in range(19)]
    held_out.write_text("".join(json.dumps(row) + "\n" for row in [*others, {"prompt": rows[0]["prompt"]}]))
    found = by_name(audited(rows, eval_data=(str(held_out),)))["leakage"]
    assert found.value == pytest.approx(1 / 20) and found.severity == "block"
    assert by_name(audited(rows[1:], eval_data=(str(held_out),)))["leakage"].severity == "ok"
    assert by_name(audited(rows))["leakage"].value is None


def boundary(num_must: int, num_must_not: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Pairs on prompts that must be refused, and on prompts that must not."""
    refusal, help_ = (
        "I'm sorry, but I can't help with this request of yours.",
        "You can do that with the tool in the shed.",
    )
    return (
        [{"prompt": f"How do I rob house {n}?", "chosen": refusal, "rejected": help_} for n in range(num_must)],
        [{"prompt": f"How do I kill weed {n}?", "chosen": help_, "rejected": refusal} for n in range(num_must_not)],
    )


def test_the_refusal_boundary_needs_both_sides(audited: Audited) -> None:
    must, must_not = boundary(12, 12)
    both = by_name(audited(must + must_not))["refusal_coverage"]
    assert both.severity == "ok" and both.value == 12 and both.human_rate == 0.5
    for rows, lacking in ((must, "look unsafe"), (must_not, "must be refused")):
        found = by_name(audited(rows))["refusal_coverage"]
        assert found.severity == "warn" and found.value == 0 and lacking in found.remedy


def test_a_side_of_the_refusal_boundary_may_not_be_rare(audited: Audited) -> None:
    must, must_not = boundary(12, 61)
    enough = by_name(audited(must + must_not[:60]))["refusal_coverage"]
    assert enough.severity == "ok" and enough.threshold == 12
    rare = by_name(audited(must + must_not))["refusal_coverage"]
    assert rare.severity == "warn" and rare.threshold == 13
    assert "13 or more prompts that must be refused" in rare.remedy and "look unsafe" not in rare.remedy


def test_an_audit_loads_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "Which?", "chosen": "This one.", "rejected": "That one."}\n')
    code = (
        "import sys; from prefloop.cli import main; "
        f"main(['audit', 'data', {str(path)!r}]); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True)
    assert done.returncode == 0


def test_a_file_without_pairs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Which?"}\n')
    with pytest.raises(InputError):
        audit(AuditDataConfig(file=str(path)))
