"""A reliability diagram as SVG: a reward model's confidence against how often it was right (DeGroot & Fienberg 1983).

Text that opens anywhere, without a library; a point's area is its share of the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefloop.rundir import atomic_file, output_file

SIDE, EDGE = 320, 48
"""Pixels of the square, and of the margin around it."""


def reliability_svg(table: Sequence[Mapping[str, Any]]) -> str:
    """The diagram of `reliability_table`'s rows: confidence 1/2 to 1 to the right, accuracy 0 to 1 upwards."""
    total = sum(row["num_pairs"] for row in table)
    size = SIDE + 2 * EDGE
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" font-size="12">',
        f'<rect width="{size}" height="{size}" fill="white"/>',
        f'<rect x="{EDGE}" y="{EDGE}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>',
        _line(0.5, 0.5, 1.0, 1.0, "#999"),
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        lines.append(_text(EDGE - 6, _up(share) + 4, f"{share:g}", "end"))
        lines.append(_text(_right(0.5 + share / 2), EDGE + SIDE + 16, f"{0.5 + share / 2:.3g}", "middle"))
    for row in table:
        radius = max(2.0, 28 * math.sqrt(row["num_pairs"] / total))
        x, y = _right(row["confidence"]), _up(row["accuracy"])
        title = f"{row['num_pairs']} pairs: confidence {row['confidence']:.2f}, right {row['accuracy']:.2f}"
        lines.append(_line(row["confidence"], row["confidence"], row["confidence"], row["accuracy"], "#d62728"))
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="#1f77b4" fill-opacity="0.6">')
        lines.append(f"<title>{title}</title></circle>")
    lines.append(_text(size / 2, size - 12, "confidence of the reward model", "middle"))
    lines.append(_text(size / 2, 24, f"share of its bets that were right, {total} pairs", "middle"))
    return "\n".join([*lines, "</svg>\n"])


def write_plot(path: str, table: Sequence[Mapping[str, Any]]) -> None:
    """Write the diagram to a file, whole or not at all."""
    with atomic_file(output_file(path, "plot")) as file:
        file.write(reliability_svg(table))


def markdown_table(table: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `reliability_table` in Markdown."""
    lines = ["| confidence | pairs | mean confidence | right |", "| --- | --- | --- | --- |"]
    for row in table:
        bounds = f"{row['from_confidence']:.2f} to {row['to_confidence']:.2f}"
        lines.append(f"| {bounds} | {row['num_pairs']} | {row['confidence']:.3f} | {row['accuracy']:.3f} |")
    return "\n".join(lines)


def write_diagram(directory: Path, table: Sequence[Mapping[str, Any]]) -> str:
    """Write the diagram into a model's directory; its file name."""
    name = "reliability.svg"
    (directory / name).write_text(reliability_svg(table), encoding="utf-8")
    return name


def _right(confidence: float) -> float:
    return EDGE + SIDE * (confidence - 0.5) * 2


def _up(share: float) -> float:
    return EDGE + SIDE * (1 - share)


def _line(from_x: float, from_y: float, to_x: float, to_y: float, stroke: str) -> str:
    ends = f'x1="{_right(from_x):.1f}" y1="{_up(from_y):.1f}" x2="{_right(to_x):.1f}" y2="{_up(to_y):.1f}"'
    return f'<line {ends} stroke="{stroke}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
