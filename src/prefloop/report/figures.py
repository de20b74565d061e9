"""Numbers -> plotly.js figures, as plain dicts.

Pure functions. Labels are names of quantities, never what a model wrote: plotly.js reads a little HTML in labels, so
`label` keeps harmless characters only. Colours are readable on light and on dark; the page adds those of text and grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Figure = dict[str, Any]

COLORS = {
    "sft": "#87909c",
    "tuned": "#1b9e77",
    "hacked_peak": "#d9a400",
    "hacked": "#e0542f",
    "guarded": "#3b7dd8",
    "proxy": "#9a6bd0",
    "true_utility": "#1b9e77",
    "limit": "#87909c",
}
PALETTE = ("#3b7dd8", "#e0542f", "#1b9e77", "#9a6bd0", "#d9a400", "#87909c")
MAX_LABEL = 60
NORMAL_95 = 1.959964


class Line(NamedTuple):
    """One curve. `spread`, where given, is its standard error at each point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str
    spread: Sequence[float] | None = None


class Mark(NamedTuple):
    """A single point with a name in the legend."""

    name: str
    x: float
    y: float
    color: str
    symbol: str


def label(text: str) -> str:
    """A name as plain words: letters, digits and a little punctuation, at most 60 characters."""
    kept = "".join(character if character.isalnum() or character in " .,:/()+-%'" else " " for character in text)
    words = " ".join(kept.split())
    return words if len(words) <= MAX_LABEL else words[: MAX_LABEL - 1] + "…"


class Moment(NamedTuple):
    """A step at which something happened."""

    x: float
    color: str


def utility_by_drift(
    proxy: Line, true_utility: Line, *, budget: float | None, marks: Sequence[Mark], limits: Drift
) -> Figure:
    """Proxy and true utility (or what stands for it) against KL on a square-root scale, with 95 % bands where known.

    `x` of lines, marks and `budget` are KL in nats. Source of the scale: Gao et al. (2022), d = sqrt(KL).
    """
    traces: list[dict[str, Any]] = []
    for line in (proxy, true_utility):
        rooted = line._replace(x=[drift(kl) for kl in line.x])
        traces += [*_band(rooted), {**_curve(rooted), "hovertemplate": "%{y:.2f}"}]
    for mark in marks:
        marker = {"color": mark.color, "size": 13, "symbol": mark.symbol, "line": {"width": 1.5, "color": "#ffffff"}}
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [drift(mark.x)],
                "y": [mark.y],
                "name": label(mark.name),
                "marker": marker,
                "hovertemplate": "%{y:.2f}",
            }
        )
    ticks = kl_ticks(limits.kl)
    layout = _layout(height=400, x_title=limits.x_title, y_title="")
    layout["xaxis"] |= {
        "tickvals": [drift(kl) for kl in ticks],
        "ticktext": [f"{kl:g}" for kl in ticks],
        "range": [-0.03 * drift(limits.kl), 1.04 * drift(limits.kl)],
    }
    room = 0.08 * (limits.high - limits.low)
    layout["yaxis"] |= {"range": [limits.low - room, limits.high + room], "zeroline": True}
    if budget is not None:
        layout["shapes"] = [_vertical(drift(budget))]
        layout["annotations"] = [_note(drift(budget), f"KL budget {budget:g}")]
    # Two entries a row, so that figures with three and with four entries keep the same drawing area.
    layout["margin"]["b"] = 96
    layout["legend"] |= {"y": -0.2, "yanchor": "top", "entrywidth": 0.48, "entrywidthmode": "fraction"}
    return {"data": traces, "layout": layout}


class Drift(NamedTuple):
    """Ranges that two figures share, so that they can be compared by eye."""

    kl: float
    low: float
    high: float
    x_title: str = "KL from SFT, nats (square-root scale)"


def drift(kl: float) -> float:
    """sqrt(KL); an estimate below 0 counts as 0."""
    return math.sqrt(max(0.0, kl))


def kl_ticks(highest: float) -> list[float]:
    """Six KL values, about even on a square-root scale: of one digit where that is close enough, else of two."""
    if highest <= 0:
        return [0.0]
    step = drift(highest) / 5
    values = [0.0]
    for index in range(1, 6):
        exact = (index * step) ** 2
        tens = math.floor(math.log10(exact))
        coarse = round(exact, -tens)
        values.append(coarse if abs(coarse - exact) <= 0.12 * exact else round(exact, 1 - tens))
    return values


def grouped_bars(
    groups: Sequence[str], series: Mapping[str, Sequence[float]], colors: Mapping[str, str], *, x_title: str
) -> Figure:
    """Horizontal bars: one group a row (first on top), one bar a series; a group's names are read without turning."""
    shown = [label(group.replace("_", " ")) for group in groups]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": label(name),
            "y": shown,
            "x": list(values),
            "marker": {"color": colors[name]},
            "hovertemplate": "%{x:.2f}",
        }
        for name, values in series.items()
    ]
    height = 110 + len(groups) * (16 + 12 * len(series))
    layout = _layout(height=height, x_title=x_title, y_title="")
    # Plotly counts categories from below.
    layout["yaxis"] |= {"autorange": "reversed", "ticks": "", "tickfont": {"size": 12}}
    layout["xaxis"] |= {"zeroline": True, "zerolinewidth": 2}
    layout |= {"barmode": "group", "bargap": 0.28, "hovermode": "y unified"}
    layout["legend"]["traceorder"] = "normal"
    return {"data": traces, "layout": layout}


def curves(lines: Sequence[Line], *, height: int = 230, moments: Sequence[Moment] = ()) -> Figure:
    """A small figure of one metric over steps; a legend only where there is more than one line, a dashed line at each
    moment."""
    traces = [trace for line in lines for trace in (*_band(line), _curve(line))]
    layout = _layout(height=height, x_title="step", y_title="")
    layout["showlegend"] = len(lines) > 1
    layout["margin"] |= {"t": 26 if len(lines) > 1 else 8, "b": 40}
    values = {value for line in lines for value in line.y}
    if len(values) == 1 and (constant := values.pop()):
        # Left to itself the axis would run from -1 to 1 and show any small constant as 0.
        layout["yaxis"]["range"] = sorted([0.0, 2 * constant])
    if moments:
        layout["shapes"] = [_vertical(moment.x, moment.color) for moment in moments]
    return {"data": traces, "layout": layout}


def durations(seconds: Mapping[str, float]) -> Figure:
    """Horizontal bars of seconds, longest first."""
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": [label(name.replace("_", " ")) for name, _ in ordered],
        "x": [value for _, value in ordered],
        "text": [f"{value:.1f} s" for _, value in ordered],
        "textposition": "auto",
        "marker": {"color": PALETTE[0]},
        "hovertemplate": "%{x:.2f} s",
        "name": "",
    }
    layout = _layout(height=90 + 28 * len(ordered), x_title="seconds", y_title="")
    layout["yaxis"] |= {"autorange": "reversed", "ticks": ""}
    layout["showlegend"] = False
    layout["margin"]["t"] = 8
    return {"data": [trace], "layout": layout}


def _curve(line: Line) -> dict[str, Any]:
    return {
        "type": "scatter",
        # A line without neighbours would be invisible.
        "mode": "lines" if len(line.x) > 30 else "lines+markers",
        "x": list(line.x),
        "y": list(line.y),
        "name": label(line.name),
        "line": {"color": line.color, "width": 2},
        "marker": {"size": 5},
    }


def _band(line: Line) -> list[dict[str, Any]]:
    if line.spread is None:
        return []
    upper = [y + NORMAL_95 * error for y, error in zip(line.y, line.spread, strict=True)]
    lower = [y - NORMAL_95 * error for y, error in zip(line.y, line.spread, strict=True)]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [*line.x, *reversed(line.x)],
            "y": [*upper, *reversed(lower)],
            "fill": "toself",
            "fillcolor": line.color,
            "opacity": 0.2,
            "line": {"width": 0},
            "showlegend": False,
            "hoverinfo": "skip",
        }
    ]


def _vertical(x: float, color: str = COLORS["limit"]) -> dict[str, Any]:
    line = {"color": color, "width": 1.5, "dash": "dash"}
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def _note(x: float, text: str) -> dict[str, Any]:
    place = {"x": x, "y": 1, "yref": "paper", "yanchor": "bottom", "xanchor": "center"}
    return {**place, "text": label(text), "showarrow": False, "font": {"size": 11}}


def _layout(*, height: int, x_title: str, y_title: str) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 48, "r": 14, "t": 34, "b": 48},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "font": {"size": 11}},
        "xaxis": {"title": {"text": x_title, "standoff": 8}, "automargin": True, "zeroline": False},
        "yaxis": {"title": {"text": y_title}, "automargin": True, "zeroline": False},
    }


class Whisker(NamedTuple):
    """A named value with its interval."""

    name: str
    value: float
    low: float
    high: float
    color: str


def whiskers(rows: Sequence[Whisker], *, x_title: str, reference: float, limits: tuple[float, float]) -> Figure:
    """A dot and its interval for each row, first on top; a dashed line at `reference`. `limits` are those of x."""
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "y": [label(row.name)],
            "x": [row.value],
            "name": label(row.name),
            "marker": {"color": row.color, "size": 9},
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [row.high - row.value],
                "arrayminus": [row.value - row.low],
                "color": row.color,
                "thickness": 2,
                "width": 4,
            },
            "hovertemplate": f"%{{x:.2f}} ({row.low:.2f} to {row.high:.2f})<extra></extra>",
        }
        for row in rows
    ]
    layout = _layout(height=90 + 28 * len(rows), x_title=x_title, y_title="")
    layout["yaxis"] |= {"autorange": "reversed", "ticks": ""}
    layout["xaxis"] |= {"range": list(limits)}
    layout |= {"showlegend": False, "hovermode": "closest", "shapes": [_vertical(reference)]}
    layout["margin"]["t"] = 8
    return {"data": traces, "layout": layout}
