"""Scenarios: that each names what exists, and that the refusal gap is one."""

from __future__ import annotations

import pytest

from prefloop.monitor.config import WATCHED
from prefloop.world.annotators import ANNOTATORS
from prefloop.world.knowledge import World
from prefloop.world.prompts import KINDS, make_prompts
from prefloop.world.scenarios import SCENARIOS, select_prompts
from prefloop.world.truth import WEIGHTS

AUDIT_FINDINGS = {
    "length", "hedging", "confidence", "citation", "disclaimer", "flattery", "list_format", "exclamation", "refusal",
    "repetition", "refusal_coverage", "duplicates", "conflicts", "leakage", "prompt_ignored", "calibration",
    "label_noise", "position", "annotators", "ruler",
}  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_speak_of_what_exists(name: str) -> None:
    scenario = SCENARIOS[name]
    assert scenario.name == name
    assert set(scenario.annotators) <= set(ANNOTATORS)
    assert len(scenario.team) == sum(scenario.annotators.values()) >= 2
    assert set(scenario.kept_prompts) <= set(KINDS)
    assert {*scenario.expected_findings, *scenario.related_findings} <= AUDIT_FINDINGS
    assert not set(scenario.expected_findings) & set(scenario.related_findings)
    assert set(scenario.falling_parts) <= set(WEIGHTS)
    assert set(scenario.right_alarms) <= set(WATCHED)
    assert scenario.concerned_kind in ("", *KINDS)
    assert bool(scenario.expected_findings) == (name not in ("honest", "few_pairs"))


def test_every_kind_of_annotator_is_used() -> None:
    assert {kind for scenario in SCENARIOS.values() for kind in scenario.annotators} == set(ANNOTATORS)


def test_the_refusal_gap_leaves_out_unsafe_prompts_only(world: World) -> None:
    prompts = make_prompts(world, split="train", count=2000, seed=0)
    kept = select_prompts(SCENARIOS["refusal_gap"], prompts, seed=0)
    assert [p for p in kept if p.columns["kind"] != "unsafe"] == [p for p in prompts if p.columns["kind"] != "unsafe"]
    assert 0 < sum(p.columns["kind"] == "unsafe" for p in kept) < 0.05 * 300
    assert select_prompts(SCENARIOS["refusal_gap"], prompts[:500], seed=0) == [p for p in kept if p in prompts[:500]]
    assert select_prompts(SCENARIOS["honest"], prompts, seed=0) == prompts
