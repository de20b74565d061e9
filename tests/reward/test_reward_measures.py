"""The tables of `reward eval` against small cases by hand; calibration against a case whose temperature is known."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from prefloop.data.votes import votes_of
from prefloop.reward.measures import best_of_k, compare_margins, summarise
from prefloop.reward.reliability import reliability_svg
from prefloop.types import Message, PreferencePair, Prompt


def pair(text, chosen, rejected, **others):
    return PreferencePair(f"{text}-{chosen}", Prompt(text, (Message("user", text),)), chosen, rejected, **others)


def summary(pairs, margins, **others):
    return summarise(pairs, margins, margins, num_resamples=50, seed=0, **others)


def hand_made(confident):
    """Ten pairs of margin log 3 (confidence 3/4), of which `confident` are right, and ten of margin 0 (1/2)."""
    margins = [math.log(3)] * confident + [-math.log(3)] * (10 - confident) + [0.0] * 10
    return [pair(str(number), "aa", "b") for number in range(20)], margins


def test_ece_and_reliability_by_hand():
    pairs, margins = hand_made(5)
    found = summary(pairs, margins)
    # Half the pairs promise 3/4 and keep 1/2, the others promise 1/2 and keep it.
    assert found["ece"] == pytest.approx(0.25 / 2)
    assert [(row["num_pairs"], row["accuracy"]) for row in found["reliability"]] == [(10, 0.5), (10, 0.5)]
    assert [row["confidence"] for row in found["reliability"]] == pytest.approx([0.5, 0.75])


def test_the_temperature_that_makes_a_hand_made_case_honest():
    # Nine of twelve right at one size of margin m: honest where sigmoid(m / T) = 3/4, T = m / log 3.
    margins = [2.0] * 9 + [-2.0] * 3
    pairs = [pair(str(number), "aa", "b") for number in range(12)]
    best = summary(pairs, margins)["best_temperature"]
    assert best == pytest.approx(2 / math.log(3), rel=1e-4)
    found = summary(pairs, margins, temperature=best)
    assert found["temperature"] == best
    assert found["best_temperature"] == pytest.approx(1.0, rel=1e-4)
    assert found["ece"] == pytest.approx(0.0, abs=1e-4)
    # The entropy of a coin of 3/4, which is the least that such margins can lose.
    assert found["log_loss"] == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), rel=1e-6)
    assert found["accuracy"] == 0.75, "a temperature changes no order"


def test_where_the_shorter_is_right_by_hand():
    pairs = [pair("p", "a", "bbb"), pair("q", "c", "ddd"), pair("r", "eee", "f"), pair("s", "same", "size")]
    found = summary(pairs, [1.0, -1.0, 1.0, -1.0])
    assert (found["where_shorter_is_right"]["num_pairs"], found["where_shorter_is_right"]["accuracy"]) == (2, 0.5)
    assert (found["where_longer_is_right"]["num_pairs"], found["where_longer_is_right"]["accuracy"]) == (1, 1.0)
    assert found["where_longer_is_right"]["longer"] == 1.0
    none = summary(pairs[:2], [1.0, 1.0])["where_longer_is_right"]
    assert none == {"num_pairs": 0, "accuracy": None, "interval": None, "longer": None}


def test_the_tables_share_out_all_pairs():
    generator = np.random.default_rng(3)
    pairs = [
        pair(str(number), "a" * int(generator.integers(1, 40)), "b" * int(generator.integers(1, 40)), source=source)
        for number, source in enumerate("xyz" * 30)
    ]
    margins = generator.normal(size=90).tolist()
    found = summary(pairs, margins)
    for table in ("by_source", "by_length_difference", "reliability"):
        assert sum(row["num_pairs"] for row in found[table]) == 90
        mean = sum(row["num_pairs"] * row["accuracy"] for row in found[table]) / 90
        assert mean == pytest.approx(found["accuracy"]), table
    assert [row["source"] for row in found["by_source"]] == ["x", "y", "z"]
    bounds = [(row["from_characters"], row["to_characters"]) for row in found["by_length_difference"]]
    assert bounds == sorted(bounds) and len(bounds) == 5
    assert found["by_length_difference"][0]["longer"] == 0.0 and found["by_length_difference"][-1]["longer"] == 1.0


def test_best_of_k_by_hand():
    # p: best beats both; q: one is missed; r: all alike, a draw of three; s: two responses make no group.
    pairs = [pair("p", "1", "2"), pair("p", "1", "3"), pair("p", "2", "3")]
    pairs += [pair("q", "1", "2"), pair("q", "1", "3"), pair("q", "1", "4"), pair("r", "1", "2"), pair("r", "1", "3")]
    pairs += [pair("s", "1", "2")]
    margins = [1.0, 1.0, -9.0, 1.0, 1.0, -0.1, 0.0, 0.0, 1.0]
    found = best_of_k(pairs, margins, num_resamples=50, seed=0)
    assert found["num_groups"] == 3
    assert found["accuracy"] == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert found["chance"] == pytest.approx((1 / 3 + 1 / 4 + 1 / 3) / 3)
    assert best_of_k(pairs[-1:], [1.0], num_resamples=50, seed=0) is None


def test_few_conversations_are_said_and_many_copies_do_not_hide_it():
    pairs = [pair(text, "aa", "b") for text in "pqrst"]
    found = summary(pairs, [1.0] * 5)
    assert found["note"].startswith("5 conversations are too few for a claim")
    assert "note" in summary(pairs * 10, [1.0] * 50)
    assert "note" not in summary([pair(str(number), "aa", "b") for number in range(20)], [1.0] * 20)


def test_comparing_margins_with_themselves_and_with_their_opposite():
    margins = [1.0, -1.0, 2.0, 0.5]
    same = compare_margins(margins, margins, list("pqrs"), num_resamples=50, seed=0)
    assert (same["difference"], same["p_value"], same["smallest_detectable"]) == (0.0, 1.0, None)
    opposite = compare_margins(margins, [-each for each in margins], list("pqrs"), num_resamples=50, seed=0)
    assert opposite["difference"] == pytest.approx(0.75 - 0.25)


def test_the_diagram_shows_every_bin_in_its_place():
    pairs, margins = hand_made(10)
    drawing = ElementTree.fromstring(reliability_svg(summary(pairs, margins)["reliability"]))
    circles = drawing.findall("{*}circle")
    # Confidence 1/2 is the left edge at 48; 3/4 is half way through 320 pixels; accuracy 1 is the top at 48.
    assert [(circle.get("cx"), circle.get("cy")) for circle in circles] == [("48.0", "208.0"), ("208.0", "48.0")]
    assert "10 pairs: confidence 0.75, right 1.00" in "".join(drawing.itertext())


def test_votes_of_judgments_keep_what_gave_no_pair(tmp_path):
    path = tmp_path / "judgments.jsonl"
    votes = {"p": "ab", "q": "aaa", "r": "a", "s": ["a", "tie", "b"]}
    rows = [
        {"prompt": name, "response_a": "x", "response_b": "y", "choice": choice, "annotator_id": str(place)}
        for name, choices in votes.items()
        for place, choice in enumerate(choices)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert sorted((each.first, each.second) for each in votes_of(str(path), [])) == [(1, 1), (1, 1), (3, 0)]


def test_votes_in_pairs_count_annotators_and_no_copies(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": "x", "rejected": "y"}) + "\n")
    both = [pair("p", "x", "y", annotator_id="1"), pair("p", "y", "x", annotator_id="2")]
    assert [(each.first, each.second) for each in votes_of(str(path), both * 3)] == [(1, 1)]
    assert votes_of(str(path), [pair("p", "x", "y"), pair("p", "x", "y")]) == []


def test_eval_tells_the_noise_of_several_annotators_and_draws(prefloop, data, tmp_path):
    path, plot = tmp_path / "judgments.jsonl", tmp_path / "plot.svg"
    rows = []
    for number in range(40):
        # Three of four comparisons are unanimous, the fourth is two to one.
        for annotator in range(3):
            choice = "b" if number % 4 == 0 and annotator == 0 else "a"
            row = {"prompt": f"name {number}", "response_a": "bee", "response_b": "fog", "choice": choice}
            rows.append({**row, "annotator_id": str(annotator)})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = prefloop("reward eval", f"{data / 'rewards.py'}:count_e", path, "--plot", plot).answer
    noise = answer["label_noise"]
    assert noise["num_comparisons"] == 40
    assert noise["agreement"] == pytest.approx((3 + 1 / 3) / 4)
    error = (1 - math.sqrt(2 * noise["agreement"] - 1)) / 2
    assert noise["error_rate"] == pytest.approx(error)
    assert noise["accuracy_ceiling"] == pytest.approx((1 - error) ** 3 + 3 * (1 - error) ** 2 * error)
    assert noise["accuracy_ceiling_interval"][0] < noise["accuracy_ceiling"] < noise["accuracy_ceiling_interval"][1]
    assert plot.read_text().startswith("<svg")
    one = prefloop("reward eval", f"{data / 'rewards.py'}:count_e", data / "pairs.jsonl").answer
    assert one["label_noise"] is None, "one annotator says nothing of agreement"


@pytest.mark.parametrize("bad", ["float('nan')", "float('inf')", "'3'"])
def test_scores_that_are_no_numbers_give_one_line(prefloop, data, tmp_path, bad):
    path = tmp_path / "bad.py"
    path.write_text(f"def reward(prompts, responses):\n    return [{bad} for _ in responses]\n")
    problem = prefloop("reward eval", f"{path}:reward", data / "pairs.jsonl").problem
    assert re.search(r"reward: returned .* for the prompt 'name things like", problem)
