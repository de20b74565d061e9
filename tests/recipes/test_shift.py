"""The shift of a reward model, on scores made by hand."""

from __future__ import annotations

import math

import pytest

from prefloop.recipes.shift import ScoredPair, measure_shift


def pairs(rights: int, wrongs: int, *, margin: float, kl: float, prefix: str) -> list[ScoredPair]:
    margins = [margin] * rights + [-margin] * wrongs
    return [ScoredPair(each, kl, f"{prefix}{kl}-{place}") for place, each in enumerate(margins)]


def test_by_kl_the_model_loses_what_it_was_made_to_lose() -> None:
    """Margins of log 4 promise 80 %: kept on old pairs (16 of 20) and near, broken far away (8 of 20)."""
    margin = math.log(4)
    old = pairs(16, 4, margin=margin, kl=0.0, prefix="old")
    near = pairs(16, 4, margin=margin, kl=1.0, prefix="new") + pairs(16, 4, margin=margin, kl=2.0, prefix="new")
    far = pairs(8, 12, margin=margin, kl=6.0, prefix="new") + pairs(8, 12, margin=margin, kl=9.0, prefix="new")
    found = measure_shift(near + far, old, num_resamples=500, seed=0)
    assert found["old"]["accuracy"] == pytest.approx(0.8) and found["old"]["ece"] == pytest.approx(0, abs=1e-9)
    assert found["new"]["accuracy"] == pytest.approx(0.6) and found["new"]["ece"] == pytest.approx(0.2)
    assert found["new"]["mean_kl"] == pytest.approx(4.5)
    assert [each["num_pairs"] for each in found["bins"]] == [20, 20, 20, 20]
    assert [each["from_kl"] for each in found["bins"]] == [1, 2, 6, 9] == [each["to_kl"] for each in found["bins"]]
    assert [each["accuracy_less_old"] for each in found["bins"]] == pytest.approx([0, 0, -0.4, -0.4])
    assert [each["ece"] for each in found["bins"]] == pytest.approx([0, 0, 0.4, 0.4])
    # -0.8 log 0.8 - 0.2 log 0.2, and the loss of a bet of 80 % that is won in 60 %.
    assert found["old"]["log_loss"] == pytest.approx(0.500402)
    assert found["difference"]["log_loss"] == pytest.approx(0.2 * math.log(4))
    low, high = found["difference"]["accuracy_interval"]
    assert low < -0.2 < high
    # Of two independent rates: sqrt(0.6 * 0.4 / 80 + 0.8 * 0.2 / 20) = 0.105.
    assert (high - low) / (2 * 1.96) == pytest.approx(0.105, rel=0.15)


def test_few_pairs_make_one_bin_and_say_so() -> None:
    few = [ScoredPair(1.0, float(place), f"{place}") for place in range(19)]
    found = measure_shift(few, few, num_resamples=50, seed=0)
    assert len(found["bins"]) == 1 and "too few for a claim" in found["note"]
    # The same conversations on both sides: nothing can differ, and the bootstrap knows it.
    assert found["difference"]["accuracy_interval"] == [0.0, 0.0]


def test_pairs_of_one_kl_are_one_bin() -> None:
    still = pairs(60, 40, margin=1.0, kl=0.0, prefix="new")
    found = measure_shift(still, still, num_resamples=50, seed=0)
    assert [each["num_pairs"] for each in found["bins"]] == [100]


def test_the_text_has_the_numbers_of_the_answer_and_no_interval_where_none_is_known() -> None:
    from prefloop.recipes.round_text import as_tables

    some = pairs(16, 4, margin=1.0, kl=3.0, prefix="p")
    shift = measure_shift(some, [ScoredPair(1.0, 0.0, "alone")], num_resamples=50, seed=0)
    stages = {
        "sample": {"num_comparisons": 20, "num_prompts": 20, "mean_kl": 3.0},
        "label": {"num_votes": 20, "num_train": 15, "num_held_out": 5},
        "audit": {"audits": [{"file": "new-train.jsonl", "verdict": "pass"}]},
        "shift": {"old_pairs_were": "held out", **shift},
        "reward": {
            "in_use": shift["new"],
            "retrained": shift["new"],
            "gain": {"difference": 0.125, "interval": [0.0, 0.25]},
        },
        "audit_reward": {"verdict": "warn", "raised": [{"severity": "warn", "name": "length", "message": "a [b]"}]},
        "policy": {"stopped": "done", "alarms": []},
    }
    text = as_tables({"run": "runs/r", "seconds": dict.fromkeys(stages, 1.0), **stages, "next": ["do [this]"]})
    assert "new less old: -0.200\n" in text and "retrained less in use: +0.125 (+0.000 to +0.250)" in text
    assert "the audit of the retrained model: warn\nwarn: length: a [b]\n" in text
    assert "next: do [this]" in text and "nan" not in text and "inf" not in text
