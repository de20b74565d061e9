"""Why drift is controlled: RLOO without a budget, where only the KL coefficient changes, with and without PPO-ptx.

For each scenario: true utility, perplexity on demonstrations that nothing was trained on, and repetition. Then the
adaptive coefficient, started ten times too low and ten times too high, against the KL that the right one had.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.evaluate import measured
from benchmarks.options import gain_cell, options, publish, table
from benchmarks.start import logged, prepare, train_policy
from prefloop.models.load import load_policy
from prefloop.recipes.measure import difference
from prefloop.recipes.stages import Bench
from prefloop.report.figures import PALETTE, Line, curves
from prefloop.report.page import PageSection, Plot, Plots, render_page
from prefloop.rundir import atomic_file, resolve_model
from prefloop.statistics.intervals import Estimate
from prefloop.train.sft import mean_loss
from prefloop.world.writers import make_demonstrations

COEFFICIENTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
SHARED = "--algorithm rloo --num-steps 48 --prompts-per-step 24 --optimizer.lr 5e-4 --kl-budget none"
SCENARIOS = {"honest": (False, True), "confidence": (False,)}
"""Whose reward model is optimised, and whether without and with PPO-ptx."""
RIGHT = 0.1
"""The coefficient whose KL is the adaptive one's target."""
ADAPTIVE = SHARED.replace("--num-steps 48", "--num-steps 96") + " --kl-horizon 3"
"""A third of the default horizon: these runs are short."""
NUM_HELD_OUT = 500
QUICK = "--algorithm rloo --num-steps 4 --prompts-per-step 4 --kl-budget none"


@dataclass(frozen=True)
class Point:
    """One coefficient."""

    coefficient: float
    ptx: bool
    utility: Estimate
    gain: Estimate
    """True utility minus that of the SFT policy, paired by prompt."""
    proxy: float
    kl: float
    perplexity: float
    repetition: float


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = options("kl_sweep", words, seeds=(1,))
    answer: dict[str, Any] = {"shared": SHARED, "adaptive": ADAPTIVE, "seeds": {}}
    tables = []
    for seed in flags.seeds:
        bench = prepare(flags.out, seed, quick=flags.quick, scenarios=tuple(SCENARIOS))
        found = {
            scenario: [
                point(bench, scenario, coefficient, ptx=ptx, quick=flags.quick)
                for ptx in mixtures
                for coefficient in COEFFICIENTS
            ]
            for scenario, mixtures in SCENARIOS.items()
        }
        controlled = adaptive(bench, quick=flags.quick)
        answer["seeds"][seed] = {
            "scenarios": {name: [dataclasses.asdict(each) for each in points] for name, points in found.items()},
            "adaptive": controlled,
        }
        page = flags.out / f"kl-sweep-seed-{seed}.html"
        write_page(page, found)
        tables += [f"{name}, seed {seed}\n\n{points_table(points)}" for name, points in found.items()]
        tables += [f"adaptive coefficient, seed {seed}\n\n{adaptive_table(controlled)}", f"plots: {page}"]
    publish(flags, answer, tables)


def point(bench: Bench, scenario: str, coefficient: float, *, ptx: bool, quick: bool) -> Point:
    """Train with one coefficient, and measure."""
    name = f"sweep-{scenario}-{coefficient:g}{'-ptx' if ptx else ''}"
    mixture = f" --ptx-data {bench.data('demonstrations')}" if ptx else ""
    train_policy(bench, name, scenario, f"{QUICK if quick else SHARED} --kl-coef {coefficient:g}{mixture}")
    policy, sft = measured(bench, name, scenario), measured(bench, "sft", scenario)
    return Point(
        coefficient,
        ptx,
        policy.utility(),
        difference(policy, sft),
        policy.proxy().mean,
        policy.kl,
        held_out_perplexity(bench, name),
        fmean(repetition(row["response"]) for row in policy.reported()),
    )


def held_out_perplexity(bench: Bench, name: str) -> float:
    """Perplexity per token of a stage's policy on demonstrations by the same writer that nobody has seen."""
    model, chat = load_policy(resolve_model(str(bench.stage(name)), "model"))
    rows = make_demonstrations(bench.world, count=NUM_HELD_OUT, seed=bench.config.seed + 1000)
    encoded = [chat.encode((*row.prompt, *row.completion), num_context=len(row.prompt)) for row in rows]
    return math.exp(mean_loss(model, chat, encoded, token_budget=bench.config.token_budget))


def repetition(text: str) -> float:
    """Share of the word pairs of a text that stood in it before: 0 for no word pair twice, near 1 for a loop."""
    words = text.lower().split()
    pairs = list(itertools.pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def adaptive(bench: Bench, *, quick: bool) -> dict[str, Any]:
    """The fixed coefficient's KL as target, and where the adaptive one ends from a tenth and from ten times of it."""
    shared = QUICK if quick else ADAPTIVE
    train_policy(bench, "adaptive-fixed", "honest", f"{shared} --kl-coef {RIGHT:g}")
    target = last_quarter(logged(bench.stage("adaptive-fixed")), "kl/sequence")
    found: dict[str, Any] = {"coefficient": RIGHT, "target": target, "runs": {}}
    for factor in (0.1, 10.0):
        name = f"adaptive-{factor:g}"
        # A trial run may end where it began, at an estimate that is not even above 0.
        aim = max(target, 0.01)
        train_policy(bench, name, "honest", f"{shared} --kl-coef {factor * RIGHT:g} --kl-target {aim:g}")
        steps = logged(bench.stage(name))
        found["runs"][f"{factor:g}"] = {
            "kl": last_quarter(steps, "kl/sequence"),
            "coefficient": last_quarter(steps, "kl/coef"),
            "highest_kl": max(step["kl/sequence"] for step in steps),
        }
    return found


def last_quarter(steps: Sequence[Mapping[str, float]], key: str) -> float:
    """Mean of a metric over the last quarter of the steps."""
    return fmean(step[key] for step in steps[-max(1, len(steps) // 4) :])


def points_table(points: Sequence[Point]) -> str:
    """A line for each coefficient."""
    header = ["`kl_coef`", "ptx", "true utility", "proxy", "KL, nats", "held-out perplexity", "repetition"]
    return table(
        header,
        [
            [
                f"{each.coefficient:g}",
                "on" if each.ptx else "off",
                gain_cell(each.utility, each.gain),
                f"{each.proxy:.2f}",
                f"{each.kl:.2f}",
                f"{each.perplexity:.2f}",
                f"{100 * each.repetition:.1f} %",
            ]
            for each in points
        ],
    )


def adaptive_table(found: Mapping[str, Any]) -> str:
    """A line for each start of the adaptive coefficient."""
    target = found["target"]
    rows = [["fixed", f"{found['coefficient']:g}", f"{target:.2f}", "", ""]]
    for factor, run in found["runs"].items():
        start = f"{float(factor) * found['coefficient']:g}"
        off = f"{100 * (run['kl'] / target - 1):+.0f} %" if target > 0 else ""
        rows.append(
            ["adaptive", f"{start} → {run['coefficient']:.3f}", f"{run['kl']:.2f}", off, f"{run['highest_kl']:.1f}"]
        )
    return table(
        ["coefficient", "start → last quarter", "KL of the last quarter, nats", "off target", "highest KL"], rows
    )


def write_page(path: Path, found: Mapping[str, Sequence[Point]]) -> None:
    """Utility, perplexity and repetition against the coefficient, a row of figures a scenario, as one HTML file."""
    sections = [
        PageSection(f"Reward model of {scenario} annotators", scenario, [Plots(figures(points), small=True)])
        for scenario, points in found.items()
    ]
    with atomic_file(path) as file:
        file.write(render_page(sections, title="Only the KL coefficient changes", subtitle=SHARED))


def figures(points: Sequence[Point]) -> list[Plot]:
    """Three figures over the coefficient. The axis is by place: 0 has none on a logarithmic one."""
    plots = []
    for title, key in (
        ("True utility", "utility"),
        ("Perplexity on held-out demonstrations", "perplexity"),
        ("Repetition", "repetition"),
    ):
        lines = []
        for ptx, color in zip((False, True), PALETTE, strict=False):
            chosen = [each for each in points if each.ptx == ptx]
            values = [getattr(each, key) for each in chosen]
            spread = [value.standard_error for value in values] if key == "utility" else None
            heights = [value.mean for value in values] if key == "utility" else values
            if chosen:
                lines.append(Line(f"ptx {'on' if ptx else 'off'}", range(len(chosen)), heights, color, spread))
        figure = curves(lines, height=260)
        figure["layout"]["xaxis"] |= {
            "title": {"text": "KL coefficient"},
            "tickvals": list(range(len(COEFFICIENTS))),
            "ticktext": [f"{each:g}" for each in COEFFICIENTS],
        }
        plots.append(Plot(figure, title))
    return plots


if __name__ == "__main__":
    main()
