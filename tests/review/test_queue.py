"""The order of the suspicious, and the slice by lot: uniform, mixed in, and never mended."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from prefloop.review.detectors import RANDOM, Logged, suspicions
from prefloop.review.queue import Item, as_row, make_queue, ranked


def logged(place: int, **values: Any) -> Logged:
    made = {"prompt_id": f"p{place}", "prompt": f"prompt {place}", "response": f"response {place}", "step": 1}
    return Logged(**{**made, "score": float(place), **values})


def queue(rows: list[Logged], **settings: Any) -> list[Item]:
    chosen = {"size": 20, "random_fraction": 0.2, "per_prompt": 2, "seed": 0, "run": "runs/ppo", **settings}
    return make_queue(rows, suspicions(rows), **chosen)


def test_alarms_come_first_then_the_rarest_then_the_highest_score() -> None:
    rows = [
        *(logged(place, beyond=("length",)) for place in range(3)),
        logged(3, beyond=("repetition",)),
        logged(4, alarms=("length",), score=-9.0),
        *(logged(place) for place in range(5, 10)),
    ]
    order = [each.place for each in ranked(rows, suspicions(rows), per_prompt=2)]
    assert order == [4, 3, 2, 1, 0]


def test_the_same_words_stand_once_and_a_prompt_a_few_times() -> None:
    rows = [logged(place, beyond=("length",), response="Great  question!\n") for place in range(4)]
    rows += [logged(place, beyond=("length",), prompt_id="same") for place in range(4, 9)]
    order = [each.place for each in ranked(rows, suspicions(rows), per_prompt=2)]
    # The highest score of each comes first.
    assert order == [8, 7, 3]


def test_the_slice_is_drawn_from_all_rows_alike() -> None:
    # A quarter is suspicious; every row must be drawn as often as any other.
    rows = [logged(place, beyond=("length",) if place < 10 else ()) for place in range(40)]
    drawn: Counter[str] = Counter()
    for seed in range(400):
        for item in queue(rows, size=10, random_fraction=0.4, seed=seed):
            drawn[item.prompt_id] += item.draws
    assert sum(drawn.values()) == 400 * 4
    # 40 expected each, standard deviation 6: within four and a half of them, for all 40 rows.
    assert len(drawn) == 40 and all(13 <= count <= 67 for count in drawn.values())
    suspicious = sum(drawn[f"p{place}"] for place in range(10))
    # 400 expected, standard deviation about 17.
    assert abs(suspicious - 400) < 70


def test_a_response_that_the_lot_draws_twice_counts_twice() -> None:
    rows = [logged(place, prompt_id="p", prompt="the prompt", response="the answer") for place in range(50)]
    (item,) = queue(rows)
    assert item.draws == 20 and item.copies == 50 and item.num_rows == 50
    assert item.reasons == (RANDOM,) and item.rank is None


def test_room_that_the_suspicious_leave_goes_to_the_lot() -> None:
    rows = [logged(place, beyond=("length",) if place < 3 else ()) for place in range(100)]
    items = queue(rows)
    assert sum(item.rank is not None for item in items) == 3
    assert sum(item.draws for item in items) == 17


def test_the_order_does_not_tell_who_was_suspected() -> None:
    rows = [logged(place, beyond=("length",)) for place in range(200)]
    early = total = 0
    for seed in range(50):
        items = queue(rows, size=40, seed=seed)
        total += sum(bool(item.draws) for item in items)
        early += sum(bool(item.draws) for item in items[: len(items) // 2])
    # As a fair coin that is tossed 400 times: a standard deviation of 10.
    assert abs(early - total / 2) < 40


def test_a_drawn_row_keeps_its_reasons_and_ids_are_those_of_the_content() -> None:
    rows = [logged(place, beyond=("length",) if place % 2 else (), kl=0.5) for place in range(30)]
    first, second = queue(rows, size=30, random_fraction=1.0), queue(rows[::-1], size=30, random_fraction=1.0, seed=9)
    assert {item.item_id for item in first} == {item.item_id for item in second}
    assert all(("monitor:length" in item.reasons) == bool(int(item.prompt_id[1:]) % 2) for item in first)
    row = json.loads(json.dumps(as_row(first[0])))
    assert list(row)[:2] == ["task", "item_id"] and row["task"] == "review" and row["signals"] == {"kl": 0.5}
