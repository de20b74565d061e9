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
    """Gold by width and by number of pairs, then the proxy likewise."""
    widths, numbers = families([size for size in found if not size.repeat])
    by_width = {f"width {size.width}": found[size][way] for size in widths}
    by_number = {f"{size.num_pairs} pairs": found[size][way] for size in numbers}
    at_width, at_number = f"{widths[0].num_pairs} pairs", f"width {numbers[0].width}"
    return [
        Plot(gold_figure(by_width), f"Gold, {at_width}"),
        Plot(gold_figure(by_number), f"Gold, {at_number}"),
        Plot(proxy_figure(by_width), f"Proxy, {at_width}"),
        Plot(proxy_figure(by_number), f"Proxy, {at_number}"),
    ]


def families(sizes: Sequence[Size]) -> tuple[list[Size], list[Size]]:
    """The sizes that differ in width alone, and those that differ in the number of pairs alone, ascending."""
    shared = {size.num_pairs for size in sizes if sum(other.num_pairs == size.num_pairs for other in sizes) > 1}
    middle = {size.width for size in sizes if sum(other.width == size.width for other in sizes) > 1}
    return (
        sorted((size for size in sizes if size.num_pairs in shared), key=lambda size: size.width),
        sorted((size for size in sizes if size.width in middle), key=lambda size: size.num_pairs),
    )


def gold_figure(named: Mapping[str, Curve]) -> Figure:
    """Gold of several curves with their own laws."""
    figure = _figure(named, "gold")
    for curve, color in zip(named.values(), PALETTE, strict=False):
        law = findings(curve).laws.get(curve.way)
        if law is not None:
            roots = np.linspace(0, drift(min(FIT_KL, curve.kl.max())), 100)
            heights = [law_at(curve.way, law.alpha, law.beta, root**2) for root in roots]
            figure["data"].append(_dashes(list(roots), heights, color))
    return figure


def proxy_figure(named: Mapping[str, Curve]) -> Figure:
    """The reward models' own gains."""
    return _figure(named, "proxy")


def _figure(named: Mapping[str, Curve], key: str) -> Figure:
    lines = []
    for (name, curve), color in zip(named.items(), PALETTE, strict=False):
        gains = getattr(curve, key)
        # The start's own noise is in every gain of a run: what is shown is the spread of the paired difference.
        paired = gains - gains[:, :1]
        spread = paired.std(axis=0, ddof=1) / np.sqrt(len(gains))
        lines.append(Line(name, [drift(kl) for kl in curve.kl], list(gains.mean(axis=0)), color, list(spread)))
    figure = curves(lines, height=330)
    if key == "gold":
        for trace in figure["data"]:
            if "marker" in trace:
                trace["mode"] = "markers"
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
