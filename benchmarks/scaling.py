"""Whether cost grows linearly: seconds for each useful token at 1, 2 and 4 times the batch and the response length.

Steps of prefloop alone, all in the fixed regime, taken in turn. A prompt that a group's responses share is computed
once, and counts once: counted with each response, short responses would look cheap for the prompts beside them. The
page's figures are relative to the first point; 1.15 is what may be.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.options import publish, table
from benchmarks.peers.cases import BATCH, GENERATED, OFFLINE, Case
from benchmarks.peers.figures import Report
from benchmarks.peers.turns import Runner
from benchmarks.testbed import NEW_TOKENS, NUM_ROWS, SIZES, prepare
from prefloop.report.figures import PALETTE, Line, curves
from prefloop.report.page import PageSection, Plot, Plots, render_page
from prefloop.rundir import atomic_file

FACTORS = (1, 2, 4)
JOBS = ("sft", "dpo", "grpo", "ppo", "generation")
LIMIT = 1.15

Costs = Mapping[str, Mapping[int, float]]
"""Seconds for each useful token, by what grows ("batch", "response length") and by how much."""


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", allow_abbrev=False, description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--job", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1, help="1 (default) counts CPU seconds, more the clock's")
    parser.add_argument("--steps", type=int, default=3, help="counted steps (default and, for SFT and DPO, most: 3)")
    parser.add_argument("--out", type=Path, default=Path("build/peers"), help="where test bed and page go")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="JSON to FILE, or in place of the table")
    flags = parser.parse_args(words)
    if not 1 <= flags.steps < NUM_ROWS // (BATCH * max(FACTORS)):
        parser.error(f"--steps {flags.steps}: from 1 to {NUM_ROWS // (BATCH * max(FACTORS)) - 1}")
    found = {job: measure(job, flags) for job in flags.job}
    page = flags.out / f"scaling-{flags.size}.html"
    write_page(page, found, f"{flags.size} model, {flags.dtype}, {flags.threads} threads")
    publish(flags, found, [costs_table(found), f"plots: {page}"])


def cases(job: str, flags: argparse.Namespace, folder: Path) -> dict[tuple[str, int], Case]:
    """What is measured, by what grows and by how much. The lengths of offline data are given, so only batches grow."""
    regime = "offline" if job in OFFLINE else "fixed"
    batch = GENERATED if job == "generation" else BATCH
    found = {}
    for growing in ("batch",) if job in OFFLINE else ("batch", "response length"):
        for factor in FACTORS:
            found[growing, factor] = Case(
                *(job, flags.size, regime, flags.dtype, flags.threads, flags.steps + 1, str(folder)),
                batch=batch * (factor if growing == "batch" else 1),
                new_tokens=NEW_TOKENS * (1 if growing == "batch" else factor),
            )
    return found


def measure(job: str, flags: argparse.Namespace) -> Costs:
    """Steps of all sizes in turn."""
    wanted = cases(job, flags, prepare(flags.out / "testbed"))
    costs: dict[str, dict[int, float]] = {}
    with ExitStack() as stack:
        runners = {key: stack.enter_context(start(case)) for key, case in wanted.items()}
        for _ in range(1 + flags.steps):
            for runner in runners.values():
                runner.step()
        for (growing, factor), runner in runners.items():
            costs.setdefault(growing, {})[factor] = cost(runner.reports[1:])
    return costs


def cost(reports: Sequence[Report]) -> float:
    """Median over the steps of seconds for each token of the distinct prompts and of the responses."""
    return median(report["seconds"] / (report["prompts"] + report["responses"]) for report in reports)


def start(case: Case) -> Runner:
    """A process of prefloop."""
    command = [sys.executable, "-m", "benchmarks.peers.ours", case.words()]
    return Runner("prefloop", command, environment=os.environ)


def costs_table(found: Mapping[str, Costs]) -> str:
    """A line for each job and what grows: microseconds for each useful token, and how they grow."""
    header = ["job", "grows", *(f"{factor}x, µs a token" for factor in FACTORS), "4x against 1x"]
    return table(
        header,
        [
            [
                *(job, growing),
                *(f"{1e6 * costs[factor]:.0f}" for factor in FACTORS),
                f"{growth(costs)[-1]:.2f}",
            ]
            for job, grown in found.items()
            for growing, costs in grown.items()
        ],
    )


def growth(costs: Mapping[int, float]) -> list[float]:
    """Each factor's cost against that of the first; all 1 where cost grows linearly."""
    return [costs[factor] / costs[FACTORS[0]] for factor in FACTORS]


def write_page(path: Path, found: Mapping[str, Costs], subtitle: str) -> None:
    """A figure for each of what grows, a curve for each job, as one HTML file."""
    plots = []
    for growing in ("batch", "response length"):
        jobs = [(job, costs[growing]) for job, costs in found.items() if growing in costs]
        lines = [
            Line(job, range(len(FACTORS)), growth(costs), color)
            for (job, costs), color in zip(jobs, PALETTE, strict=False)
        ]
        if not lines:
            continue
        lines.append(Line("limit", range(len(FACTORS)), [LIMIT] * len(FACTORS), PALETTE[-1]))
        figure = curves(lines, height=320)
        figure["layout"]["xaxis"] |= {
            "title": {"text": growing},
            "tickvals": list(range(len(FACTORS))),
            "ticktext": [f"{factor}x" for factor in FACTORS],
        }
        figure["layout"]["yaxis"] |= {"rangemode": "tozero"}
        plots.append(Plot(figure, f"Seconds for each useful token against 1x, by {growing}"))
    with atomic_file(path) as file:
        file.write(
            render_page([PageSection("Cost of a token", "scaling", [Plots(plots)])], title="Scaling", subtitle=subtitle)
        )


if __name__ == "__main__":
    main()
