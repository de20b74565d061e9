"""Figures: plotly's own schema accepts them, and they show the numbers they were given."""

import itertools
import math

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.report import figures
from prefloop.report.figures import COLORS, Drift, Line, Mark


def key_figure(**changed):
    arguments = {
        "proxy": Line("proxy", [0, 1, 4], [0.0, 1.0, 2.0], COLORS["proxy"], [0.1, 0.1, 0.2]),
        "true_utility": Line("true utility", [-0.01, 1, 4], [0.5, 0.7, -1.0], COLORS["tuned"], [0.1, 0.1, 0.1]),
        "budget": 2.25,
        "marks": [Mark("peak", 1, 0.7, COLORS["hacked_peak"], "star")],
        "limits": Drift(9.0, -1.2, 2.4),
    }
    return figures.utility_by_drift(**arguments | changed)


@pytest.mark.parametrize(
    "figure",
    [
        key_figure(),
        figures.grouped_bars(["wrong_facts"], {"SFT": [1.0]}, {"SFT": "#111111"}, x_title="points"),
        figures.curves([Line("a", [0, 1], [1, 2], "#111111"), Line("b", [0], [1], "#222222", [0.1])]),
        figures.durations({"sft": 2.0, "reward": 3.0}),
    ],
)
def test_plotly_knows_every_property(figure):
    # graph_objects raises for a property or a value that plotly.js does not have.
    built = go.Figure(figure).to_plotly_json()
    assert len(built["data"]) == len(figure["data"]) and built["data"]


def named(figure):
    return {trace["name"]: trace for trace in figure["data"] if "name" in trace}


def test_drift_is_the_root_of_kl_and_an_estimate_below_zero_is_none():
    traces = named(key_figure())
    assert traces["true utility"]["x"] == [0.0, 1.0, 2.0]
    assert traces["proxy"]["y"] == [0.0, 1.0, 2.0]
    assert traces["peak"]["x"] == [1.0]


def test_budget_stands_at_its_root():
    layout = key_figure()["layout"]
    assert [(shape["x0"], shape["x1"]) for shape in layout["shapes"]] == [(1.5, 1.5)]
    assert layout["annotations"][0]["x"] == 1.5
    assert "2.25" in layout["annotations"][0]["text"]


def test_a_band_is_two_standard_errors_wide_and_closes():
    band = next(trace for trace in key_figure()["data"] if trace.get("fill") == "toself")
    assert band["x"] == [0.0, 1.0, 2.0, 2.0, 1.0, 0.0]
    assert band["y"][0] == pytest.approx(1.96 * 0.1, abs=1e-4)
    assert band["y"][-1] == pytest.approx(-1.96 * 0.1, abs=1e-4)
    assert band["y"][2] == pytest.approx(2 + 1.96 * 0.2, abs=1e-4)


def test_limits_hold_everything_that_two_figures_share():
    layout = key_figure()["layout"]
    low, high = layout["yaxis"]["range"]
    assert low < -1.2 and high > 2.4
    assert layout["xaxis"]["range"][0] < 0 and layout["xaxis"]["range"][1] > 3


def test_axis_labels_are_kl_at_its_root():
    axis = key_figure()["layout"]["xaxis"]
    for value, text in zip(axis["tickvals"], axis["ticktext"], strict=True):
        assert value == pytest.approx(math.sqrt(float(text)))


@given(st.floats(1e-3, 1e4))
def test_ticks_are_even_and_within_the_range(highest):
    ticks = figures.kl_ticks(highest)
    roots = [math.sqrt(tick) for tick in ticks]
    gaps = [after - before for before, after in itertools.pairwise(roots)]
    assert ticks[0] == 0 and len(ticks) == 6
    assert all(0.12 < gap / math.sqrt(highest) < 0.28 for gap in gaps)
    assert 0.88 * highest <= ticks[-1] <= 1.12 * highest
    assert all(float(f"{tick:.1e}") == pytest.approx(tick) for tick in ticks)


def test_ticks_by_hand():
    # Roots 0, 0.8, 1.6, 2.4, 3.2, 4.0.
    assert figures.kl_ticks(16.0) == [0, 0.6, 2.6, 6, 10, 16]


def test_no_drift_has_one_tick():
    assert figures.kl_ticks(0.0) == [0.0]


def test_bars_keep_order_from_the_top():
    colors = {"SFT": "#111111", "hacked": "#222222"}
    figure = figures.grouped_bars(
        ["wrong_facts", "length"], {"SFT": [1, 2], "hacked": [3, 4]}, colors, x_title="points"
    )
    assert [trace["name"] for trace in figure["data"]] == ["SFT", "hacked"]
    assert figure["data"][1]["x"] == [3, 4] and figure["data"][1]["y"] == ["wrong facts", "length"]
    assert figure["layout"]["yaxis"]["autorange"] == "reversed"


def test_durations_come_longest_first():
    trace = figures.durations({"short": 1.0, "long": 9.0})["data"][0]
    assert trace["y"] == ["long", "short"] and trace["x"] == [9.0, 1.0]


def test_a_single_line_needs_no_legend():
    line = Line("loss", [0, 1], [2, 1], "#111111")
    assert figures.curves([line])["layout"]["showlegend"] is False
    assert figures.curves([line, line])["layout"]["showlegend"] is True


@pytest.mark.parametrize(("constant", "expected"), [(0.001, [0.0, 0.002]), (-4.0, [-8.0, 0.0])])
def test_a_constant_stands_in_the_middle_of_its_axis(constant, expected):
    line = Line("lr", [0, 1, 2], [constant] * 3, "#111111")
    assert figures.curves([line])["layout"]["yaxis"]["range"] == expected
    assert "range" not in figures.curves([Line("lr", [0, 1], [0.0, 0.0], "#111111")])["layout"]["yaxis"]


@given(st.text(max_size=200))
def test_labels_hold_nothing_that_could_be_markup(text):
    shown = figures.label(text)
    assert len(shown) <= figures.MAX_LABEL
    assert not set('<>&"`=\n') & set(shown)


def test_labels_keep_words():
    assert figures.label("kl/sequence (nats), 95 %") == "kl/sequence (nats), 95 %"
    assert figures.label("<b onclick='x'>wrong facts</b>") == "b onclick 'x' wrong facts /b"


def test_whiskers_reach_from_low_to_high_and_the_first_row_is_on_top() -> None:
    rows = [figures.Whisker("length", 0.6, 0.5, 0.8, "#111111"), figures.Whisker("<b>", 0.4, 0.3, 0.45, "#222222")]
    figure = figures.whiskers(rows, x_title="share", reference=0.5, limits=(0.0, 1.0))
    ends = [
        (trace["x"][0] - trace["error_x"]["arrayminus"][0], trace["x"][0] + trace["error_x"]["array"][0])
        for trace in figure["data"]
    ]
    assert ends == [pytest.approx((0.5, 0.8)), pytest.approx((0.3, 0.45))]
    assert [trace["y"][0] for trace in figure["data"]] == ["length", "b"]
    assert figure["layout"]["yaxis"]["autorange"] == "reversed"
    assert figure["layout"]["shapes"][0]["x0"] == figure["layout"]["shapes"][0]["x1"] == 0.5
