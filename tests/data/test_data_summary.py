"""The numbers about a data file, against a file small enough to count by hand."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.data.formats import demonstration_of, pair_of, prompt_of
from prefloop.data.summary import Lengths, LongerChosen, Summary


def test_counts_of_a_small_file() -> None:
    summary = Summary(max_chars=5)
    rows = [
        {"prompt": "p", "chosen": "one two", "rejected": "three", "source": "s", "gold": 1, "strenght": 2},
        {"prompt": "p", "chosen": "one two", "rejected": "three", "source": "s"},
        {"prompt": "p ", "chosen": "a b c", "rejected": "abcdef"},
        {"prompt": "Human: p\nAssistant: q\nHuman: r", "chosen": "xx", "rejected": "yy"},
    ]
    for line, row in enumerate(rows, start=3):
        summary.add(line, pair_of(row))
    answer = summary.answer()
    lengths = answer.pop("lengths")
    assert answer == {
        "num_records": 4,
        "num_duplicates": 1,
        "num_prompts": 2,
        "num_conversations": 1,
        "turns": {"1": 3, "3": 1},
        "sources": {"s": 2, "(none)": 2},
        "columns": {"gold": 1, "strenght": 1},
        "hints": ["strenght: kept as a further column; did you mean strength?"],
        "max_chars": 5,
        "num_over_long": 3,
        "over_long": [
            {"line": 3, "field": "chosen", "characters": 7},
            {"line": 4, "field": "chosen", "characters": 7},
            {"line": 5, "field": "rejected", "characters": 6},
        ],
        "longer_chosen": {"share": 0.5, "share_by_words": 0.75, "share_by_prompt": 1 / 3, "num_equal": 1},
    }
    assert lengths["chosen"]["characters"] == {"mean": 21 / 4, "median": 6.0, "p95": 7.0, "max": 7}
    assert lengths["rejected"]["words"] == {"mean": 1.0, "median": 1.0, "p95": 1.0, "max": 1}
    assert lengths["prompt"]["characters"]["max"] == 3


def test_over_long_responses_are_all_counted_but_only_twenty_listed() -> None:
    summary = Summary(max_chars=1)
    for line in range(30):
        summary.add(line, demonstration_of({"prompt": str(line), "completion": "too long"}))
    answer = summary.answer()
    assert (answer["num_over_long"], len(answer["over_long"])) == (30, 20)
    assert answer["turns"] == {"2": 30}
    assert "longer_chosen" not in answer


def test_system_turns_are_no_turns() -> None:
    summary = Summary(max_chars=9)
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    summary.add(1, prompt_of({"prompt": prompt}))
    assert summary.answer()["turns"] == {"1": 1}
    assert summary.answer()["lengths"]["prompt"]["characters"]["max"] == 1


@given(st.lists(st.text(), min_size=1, max_size=30))
def test_mean_median_and_maximum_of_lengths(texts: list[str]) -> None:
    lengths = Lengths()
    for text in texts:
        lengths.add(text)
    found = lengths.summary()["characters"]
    sizes = [len(text) for text in texts]
    assert found["mean"] == pytest.approx(statistics.fmean(sizes))
    assert found["median"] == pytest.approx(statistics.median(sizes))
    assert found["max"] == max(sizes)
    assert found["median"] <= found["p95"] <= found["max"]


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.text(max_size=3), st.text(max_size=3)), min_size=1))
def test_exchanging_chosen_and_rejected_mirrors_the_share(pairs: list[tuple[str, str, str]]) -> None:
    one, other = LongerChosen(), LongerChosen()
    for prompt, chosen, rejected in pairs:
        one.add(prompt, chosen, rejected)
        other.add(prompt, rejected, chosen)
    equal = one.answer()["num_equal"]
    assert other.answer()["num_equal"] == equal
    assert one.answer()["share"] + other.answer()["share"] == pytest.approx(1 - equal / len(pairs))
