"""The flags that all benchmarks share, and what they print."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefloop.statistics.intervals import Estimate


def options(name: str, words: Sequence[str] | None = None, *, seeds: Sequence[int] = (1, 2, 3)) -> argparse.Namespace:
    """--seeds, --quick, --out and --json of the benchmark `name`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", allow_abbrev=False)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds), help="seeds of world, models and runs")
    parser.add_argument("--quick", action="store_true", help="tiny models and runs: proves that it runs, no more")
    parser.add_argument("--out", type=Path, help="where runs are kept (default runs/benchmarks, with --quick -quick)")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="JSON to FILE, or in place of the table")
    flags = parser.parse_args(words)
    flags.out = flags.out or Path("runs/benchmarks-quick" if flags.quick else "runs/benchmarks")
    return flags


def publish(flags: argparse.Namespace, answer: Mapping[str, Any], tables: Sequence[str]) -> None:
    """Print the tables, or the answer as JSON; write the JSON where a file is named."""
    text = json.dumps(answer, indent=1, ensure_ascii=False, default=dataclasses.asdict)
    if flags.json == "-":
        print(text)
        return
    if flags.json is not None:
        Path(flags.json).write_text(text + "\n", encoding="utf-8")
    print("\n\n".join(tables))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    assert all(len(line) == len(header) for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_cell(estimate: Estimate) -> str:
    """`0.33 ± 0.04`: mean and standard error."""
    return f"{estimate.mean:.2f} ± {estimate.standard_error:.2f}"


def gain_cell(mean: Estimate, gain: Estimate) -> str:
    """A mean with, in brackets, its gain in standard errors of the (paired) gain: `0.33 ± 0.04 (7.9)`."""
    return f"{mean_cell(mean)} ({in_errors(gain):.1f})"


def in_errors(estimate: Estimate) -> float:
    """A mean as a multiple of its standard error; 0 where all values are 0."""
    return estimate.mean / estimate.standard_error if estimate.standard_error else 0.0
