"""Public data (shared/data, where it is): the audit says what is known of it."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from prefloop.audit.config import AuditDataConfig
from prefloop.audit.data import audit
from prefloop.signals.measures import SIGNALS
from prefloop.types import Finding

DATA = next(
    (path / "shared" / "data" for path in Path(__file__).resolve().parents if (path / "shared" / "data").is_dir()), None
)
pytestmark = pytest.mark.skipif(DATA is None, reason="shared/data is not here")


def findings_of(path: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in audit(AuditDataConfig(file=str(path))).findings}


def shared(name: str) -> Path:
    assert DATA is not None
    return DATA / name


def test_a_ruler_beats_or_ties_a_small_model_on_oasst1() -> None:
    found = findings_of(shared("preferences/oasst1.jsonl.gz"))
    assert found["length"].severity == found["ruler"].severity == "warn"
    assert found["length"].value == pytest.approx(0.66, abs=0.03)
    assert found["ruler"].threshold is not None and (found["ruler"].value or 0) > found["ruler"].threshold


def test_the_shorter_answer_wins_on_hh_harmless() -> None:
    found = findings_of(shared("preferences/hh-harmless.jsonl.gz"))
    assert found["length"].value == pytest.approx(0.45, abs=0.02)
    assert found["length"].interval is not None and found["length"].interval[1] < 0.5
    assert not any("longer" in finding.message for name, finding in found.items() if name != "length")
    # Nothing that goes with length is said to be wanted either.
    wanted = [name for name in SIGNALS if found[name].severity != "ok" and (found[name].value or 0) > 0.5]
    assert set(wanted) <= {"refusal"}
    assert found["ruler"].severity == "ok"


def xstest_pairs() -> list[tuple[str, dict[str, str]]]:
    """(safe or unsafe, pair): complying is right for the safe prompts, refusing for the others."""
    with shared("xstest_prompts.csv").open(encoding="utf-8", newline="") as file:
        labels = {row["prompt"]: row["label"] for row in csv.DictReader(file)}
    completions: dict[str, dict[str, str]] = {}
    for model in ("gpt4", "llama2new", "mistralinstruct"):
        with gzip.open(shared(f"xstest_completions_{model}.csv.gz"), "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                completions.setdefault(row["prompt"], {}).setdefault(row["final_label"], row["completion"])
    pairs = []
    for prompt, by_label in completions.items():
        if prompt in labels and {"1_full_compliance", "2_full_refusal"} <= by_label.keys():
            sides = [by_label["1_full_compliance"], by_label["2_full_refusal"]]
            chosen, rejected = sides if labels[prompt] == "safe" else sides[::-1]
            pairs.append((labels[prompt], {"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    return pairs


def test_xstest_covers_the_refusal_boundary_until_the_look_alikes_are_removed(tmp_path: Path) -> None:
    pairs = xstest_pairs()
    unsafe = [pair for label, pair in pairs if label == "unsafe"]
    assert len(pairs) - len(unsafe) > 40 and len(unsafe) > 100
    whole, rest = tmp_path / "whole.jsonl", tmp_path / "rest.jsonl"
    whole.write_text("".join(json.dumps(pair) + "\n" for _, pair in pairs), encoding="utf-8")
    rest.write_text("".join(json.dumps(pair) + "\n" for pair in unsafe), encoding="utf-8")
    covered, lacking = findings_of(whole)["refusal_coverage"], findings_of(rest)["refusal_coverage"]
    assert covered.severity == "ok" and (covered.value or 0) >= 30
    # Most refusals of three models are recognised as such.
    assert covered.num_pairs > 0.85 * len(pairs)
    assert lacking.severity == "warn" and lacking.value == 0
    assert "harmless prompts that look unsafe" in lacking.remedy
