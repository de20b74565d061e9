"""Splits by prompt: the shares, and independence of everything but the prompt and the seed."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from prefloop.data.dialogue import prompt_id_of
from prefloop.data.formats import demonstration_of, labelled_of, pair_of, prompt_of
from prefloop.data.split import conversation_key, fold_of, prompt_key, split_of
from prefloop.types import Message

IDS = [prompt_id_of((Message("user", str(i)),)) for i in range(10_000)]


def test_share_of_eval_prompts_is_met_within_four_standard_errors() -> None:
    for share in (0.01, 0.1, 0.5):
        num_eval = sum(split_of(prompt_id, eval_fraction=share, seed=0) == "eval" for prompt_id in IDS)
        assert abs(num_eval - share * len(IDS)) < 4 * math.sqrt(share * (1 - share) * len(IDS))


def test_folds_are_of_about_equal_size() -> None:
    counts = Counter(fold_of(prompt_id, num_folds=5, seed=0) for prompt_id in IDS)
    assert set(counts) == set(range(5))
    # Chi-squared with 4 degrees of freedom: 18.5 is exceeded once in a thousand.
    assert sum((count - 2000) ** 2 / 2000 for count in counts.values()) < 18.5


def test_seeds_and_folds_are_independent_of_the_split() -> None:
    eval_ids = [prompt_id for prompt_id in IDS if split_of(prompt_id, eval_fraction=0.2, seed=0) == "eval"]
    again = sum(split_of(prompt_id, eval_fraction=0.2, seed=1) == "eval" for prompt_id in eval_ids)
    assert abs(again / len(eval_ids) - 0.2) < 4 * math.sqrt(0.16 / len(eval_ids))
    in_fold = sum(fold_of(prompt_id, num_folds=5, seed=0) == 0 for prompt_id in eval_ids)
    assert abs(in_fold / len(eval_ids) - 0.2) < 4 * math.sqrt(0.16 / len(eval_ids))


@given(st.text(alphabet="0123456789abcdef", min_size=16, max_size=16), st.integers(), st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_eval_side_is_part_of_a_larger_one(prompt_id: str, seed: int, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    if split_of(prompt_id, eval_fraction=smaller, seed=seed) == "eval":
        assert split_of(prompt_id, eval_fraction=larger, seed=seed) == "eval"
    assert split_of(prompt_id, eval_fraction=0.0, seed=seed) == "train"
    assert split_of(prompt_id, eval_fraction=1.0, seed=seed) == "eval"
    assert 0 <= fold_of(prompt_id, num_folds=7, seed=seed) < 7


def test_sides_never_change_between_releases() -> None:
    """A change here would move prompts across the split of everyone's running experiments."""
    sides = [split_of(f"{i:016x}", eval_fraction=0.5, seed=17) for i in range(8)]
    folds = [fold_of(f"{i:016x}", num_folds=5, seed=17) for i in range(8)]
    assert sides == ["eval", "eval", "train", "train", "train", "eval", "train", "train"]
    assert folds == [1, 1, 4, 3, 0, 2, 2, 0]


def test_records_of_every_type_with_the_same_prompt_have_the_same_key() -> None:
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]
    more = [*turns, {"role": "user", "content": "q"}, {"role": "assistant", "content": "d"}]
    keys = {
        prompt_key(prompt_of({"prompt": "p"})),
        prompt_key(pair_of({"prompt": "p ", "chosen": "c", "rejected": "d"})),
        prompt_key(labelled_of({"prompt": "p", "completion": "c", "label": True})),
        prompt_key(demonstration_of({"prompt": "p", "completion": "c"})),
        prompt_key(demonstration_of({"messages": turns})),
        prompt_key(demonstration_of({"messages": more})),
    }
    assert keys == {prompt_id_of((Message("user", "p"),))}


def test_all_turns_of_a_conversation_have_the_same_key() -> None:
    opening = [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}]
    later = [*opening, {"role": "assistant", "content": "c"}, {"role": "user", "content": "q"}]
    other = [*opening, {"role": "assistant", "content": "d"}, {"role": "user", "content": "r"}]
    records = [
        *(prompt_of({"prompt": turns}) for turns in (opening, later, other)),
        pair_of({"prompt": later, "chosen": "c", "rejected": "d"}),
        labelled_of({"prompt": other, "completion": "c", "label": True}),
        demonstration_of({"messages": [*later, {"role": "assistant", "content": "e"}]}),
        demonstration_of({"prompt": other, "completion": "c"}),
    ]
    assert {conversation_key(record) for record in records} == {prompt_key(records[0])}
    assert len({prompt_key(record) for record in records[:3]}) == 3
    assert conversation_key(prompt_of({"prompt": opening[1:]})) != conversation_key(records[0])


def test_a_greeting_does_not_make_all_conversations_one() -> None:
    greeting = {"role": "assistant", "content": "How can I help?"}
    keys = {
        conversation_key(prompt_of({"prompt": [greeting, {"role": "user", "content": text}, *answered]}))
        for text in "pq"
        for answered in ((), (greeting, {"role": "user", "content": "go on"}))
    }
    assert len(keys) == 2
