"""What makes a response suspicious, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from prefloop.review.detectors import Logged, suspicions


def logged(place: int, **values: Any) -> Logged:
    return Logged(f"p{place}", f"prompt {place}", f"response {place}", values.pop("score", 0.0), 1, **values)


def test_high_score_and_high_spread_together() -> None:
    # 20 rows; score and spread rise together in the last, the first has a high spread only.
    rows = [logged(place, score=float(place), score_spread=20.0 if place == 0 else float(place)) for place in range(20)]
    flagged = [place for place, each in enumerate(suspicions(rows)) if "score_and_spread" in each.reasons]
    # Quantiles of scores are (place + 0.5) / 20, of spreads a rank lower: both above 0.75 from row 16 on.
    assert flagged == [16, 17, 18, 19]


def test_how_far_out_is_the_share_that_is_at_least_as_far() -> None:
    rows = [logged(place, kl=float(place)) for place in range(100)]
    found = suspicions(rows)
    assert [place for place, each in enumerate(found) if each.reasons] == [95, 96, 97, 98, 99]
    assert math.isclose(found[99].value, math.log(100)) and math.isclose(found[95].value, math.log(20))


def test_a_yes_counts_as_it_is_rare() -> None:
    rows = [logged(place, out_of_distribution=float(place < 4)) for place in range(16)]
    found = suspicions(rows)
    assert [each.reasons for each in found[:5]] == [("out_of_distribution",)] * 4 + [()]
    assert math.isclose(found[0].value, math.log(4))


def test_many_equal_values_are_not_far_out() -> None:
    rows = [logged(place, kl=1.0) for place in range(40)]
    assert not any(each.reasons for each in suspicions(rows))


def test_a_score_that_the_held_out_score_does_not_share() -> None:
    rows = [logged(place, score=float(place), held_out_score=float(place)) for place in range(39)]
    rows.append(logged(39, score=39.0, held_out_score=-1.0))
    found = suspicions(rows)
    assert [place for place, each in enumerate(found) if "held_out_gap" in each.reasons] == [39]


def test_what_is_unknown_makes_nobody_suspicious() -> None:
    rows = [logged(place, score=float(place)) for place in range(30)]
    assert not any(each.reasons for each in suspicions(rows))


def test_reasons_of_one_family_count_once_and_of_two_add_up() -> None:
    plain = [logged(place) for place in range(8)]
    one = logged(8, beyond=("length", "repetition"))
    two = logged(9, beyond=("length",), out_of_distribution=1.0)
    rest = [logged(place, out_of_distribution=0.0) for place in range(10, 20)]
    found = suspicions([*plain, one, two, *rest])
    # length: two of twenty, repetition: one of twenty, out of distribution: one of twenty.
    assert math.isclose(found[8].value, math.log(20))
    assert math.isclose(found[9].value, math.log(10) + math.log(20))


@pytest.mark.parametrize("alarms", [(), ("length",), ("length", "openings")])
def test_alarms_are_counted(alarms: tuple[str, ...]) -> None:
    found = suspicions([logged(0, alarms=alarms), logged(1)])
    assert found[0].alarms == len(alarms)
    assert found[0].reasons == tuple(f"alarm:{name}" for name in alarms)
