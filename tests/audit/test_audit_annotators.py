"""Judgment files: simulated people whose habits are known."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from prefloop.types import AuditReport, Finding

Row = dict[str, Any]
Audited = Callable[..., AuditReport]


def by_name(report: AuditReport) -> dict[str, Finding]:
    return {finding.name: finding for finding in report.findings}


def judgments(
    flip: dict[str, float], *, comparisons: int = 150, first: float = 0.0, seed: int = 0, shown: bool = False
) -> list[Row]:
    """Everybody judges every comparison: wrong with probability `flip`, "the first" regardless with `first`."""
    generator = random.Random(seed)
    rows = []
    for number in range(comparisons):
        texts = [f"It is {number} for a good reason.", f"It may be {number} or any other thing."]
        for name, rate in flip.items():
            order = generator.sample([0, 1], 2)
            right = "a" if order[0] == 0 else "b"
            choice = right if generator.random() >= rate else {"a": "b", "b": "a"}[right]
            choice = "a" if generator.random() < first else choice
            row = {"prompt": f"What is it, {number}?", "response_a": texts[order[0]], "response_b": texts[order[1]]}
            rows.append(row | {"choice": choice, "annotator_id": name} | ({"shown_first": "a"} if shown else {}))
    return rows


def swapped(rows: Sequence[Row]) -> list[Row]:
    other = {"a": "b", "b": "a"}
    return [
        row
        | {
            "response_a": row["response_b"],
            "response_b": row["response_a"],
            "choice": other.get(row["choice"], row["choice"]),
        }
        for row in rows
    ]


def test_noise_and_ceiling_are_those_of_the_simulated_people(audited: Audited) -> None:
    found = by_name(audited(judgments({"ann": 0.15, "bob": 0.15, "cyd": 0.15}, comparisons=300)))["label_noise"]
    assert found.value == pytest.approx(0.15, abs=0.03)
    assert found.interval is not None and found.interval[0] < 0.15 < found.interval[1]
    assert found.severity == "ok" and "no model can agree with more than 8" in found.message


def test_people_who_toss_coins_block(audited: Audited) -> None:
    found = by_name(audited(judgments({"ann": 0.5, "bob": 0.5, "cyd": 0.5})))
    assert found["annotators"].severity == found["label_noise"].severity == "block"
    assert found["annotators"].value == pytest.approx(0, abs=0.12)


def test_the_careless_one_is_named_and_nobody_else(audited: Audited) -> None:
    found = by_name(audited(judgments({"ann": 0.05, "bob": 0.1, "cyd": 0.1, "dan": 0.5})))["annotators"]
    assert found.severity == "warn" and found.remedy == "leave out the votes of dan"
    clean = by_name(audited(judgments({"ann": 0.05, "bob": 0.1, "cyd": 0.1, "dan": 0.1})))["annotators"]
    assert clean.severity == "ok" and clean.value is not None and clean.value > 0.5
    assert "Cohen's kappa of ann and bob" in clean.message


def test_votes_for_the_first_response_are_a_position_effect(audited: Audited) -> None:
    found = by_name(audited(judgments({"ann": 0.1, "bob": 0.1}, first=0.3)))["position"]
    # 0.3 + 0.7 / 2 of the votes.
    assert found.severity == "warn" and found.value == pytest.approx(0.65, abs=0.05)
    assert by_name(audited(judgments({"ann": 0.1, "bob": 0.1})))["position"].severity == "ok"


def test_swapping_a_and_b_mirrors_position_and_changes_nothing_else(audited: Audited) -> None:
    rows = judgments({"ann": 0.1, "bob": 0.1, "cyd": 0.3}, first=0.3)
    rows[7]["choice"], rows[9]["choice"] = "tie", "skip"
    plain, mirrored = by_name(audited(rows)), by_name(audited(swapped(rows)))
    for name, finding in plain.items():
        if name != "position":
            assert finding == mirrored[name], name
    position, other = plain["position"], mirrored["position"]
    assert position.value is not None and other.value == pytest.approx(1 - position.value)
    assert other.interval == pytest.approx(tuple(1 - end for end in (position.interval or ())[::-1]))
    assert other.p_value == pytest.approx(position.p_value) and other.severity == position.severity


def test_one_annotator_has_no_agreement(audited: Audited) -> None:
    found = by_name(audited(judgments({"ann": 0.1})))
    assert found["annotators"].value is None and found["annotators"].severity == "ok"
    assert "agreement is unknown: 1 annotators have 0 comparisons in common" in found["annotators"].message
    assert "only a second annotator tells" in found["label_noise"].message


def test_pairs_that_name_their_annotators_are_votes_too(audited: Audited) -> None:
    rows = []
    for row in judgments({"ann": 0.1, "bob": 0.1}):
        sides = [row["response_a"], row["response_b"]]
        chosen, rejected = sides if row["choice"] == "a" else sides[::-1]
        rows.append(
            {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected, "annotator_id": row["annotator_id"]}
        )
    from_votes = by_name(audited(judgments({"ann": 0.1, "bob": 0.1})))
    from_pairs = by_name(audited(rows))
    assert from_pairs["annotators"] == from_votes["annotators"]
    assert from_pairs["label_noise"] == from_votes["label_noise"]
    assert from_pairs["position"].value is None
