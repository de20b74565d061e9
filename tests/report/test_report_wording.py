"""Numbers as words: a difference is claimed only where it stands out."""

import math

import pytest

from prefloop.report import wording
from prefloop.statistics.intervals import Estimate


@pytest.mark.parametrize(
    ("mean", "standard_error", "expected"),
    [(0.5, 0.1, "rose"), (-0.5, 0.1, "fell"), (0.19, 0.1, "unclear"), (-0.2, 0.1, "unclear"), (0.0, 0.0, "unclear")],
)
def test_change_needs_two_standard_errors(mean, standard_error, expected):
    assert wording.change(Estimate(mean, standard_error, 100)) == expected


def test_numbers():
    minus = "\N{MINUS SIGN}"
    assert wording.number(-1.256) == f"{minus}1.26"
    assert wording.number(-0.001) == "0.00"
    assert wording.signed(0.5) == "+0.50"
    assert wording.signed(-0.5) == f"{minus}0.50"
    assert wording.signed(-0.0001) == "0.00"


def test_difference_names_its_interval():
    # t_{0.975, 999} = 1.9623.
    assert wording.difference(Estimate(1.0, 0.1, 1000)).replace("\xa0", " ") == "+1.00 (95 % interval 0.80 to 1.20)"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.001, "under 1 %"), (0.127, "13 %"), (0.999, "over 99 %"), (1.0, "100 %")],
)
def test_percent_never_rounds_to_never_or_always(share, text):
    assert wording.percent(share).replace("\xa0", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119.6, "2 min 0 s"), (185, "3 min 5 s")]
)
def test_duration(seconds, text):
    assert wording.duration(seconds) == text


def test_memory_and_counts():
    assert wording.memory(512 * 2**20) == "512 MiB"
    assert wording.memory(1.5 * 2**30) == "1.50 GiB"
    assert wording.count(1, "prompt") == "1 prompt"
    assert wording.count(2500, "pair") == "2,500 pairs"


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (0.123456, "0.1235"), (1e-7, "1e-07".replace("-", "\N{MINUS SIGN}")), (math.nan, "nan")],
)
def test_compact(value, text):
    assert wording.compact(value) == text
