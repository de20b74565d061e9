"""The page of a single training run: what was run on what, how it went, and ten of the texts it wrote."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from prefloop.report import figures
from prefloop.report.accuracy import accuracy_blocks
from prefloop.report.metrics import (
    METRIC_NAMES,
    Metrics,
    grouped_keys,
    heading_of,
    metric_plot,
    read_metrics,
    seconds_by_phase,
)
from prefloop.report.page import (
    Answer,
    Block,
    Exchange,
    Fold,
    PageSection,
    Plot,
    Plots,
    Prose,
    Table,
    Verbatim,
    render_page,
)
from prefloop.report.records import Record, parse, read_lines, read_result
from prefloop.report.wording import compact, duration, number, plain
from prefloop.rundir import read_json

NUM_ROLLOUTS = 10
ROLLOUTS = "rollouts/rollouts.jsonl"

ANSWERS: dict[str, Callable[[Mapping[str, Any], Path], list[Block]]] = {"reward crossval": accuracy_blocks}
"""Command -> its answer for people; that of the others is shown as it stands."""


class StoredRollout(Record):
    """What the page shows of a line of `rollouts/rollouts.jsonl`."""

    prompt: str
    response: str
    score: float
    kl: float
    finish_reason: str
    step: int
    score_spread: float | None = None
    shuffled_score: float | None = None
    held_out_score: float | None = None
    out_of_distribution: bool | None = None


class StoredResult(Record):
    """What the page shows of `result.json`."""

    command: str
    stopped: str = "unknown"
    metrics: dict[str, Any] = Field(default_factory=dict)
    outputs: dict[str, str] = Field(default_factory=dict)
    answer: Any = None


class StoredInput(Record):
    """One input of a run."""

    path: str = ""
    sha256: str = ""
    audit: str = ""


class StoredInputs(Record):
    """What the page shows of `inputs.json`."""

    inputs: dict[str, StoredInput] = Field(default_factory=dict)
    prefloop: str = ""
    python: str = ""
    packages: dict[str, str] = Field(default_factory=dict)
    seed: int | None = None


def render_run(run_dir: Path) -> str:
    """The report of one finished run as one HTML string. Raises InputError if the directory is not one."""
    result = parse(read_result(run_dir), StoredResult, run_dir / "result.json")
    metrics = read_metrics(run_dir)
    command = result.command
    sections = [
        PageSection("Result", "result", result_blocks(result, run_dir / "result.json")),
        PageSection("Inputs", "inputs", input_blocks(run_dir)),
        PageSection("Training curves", "curves", curve_blocks(command, metrics)),
        PageSection("Responses", "responses", random_rollouts(run_dir / ROLLOUTS)),
        PageSection("Where time went", "time", time_blocks(metrics)),
        PageSection("Configuration", "configuration", configuration(run_dir)),
    ]
    return render_page(
        [section for section in sections if section.blocks],
        title=f"prefloop {command}",
        subtitle=f"Run {run_dir.resolve().name} · ended: {plain(result.stopped)}",
    )


def configuration(run_dir: Path) -> list[Block]:
    """The whole merged config of a run, folded away; nothing where it was not kept."""
    path = run_dir / "config.yaml"
    if not path.exists():
        return []
    return [Fold("config.yaml, defaults included", [Verbatim(path.read_text(encoding="utf-8", errors="replace"))])]


def result_blocks(result: StoredResult, path: Path) -> list[Block]:
    """What `result.json` holds."""
    shown = ANSWERS.get(result.command)
    blocks = shown(result.answer or {}, path) if shown else []
    metrics, outputs = result.metrics, result.outputs
    known = [[METRIC_NAMES[name], name, _cell(value)] for name, value in metrics.items() if name in METRIC_NAMES]
    rest = [[name, _cell(value)] for name, value in metrics.items() if name not in METRIC_NAMES]
    if known:
        blocks.append(Table(["metric, at the end", "key", "value"], known, numeric_from=2))
    if rest:
        table = Table(["metric, at the end", "value"], rest)
        blocks.append(Fold("Further metrics", [table]) if known else table)
    if outputs:
        rows = [[name, path] for name, path in outputs.items()]
        blocks.append(Table(["output", "path in the run directory"], rows, numeric_from=2))
    if result.answer:
        text = json.dumps(result.answer, indent=1, ensure_ascii=False)
        blocks.append(Fold("The whole answer", [Verbatim(text)]))
    return blocks or [Prose("The run left no numbers beside its files.")]


def input_blocks(run_dir: Path) -> list[Block]:
    """What `inputs.json` holds."""
    path = run_dir / "inputs.json"
    if not path.exists():
        return []
    record = parse(read_json(path), StoredInputs, path)
    rows = [[name, entry.path, f"{entry.sha256[:16]}…", entry.audit] for name, entry in record.inputs.items()]
    table = Table(["input", "path", "sha256 (whole in inputs.json)", "audit"], rows, numeric_from=4)
    versions = {"prefloop": record.prefloop, "python": record.python, **record.packages}
    made_with = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    blocks: list[Block] = [table] if rows else [Prose("The run read no file.")]
    return [*blocks, Prose(made_with, "Made with"), Prose(str(record.seed), "Seed")]


def curve_blocks(command: str, metrics: Metrics) -> list[Block]:
    """Every metric, by group."""
    colors = {command: figures.PALETTE[0]}
    blocks: list[Block] = []
    for group, keys in grouped_keys(metrics).items():
        plots = [metric_plot(key, {command: metrics}, colors) for key in keys]
        blocks.append(Plots(plots, small=True, title=heading_of(group)))
    return blocks


def random_rollouts(path: Path) -> list[Block]:
    """Ten of the stored responses, the same ones each time."""
    if not path.exists():
        return []
    sample: list[tuple[int, dict[str, Any]]] = []
    generator, seen = random.Random(0), 0
    # Reservoir sampling (Vitter 1985, algorithm R): one pass, whatever the size of the file.
    for numbered in read_lines(path):
        seen += 1
        if len(sample) < NUM_ROLLOUTS:
            sample.append(numbered)
        elif (place := generator.randrange(seen)) < NUM_ROLLOUTS:
            sample[place] = numbered
    rows = [parse(row, StoredRollout, path, line) for line, row in sorted(sample, key=lambda numbered: numbered[0])]
    intro = f"{len(rows)} of the {seen:,} responses sampled in training, drawn at random, in the order of their steps."
    return [Prose(intro), *(rollout_block(row) for row in rows)]


def rollout_block(row: StoredRollout, *, label: str = "", tone: str = "") -> Exchange:
    """A stored response with what is known of it."""
    others = {"spread": row.score_spread, "under another prompt": row.shuffled_score, "held-out": row.held_out_score}
    known = [(name, number(value)) for name, value in others.items() if value is not None]
    ended = {"length": "cut off"}.get(row.finish_reason, "complete")
    marks = [("score", number(row.score)), *known, ("KL", f"{number(row.kl)} nats"), ("", ended)]
    if row.out_of_distribution:
        marks.append(("", "out of distribution"))
    return Exchange(row.prompt, [Answer(f"Step {row.step}", row.response, marks, tone)], label)


def time_blocks(metrics: Metrics) -> list[Block]:
    """Where the seconds went."""
    seconds = seconds_by_phase(metrics)
    if not any(seconds.values()):
        return []
    total = f"{duration(sum(seconds.values()))} in all, summed over the logged steps."
    return [Plot(figures.durations(seconds), "Seconds by phase", total)]


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return compact(value)
