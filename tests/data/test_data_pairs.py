"""Votes, rankings and ratings to pairs: hand-counted votes and the properties of an order."""

from __future__ import annotations

import json
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.data.formats import make_pair, make_prompt
from prefloop.data.pairs import derive_pairs, pairs_by_score, ranks_of_order, swapped
from prefloop.data.read import read_pairs
from prefloop.data.write import write_records
from prefloop.types import Choice, Comparison, InputError, Judgment, Message

PROMPT = make_prompt((Message("user", "p"),), source="s")
COMPARISON = Comparison("c", PROMPT, "x", "y", "model-x", "model-y")
CHOICES: list[Choice] = ["a", "b", "tie", "both_bad", "skip"]


def votes(text: str) -> list[Judgment]:
    """One annotator each: a, b, t(ie), o (both bad), s(kip)."""
    names: dict[str, Choice] = {"a": "a", "b": "b", "t": "tie", "o": "both_bad", "s": "skip"}
    return [Judgment("c", f"annotator-{i}", names[letter]) for i, letter in enumerate(text)]


@pytest.mark.parametrize(
    ("cast", "outcome"),
    [
        ("a", "xy"),
        ("b", "yx"),
        ("aab", "xy"),
        ("abbsss", "yx"),
        ("aabt", "xy"),
        ("ab", "undecided"),
        ("at", "undecided"),
        ("abt", "undecided"),
        ("att", "ties"),
        ("oob", "both_bad"),
        ("ss", "skipped"),
        ("", "skipped"),
    ],
)
def test_the_choice_with_strictly_most_votes_prevails(cast: str, outcome: str) -> None:
    derived = derive_pairs([(COMPARISON, votes(cast))])
    if outcome in ("xy", "yx"):
        (pair,) = derived.pairs
        assert (pair.chosen, pair.rejected) == (outcome[0], outcome[1])
        assert pair.num_judgments == sum(letter != "s" for letter in cast)
        assert (pair.prompt, pair.source) == (PROMPT, "s")
        assert not derived.counts
    else:
        assert (derived.pairs, dict(derived.counts)) == ([], {outcome: 1})


def test_strength_is_the_mean_of_the_winning_votes_that_state_one() -> None:
    judgments = [
        Judgment("c", "ann", "a", strength="clearly"),
        Judgment("c", "ben", "a", strength="slightly"),
        Judgment("c", "cem", "a"),
        Judgment("c", "dan", "b", strength="clearly"),
    ]
    (pair,) = derive_pairs([(COMPARISON, judgments)]).pairs
    assert pair.strength == pytest.approx((1 + 1 / 3) / 2)
    assert pair.num_judgments == 4


def test_an_annotator_has_one_vote_the_last_and_anonymous_votes_all_count() -> None:
    changed = [Judgment("c", "ann", "a"), Judgment("c", "ann", "a"), Judgment("c", "ann", "b")]
    derived = derive_pairs([(COMPARISON, changed)])
    assert (derived.pairs[0].chosen, derived.pairs[0].annotator_id) == ("y", "ann")
    assert derived.counts == {"repeated_votes": 2}
    anonymous = [Judgment("c", "", "a"), Judgment("c", "", "a"), Judgment("c", "ann", "b")]
    derived = derive_pairs([(COMPARISON, anonymous)])
    assert (derived.pairs[0].chosen, derived.pairs[0].annotator_id, derived.counts) == ("x", "", {})


def test_counts_add_up_over_comparisons() -> None:
    derived = derive_pairs([(COMPARISON, votes(cast)) for cast in ("a", "t", "t", "o", "s", "ab")])
    assert len(derived.pairs) == 1
    assert derived.counts == {"ties": 2, "both_bad": 1, "skipped": 1, "undecided": 1}


@given(st.lists(st.sampled_from(CHOICES), max_size=8))
def test_swapping_comparison_and_votes_changes_nothing(choices: list[Choice]) -> None:
    judgments = [Judgment("c", f"annotator-{i}", choice) for i, choice in enumerate(choices)]
    exchanged = [swapped(COMPARISON, judgment) for judgment in judgments]
    assert derive_pairs([(COMPARISON.swap(), [judgment for _, judgment in exchanged])]) == derive_pairs(
        [(COMPARISON, judgments)]
    )
    for (comparison, judgment), original in zip(exchanged, judgments, strict=True):
        assert swapped(comparison, judgment) == (COMPARISON, original)


@given(st.permutations(list(range(5))))
def test_ranks_are_the_inverse_of_the_order(ranking: list[int]) -> None:
    ranks = ranks_of_order(ranking)
    assert [ranks[index] for index in ranking] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ranking", [[1, 2], [0, 0], [0, 2], [-1, 0], [0.5, 1]])
def test_what_is_no_order(ranking: list[float]) -> None:
    with pytest.raises(InputError, match=r"^ranking: is not an order of all 2 responses; give each index from 0 to 1"):
        ranks_of_order(ranking)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=7))
def test_pairs_by_score_are_all_comparisons_that_are_no_tie(scores: list[int]) -> None:
    responses = [f"r{i}" for i in range(len(scores))]
    pairs = pairs_by_score(PROMPT, responses, scores, keep_difference=True)
    found = {(pair.chosen, pair.rejected): pair.strength for pair in pairs}
    score = dict(zip(responses, scores, strict=True))
    assert found == {
        (one, other): score[one] - score[other]
        for one, other in permutations(responses, 2)
        if score[one] > score[other]
    }
    assert len(found) == len(pairs)
    if pairs:
        assert score[pairs[0].chosen] == max(scores)


@given(st.permutations(["r0", "r1", "r2", "r3"]))
def test_order_of_the_responses_in_the_row_does_not_matter(responses: list[str]) -> None:
    pairs = pairs_by_score(PROMPT, responses, [float(name[1:]) for name in responses], keep_difference=False)
    expected = [("r3", "r2"), ("r3", "r1"), ("r3", "r0"), ("r2", "r1"), ("r2", "r0"), ("r1", "r0")]
    assert [(pair.chosen, pair.rejected) for pair in pairs] == expected
    assert {pair.strength for pair in pairs} == {None}


# Ties as pairs


def test_ties_are_pairs_only_for_those_who_ask(tmp_path):
    path = tmp_path / "mixed.jsonl"
    rows = [
        {"prompt": "p", "responses": ["x", "y", "z"], "ratings": [1, 2, 2]},
        {"prompt": "q", "chosen": "x", "rejected": "y", "tie": True},
        {"prompt": "r", "response_a": "x", "response_b": "y", "choice": "tie"},
        {"prompt": "s", "response_a": "x", "response_b": "y", "choice": "a", "annotator_id": "1"},
        {"prompt": "s", "response_a": "x", "response_b": "y", "choice": "b", "annotator_id": "2"},
        {"prompt": "t", "response_a": "x", "response_b": "y", "choice": "both_bad"},
        {"prompt": "u", "response_a": "x", "response_b": "y", "choice": "a"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain, kept = read_pairs([str(path)]), read_pairs([str(path)], keep_ties=True)
    shown = [(pair.prompt.messages[0].content, pair.tie, pair.strength) for pair in kept.records]
    assert sorted(shown, key=str) == sorted(
        [
            *(("p", False, 1.0), ("p", False, 1.0), ("p", True, None), ("q", True, None)),
            *(("r", True, None), ("s", True, None), ("u", False, None)),
        ],
        key=str,
    )
    assert [pair for pair in kept.records if not pair.tie] == plain.records
    assert plain.counts["ties"] == 2 and plain.counts["undecided"] == 1 and kept.counts["both_bad"] == 1


def test_a_tie_survives_writing_and_another_value_is_refused(tmp_path):
    path = tmp_path / "ties.jsonl"
    tied = make_pair(make_prompt((Message("user", "p"),)), "x", "y", tie=True)
    write_records(path, [tied])
    assert read_pairs([str(path)], keep_ties=True).records == [tied]
    path.write_text(json.dumps({"prompt": "p", "chosen": "x", "rejected": "y", "tie": "yes"}) + "\n")
    with pytest.raises(InputError, match=r"tie: is .* true or false belongs here"):
        read_pairs([str(path)])
