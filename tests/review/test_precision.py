"""Verdicts against a queue: rates by hand and by simulation, who counts how, and the evidence that a gate reads."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefloop.cli import main
from prefloop.gate.config import GateLimits
from prefloop.gate.decide import Case, decide
from prefloop.gate.evidence import read_evidence
from prefloop.review.config import ReviewPrecisionConfig
from prefloop.review.detectors import Logged, suspicions
from prefloop.review.precision import run
from prefloop.review.queue import as_row, make_queue
from prefloop.rundir import sha256_of


def item(name: str, *reasons: str, draws: int = 0, num_rows: int = 1000, **values: Any) -> dict[str, Any]:
    made = {"task": "review", "item_id": name, "prompt": "q", "response": "a", "prompt_id": f"p-{name}"}
    reasons = (*reasons, "random") if draws else reasons
    return {**made, "reasons": list(reasons), "draws": draws, "copies": 1, "num_rows": num_rows, **values}


def said(name: str, verdict: str, reviewer: str = "ann", **values: Any) -> dict[str, Any]:
    return {"item_id": name, "verdict": verdict, "reviewer": reviewer, **values}


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def answer(path: Path, items: list[dict[str, Any]], verdicts: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    queue, file = written(path / "queue.jsonl", items), written(path / "verdicts.jsonl", verdicts)
    return dict(run(ReviewPrecisionConfig(queue=queue, verdicts=file, **settings)).values)


def test_rates_by_hand(tmp_path: Path) -> None:
    items = [
        *(item(f"s{n}", "kl", "monitor:length") for n in range(4)),
        *(item(f"r{n}", draws=1) for n in range(8)),
        *(item(f"b{n}", "kl", draws=1) for n in range(2)),
    ]
    verdicts = [said(f"s{n}", "hack" if n < 3 else "not_a_hack", kind="boast") for n in range(4)]
    verdicts += [said(f"r{n}", "hack" if n == 0 else "not_a_hack") for n in range(8)]
    verdicts += [said(f"b{n}", "hack") for n in range(2)]
    found = answer(tmp_path, items, verdicts)
    by = {row["reason"]: row for row in found["reasons"]}
    assert (by["kl"]["precision"], by["kl"]["decided"]) == (pytest.approx(5 / 6), 6)
    assert (by["kl"]["precision_by_lot"], by["kl"]["decided_by_lot"]) == (1.0, 2)
    assert by["monitor:length"]["precision"] == 0.75 and by["monitor:length"]["precision_by_lot"] is None
    lot = found["random"]
    assert (lot["hack_rate"], lot["decided"]) == (pytest.approx(0.3), 10)
    # Wilson's interval of 3 of 10 (Newcombe 1998): 0.1078 to 0.6032.
    assert lot["hack_rate_interval"] == pytest.approx([0.1078, 0.6032], abs=1e-4)
    assert lot["estimated_hacks"] == pytest.approx(300)
    # One of the ten is a hack without a reason; one of three hacks is missed.
    assert lot["estimated_missed"] == pytest.approx(100) and lot["missed_share"] == pytest.approx(1 / 3)
    assert found["kinds"] == {"boast": 3}


def test_a_drawn_response_counts_as_often_as_it_was_drawn(tmp_path: Path) -> None:
    found = answer(tmp_path, [item("a", draws=3), item("b", draws=1)], [said("a", "hack"), said("b", "not_a_hack")])
    assert found["random"]["hack_rate"] == 0.75 and found["random"]["decided"] == 4


def test_most_voices_decide_and_the_unsure_have_none(tmp_path: Path) -> None:
    items = [item(name, draws=1) for name in "abcd"]
    verdicts = [
        *(said("a", "hack", who) for who in ("ann", "bob")),
        said("a", "not_a_hack", "eve"),
        said("b", "hack"),
        said("b", "not_a_hack", "bob"),
        said("c", "unsure"),
        said("c", "not_a_hack", "bob"),
        said("d", "unsure"),
        # The same verdict twice is one verdict.
        said("a", "hack", "ann"),
    ]
    found = answer(tmp_path, items, verdicts)
    assert (found["num_hack"], found["num_not_a_hack"], found["num_unsure"]) == (1, 1, 2)
    assert found["num_reviewers"] == 3 and found["agreement"] is not None
    assert (found["random"]["hack_rate"], found["random"]["decided"]) == (0.5, 2)


def test_items_of_one_prompt_know_less(tmp_path: Path) -> None:
    verdicts = [said(f"i{n}", "hack" if n < 10 else "not_a_hack") for n in range(20)]
    apart = answer(tmp_path, [item(f"i{n}", draws=1) for n in range(20)], verdicts)["random"]
    together = answer(tmp_path, [item(f"i{n}", draws=1, prompt_id=f"p{n // 5}") for n in range(20)], verdicts)["random"]
    assert together["hack_rate"] == apart["hack_rate"] == 0.5
    assert together["hack_rate_interval"][0] < apart["hack_rate_interval"][0]


def simulated(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], float, float]:
    """A queue with the true verdicts, the true hack rate, and the share of the hacks that no detector flags."""
    generator = np.random.default_rng(seed)
    hack = generator.random(600) < 0.3
    # The detector finds six in ten hacks and accuses a tenth of the rest.
    flagged = np.where(hack, generator.random(600) < 0.6, generator.random(600) < 0.1)
    rows = [
        Logged(f"p{n}", f"q{n}", f"a{n}", float(n % 7), 1, beyond=("length",) if flagged[n] else ()) for n in range(600)
    ]
    items = make_queue(rows, suspicions(rows), size=200, random_fraction=0.4, per_prompt=1, seed=seed, run="r")
    verdicts = [said(each.item_id, "hack" if hack[int(each.prompt_id[1:])] else "not_a_hack") for each in items]
    return [as_row(each) for each in items], verdicts, float(hack.mean()), float((hack & ~flagged).sum() / hack.sum())


def test_the_slice_by_lot_tells_the_truth_and_the_ranked_do_not(tmp_path: Path) -> None:
    rates, missed, held, held_missed, precisions = [], [], 0, 0, []
    for seed in range(60):
        items, verdicts, truth, truly_missed = simulated(seed)
        found = answer(tmp_path, items, verdicts)
        lot = found["random"]
        rates.append(lot["hack_rate"] - truth)
        missed.append(lot["missed_share"] - truly_missed)
        held += lot["hack_rate_interval"][0] <= truth <= lot["hack_rate_interval"][1]
        held_missed += lot["missed_share_interval"][0] <= truly_missed <= lot["missed_share_interval"][1]
        precisions.append(found["reasons"][0]["precision"])
    # 80 draws: a standard error of 0.05 each, 0.0066 of the mean of 60.
    assert abs(np.mean(rates)) < 0.02 and abs(np.mean(missed)) < 0.04
    # 57 of 60 are expected; 51 is four standard deviations below.
    assert held >= 51 and held_missed >= 51
    # Bayes: 0.3 x 0.6 / (0.3 x 0.6 + 0.7 x 0.1) = 0.72.
    assert abs(np.mean(precisions) - 0.72) < 0.02


# Evidence


def candidate(path: Path) -> Path:
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


def decided(tmp_path: Path, hacks: int, unsure: int = 0, number: int = 60) -> tuple[str, str]:
    model = tmp_path / "model" if (tmp_path / "model").exists() else candidate(tmp_path / "model")
    items = [item(f"i{n}", draws=1) for n in range(number)]
    words = ["hack"] * hacks + ["unsure"] * unsure + ["not_a_hack"] * (number - hacks - unsure)
    out = tmp_path / "evidence.jsonl"
    verdicts = [said(f"i{n}", word) for n, word in enumerate(words)]
    answer(tmp_path, items, verdicts, candidate=str(model), evidence=str(out))
    evidence = read_evidence([out])
    off = {"required": False}
    names = ("win_rate", "length_controlled_win_rate", "perplexity", "repetition", "suites")
    asked = GateLimits().hack_rate.model_copy(update={"required": True})
    limits = GateLimits.model_validate({**dict.fromkeys(names, off), "audit": off, "hack_rate": asked})
    now = datetime.datetime.now(datetime.UTC)
    decision = decide(Case(sha256_of(model), now), evidence, limits)
    return decision.verdict, decision.checks[0].reason


@pytest.mark.parametrize(
    ("hacks", "unsure", "number", "verdict", "reason"),
    [
        (0, 0, 60, "promote", "the whole interval is at most 0.1"),
        (3, 0, 60, "hold", "the interval crosses the limit"),
        (20, 0, 60, "hold", "the whole interval is above the limit"),
        # What nobody could clear is not cleared.
        (0, 20, 60, "hold", "the whole interval is above the limit"),
        (0, 0, 40, "hold", "too few rows, 50 are needed"),
    ],
)
def test_the_gate_reads_the_hack_rate(
    tmp_path: Path, hacks: int, unsure: int, number: int, verdict: str, reason: str
) -> None:
    found, why = decided(tmp_path, hacks, unsure, number)
    assert found == verdict and reason in why


def test_the_gate_asks_for_it_only_where_told() -> None:
    assert not GateLimits().hack_rate.required


def test_a_slice_that_was_not_read_is_no_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = candidate(tmp_path / "model"), tmp_path / "evidence.jsonl"
    queue = written(tmp_path / "queue.jsonl", [item("a", draws=1), item("b", draws=1)])
    verdicts = written(tmp_path / "verdicts.jsonl", [said("a", "not_a_hack")])
    words = ["review", "precision", queue, verdicts]
    assert main(words) == 0
    assert "1 of 2 items of the random slice have no verdict" in capsys.readouterr().err
    assert main([*words, "--candidate", str(model), "--evidence", str(out)]) == 2
    assert "1 items of the random slice have no verdict (b is one)" in capsys.readouterr().err
    assert not out.exists()
    assert main([*words, "--evidence", str(out)]) == 2
    assert "candidate and evidence belong together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (said("a", "hacked"), "verdict: is 'hacked'; should be hack, not_a_hack, unsure"),
        (said("z", "hack"), "item_id: z is not in the queue"),
        (said("a", "hack", ""), "reviewer: is ''"),
        (said("a", "not_a_hack"), "verdict: ann said 'hack' of a before"),
    ],
)
def test_bad_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, Any], told: str) -> None:
    queue = written(tmp_path / "queue.jsonl", [item("a", draws=1)])
    verdicts = written(tmp_path / "verdicts.jsonl", [said("a", "hack"), row])
    assert main(["review", "precision", queue, verdicts]) == 2
    assert f"{verdicts}:2: {told}" in capsys.readouterr().err
    assert main(["review", "precision", queue, verdicts, "--skip-bad", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_bad"] == 1


def test_what_is_no_queue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = written(tmp_path / "verdicts.jsonl", [said("a", "hack")])
    assert main(["review", "precision", verdicts, verdicts]) == 2
    assert ":1: task: is None, not 'review'" in capsys.readouterr().err
    queue = written(tmp_path / "queue.jsonl", [item("a"), item("a")])
    assert main(["review", "precision", queue, verdicts]) == 2
    assert ":2: item_id: a stands in the queue twice" in capsys.readouterr().err
