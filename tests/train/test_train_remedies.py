"""Remedies on the pairs: identities of weights, and what the counterfactual pairs say."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from prefloop.data.formats import make_pair, make_prompt
from prefloop.data.split import conversation_key
from prefloop.train.habits import HABIT_WORDINGS
from prefloop.train.remedies import (
    NEUTRAL_SENTENCES,
    bootstrap_counts,
    effective_share,
    habit_pairs,
    inserted,
    length_balance_weights,
    mismatched_pairs,
    neutral_pairs,
)
from prefloop.train.reward_settings import AugmentConfig, Habit
from prefloop.types import Message

GENERATOR = np.random.default_rng(5)
PAIRS = [
    make_pair(
        make_prompt((Message("user", f"question {number % 40}"),)),
        f"Answer {number}. " + "a " * int(GENERATOR.integers(1, 60)),
        f"Reply {number}. " + "b " * int(GENERATOR.integers(1, 60)),
        strength=1.0,
    )
    for number in range(120)
]


def test_after_balancing_longer_and_shorter_winners_weigh_the_same_in_every_band():
    differences = np.concatenate([GENERATOR.integers(1, 100, 300), -GENERATOR.integers(1, 100, 100), np.zeros(7)])
    weights = np.array(length_balance_weights(differences.tolist(), [1.0] * 407))
    assert weights[differences > 0].sum() == pytest.approx(weights[differences < 0].sum())
    # A ruler that multiplies with the difference learns nothing either, up to the width of the bands.
    assert abs((weights * differences).sum()) < 0.1 * np.abs(weights * differences).sum()
    assert weights.max() == 1.0, "nothing gains weight"
    assert weights[differences == 0].tolist() == [1.0] * 7


def test_balanced_data_keeps_its_weights_and_given_weights_count():
    assert length_balance_weights([5, -5, 9, -9], [1.0, 1.0, 2.0, 2.0]) == [1.0, 1.0, 2.0, 2.0]
    assert length_balance_weights([5, -5, 5], [1.0, 4.0, 1.0]) == [1.0, 2.0, 1.0]
    assert length_balance_weights([5, 6, 7], [1.0] * 3) == [0.0] * 3, "length says all that these pairs say"


def test_the_share_of_data_that_weights_leave():
    assert effective_share([2.0, 2.0]) == 1.0
    assert effective_share([1.0, 0.0, 0.0, 0.0]) == 0.25


def test_a_bootstrap_draws_whole_conversations_and_as_many_as_there_are():
    counts = bootstrap_counts(PAIRS, seed=[0])
    by_conversation: dict[str, set[int]] = {}
    for pair, count in zip(PAIRS, counts, strict=True):
        by_conversation.setdefault(conversation_key(pair), set()).add(count)
    assert all(len(found) == 1 for found in by_conversation.values())
    assert sum(min(found) for found in by_conversation.values()) == 40
    assert counts != bootstrap_counts(PAIRS, seed=[1]) and counts == bootstrap_counts(PAIRS, seed=[0])
    # About 1/e of the conversations are left out.
    left_out = [bootstrap_counts(PAIRS, seed=[seed]).count(0) / 120 for seed in range(200)]
    assert np.mean(left_out) == pytest.approx((1 - 1 / 40) ** 40, abs=0.02)


def test_a_mismatched_pair_prefers_the_answer_to_its_own_prompt():
    made = mismatched_pairs(PAIRS, 0.5, seed=[0])
    assert len(made) == 60 and len({pair.pair_id for pair in made}) == 60
    own = {(pair.prompt.prompt_id, pair.chosen) for pair in PAIRS}
    asked = {pair.chosen: conversation_key(pair) for pair in PAIRS}
    assert all((pair.prompt.prompt_id, pair.chosen) in own for pair in made)
    assert all(asked[pair.rejected] != conversation_key(pair) for pair in made)
    # Length is matched: the mean difference is small against what random partners would give.
    assert abs(np.mean([len(pair.chosen) - len(pair.rejected) for pair in made])) < 10
    assert not any(pair.tie or pair.strength for pair in made)
    assert mismatched_pairs(PAIRS[:1], 1.0, seed=[0]) == [], "there is no other conversation"


def test_a_neutral_pair_ties_a_response_with_itself_and_one_sentence():
    made = neutral_pairs(PAIRS, 1.0, seed=[0])
    assert len(made) == len(PAIRS) and all(pair.tie for pair in made)
    sides = set()
    for pair in made:
        sentence = next(each for each in NEUTRAL_SENTENCES if each in pair.rejected)
        left = pair.rejected.replace(sentence, "").split()
        assert left == pair.chosen.split()
        sides.add(pair.chosen.split()[0])
    assert sides == {"Answer", "Reply"}, "both chosen and rejected responses get one"


@pytest.mark.parametrize("name", get_args(Habit))
def test_a_response_with_a_habit_loses_against_itself_with_a_plain_sentence(name):
    made = habit_pairs(PAIRS, (name,), 0.5, seed=[0])
    assert len(made) == len(PAIRS) // 2 and not any(pair.tie for pair in made)
    assert made == habit_pairs(PAIRS, (name,), 0.5, seed=[0]) != habit_pairs(PAIRS, (name,), 0.5, seed=[1])
    for pair in made:
        assert pair.chosen != pair.rejected
        if name in HABIT_WORDINGS:
            used = next(each for each in HABIT_WORDINGS[name] if each.marker in pair.rejected)
            assert pair.rejected.replace(used.marker, used.plain[0]) == pair.chosen
        if name in ("exclamation", "list_format"):
            mark = "!" if name == "exclamation" else "\n- "
            assert pair.rejected.count(mark) == pair.chosen.count(mark) + 2
        if name == "repetition":
            sentence = next(each for each in NEUTRAL_SENTENCES if each in pair.chosen)
            response = pair.chosen.replace(sentence, "").replace(".", "").split()
            said_again = Counter(pair.rejected.replace(".", "").split()) - Counter(response)
            assert said_again and not said_again.keys() - set(response)


def test_several_habits_take_turns_and_none_gives_nothing():
    assert habit_pairs(PAIRS, (), 0.5, seed=[0]) == []
    made = habit_pairs(PAIRS, ("exclamation", "citation"), 1.0, seed=[0])
    shouting = sum("!" in pair.rejected for pair in made)
    assert len(made) == len(PAIRS) and 0.3 < shouting / len(made) < 0.7


def test_a_fraction_of_no_habits_is_refused():
    with pytest.raises(ValidationError, match="no effect without habits"):
        AugmentConfig(habit_fraction=0.3)
    assert AugmentConfig(habits=("citation",), habit_fraction=0.3).habit_fraction == 0.3


@pytest.mark.parametrize(
    ("where", "expected"), [(0.0, "New. One. Two."), (0.4, "One. New. Two."), (0.99, "One. Two. New.")]
)
def test_where_a_sentence_may_stand(where, expected):
    assert inserted("One. Two.", "New.", where=where) == expected
    assert inserted("no end", "New.", where=where) in ("New. no end", "no end New.")
