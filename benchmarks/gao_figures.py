"""The plots of `benchmarks.gao`, as HTML pages: gold with its law, and the proxy, over KL on a square-root scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gao_curves import FIT_KL, Curve, Way, findings, law_at
from benchmarks.gao_runs import Size
from prefloop.report.figures import PALETTE, Figure, Line, curves, drift, kl_ticks
from prefloop.report.page import PageSection, Plot, Plots, render_page
from prefloop.rundir import atomic_file

Curves = Mapping[Size, Mapping[str, Curve]]

TITLES: dict[Way, str] = {"best_of_n": "Best-of-n", "rl": "RLOO without a penalty"}
SUBTITLE = (
    "Gains over the SFT policy, in standard deviations among its answers to one prompt. Dots: measured, with 95 % "
    "bands over prompts. Dashes: the fitted law. The scale of KL is that of its square root."
)


def write_pages(out: Path, seeds: Mapping[int, Curves]) -> list[Path]:
    """A page for each way of optimising, a section for each seed."""
    pages = []
    for way, title in TITLES.items():
        sections = [
            PageSection(f"{title}, seed {seed}", f"seed-{seed}", [Plots(plots(found, way))])
            for seed, found in seeds.items()
        ]
        pages.append(out / f"gao-{way.replace('_', '-')}.html")
        with atomic_file(pages[-1]) as file:
            file.write(render_page(sections, title=title, subtitle=SUBTITLE))
    return pages


def plots(found: Curves, way: Way) -> list[Plot]:
    """By width and by number of pairs: gold with the laws, gold beyond them where there is any, and the proxy."""
    widths, numbers = families([size for size in found if not size.repeat])
    by = {
        f"{widths[0].num_pairs} pairs": {f"width {size.width}": found[size][way] for size in widths},
        f"width {numbers[0].width}": {f"{size.num_pairs} pairs": found[size][way] for size in numbers},
    }
    made = [Plot(gold_figure(named), f"Gold and its law, {which}") for which, named in by.items()]
    if any(curve.kl.max() > FIT_KL for named in by.values() for curve in named.values()):
        made += [Plot(figure_of(named, "gold"), f"Gold, the whole run, {which}") for which, named in by.items()]
    return made + [Plot(figure_of(named, "proxy"), f"Proxy, {which}") for which, named in by.items()]


def families(sizes: Sequence[Size]) -> tuple[list[Size], list[Size]]:
    """The sizes that differ in width alone, and those that differ in the number of pairs alone, ascending."""
    shared = {size.num_pairs for size in sizes if sum(other.num_pairs == size.num_pairs for other in sizes) > 1}
    middle = {size.width for size in sizes if sum(other.width == size.width for other in sizes) > 1}
    return (
        sorted((size for size in sizes if size.num_pairs in shared), key=lambda size: size.width),
        sorted((size for size in sizes if size.width in middle), key=lambda size: size.num_pairs),
    )


def gold_figure(named: Mapping[str, Curve]) -> Figure:
    """Gold of several curves, as far as laws are fitted, with their own laws."""
    near = {name: _up_to(curve, FIT_KL) for name, curve in named.items()}
    figure = figure_of(near, "gold")
    for trace in figure["data"]:
        if "marker" in trace:
            trace["mode"] = "markers"
    for curve, color in zip(near.values(), PALETTE, strict=False):
        law = findings(curve).laws.get(curve.way)
        if law is not None:
            roots = np.linspace(0, drift(curve.kl.max()), 100)
            heights = [law_at(curve.way, law.alpha, law.beta, root**2) for root in roots]
            figure["data"].append(_dashes(list(roots), heights, color))
    return figure


def _up_to(curve: Curve, kl: float) -> Curve:
    near = curve.kl <= kl
    places = [place for place, inside in zip(curve.places, near, strict=True) if inside]
    return Curve(curve.way, places, curve.kl[near], curve.gold[:, near], curve.proxy[:, near])


def figure_of(named: Mapping[str, Curve], key: str) -> Figure:
    """Gold or proxy of several curves."""
    lines = []
    for (name, curve), color in zip(named.items(), PALETTE, strict=False):
        gains = getattr(curve, key)
        # The start's own noise is in every gain of a run: what is shown is the spread of the paired difference.
        paired = gains - gains[:, :1]
        spread = paired.std(axis=0, ddof=1) / np.sqrt(len(gains))
        lines.append(Line(name, [drift(kl) for kl in curve.kl], list(gains.mean(axis=0)), color, list(spread)))
    figure = curves(lines, height=330)
    highest = max(float(curve.kl.max()) for curve in named.values())
    ticks = kl_ticks(highest)
    figure["layout"]["xaxis"] |= {
        "title": {"text": "KL from SFT, nats (square-root scale)"},
        "tickvals": [drift(kl) for kl in ticks],
        "ticktext": [f"{kl:g}" for kl in ticks],
    }
    figure["layout"]["yaxis"] |= {"zeroline": True}
    return figure


def _dashes(x: list[float], y: list[float], color: str) -> dict[str, Any]:
    line = {"color": color, "width": 1.5, "dash": "dash"}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "showlegend": False, "hoverinfo": "skip"}
