"""`sandbox table`: every scenario at every seed, by two workers, into one table.

The directory holds a bench for each seed (`seed-1/data`, `seed-1/stages`), whose SFT policy, pairs and reward models
are made once for all rows that need them, and a record of each row (`rows/`). A killed command goes on with what is
missing. A row that fails is told in the table; the same command tries it again.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefloop.console import say
from prefloop.recipes.scenario import (
    Clock,
    learn_reward,
    require_feasible,
    scenario_named,
    stored_answer,
)
from prefloop.recipes.stages import Bench, run_sft, write_data
from prefloop.recipes.table_columns import columns
from prefloop.recipes.table_config import TableConfig
from prefloop.recipes.table_row import make_row
from prefloop.recipes.table_text import as_markdown, as_sheet
from prefloop.recipes.workers import Job, Workers
from prefloop.rundir import RunDir, atomic_file, read_json, write_json, write_rows
from prefloop.types import Told

ROWS = "rows"


def run(config: TableConfig) -> Told:
    """The command. Refused (exit code 1) where a row has failed."""
    for name in (*config.scenarios, *filter(None, [config.ppo_scenario])):
        scenario_named(name)
    require_feasible(config.bench)
    with RunDir("sandbox table", config, {}) as run_dir:
        if run_dir.finished:
            answer = stored_answer(run_dir.path)
            return Told(answer, as_sheet(answer))
        root, clock = run_dir.path, Clock()
        for seed in config.chosen_seeds:
            (root / f"seed-{seed}").mkdir(exist_ok=True)
        (root / ROWS).mkdir(exist_ok=True)
        with clock.timed("stages and rows"):
            _work(root, config)
        answer = write_table(root, config)
        failed = bool(answer["failed"])
        if not failed:
            run_dir.finish(stopped="done", metrics={}, outputs={}, answer=answer)
        return Told(answer, as_sheet(answer), refused=failed)


def _work(root: Path, config: TableConfig) -> None:
    """Seed by seed, so that an unfinished table has all scenarios; the next SFT policy beside the rows of a seed."""
    seeds, scenarios = config.chosen_seeds, dict.fromkeys(name for name, _ in config.rows)
    attempt(root, f"sft-{seeds[0]}", make_sft, (root, config, seeds[0], 2 * config.bench.num_threads))
    with Workers() as workers:
        for seed, following in zip(seeds, (*seeds[1:], None), strict=True):
            jobs: list[Job] = [(make_rows, (root, config, scenario, seed)) for scenario in scenarios]
            if following is not None:
                arguments = (root, config, following, config.bench.num_threads)
                jobs.insert(0, (attempt, (root, f"sft-{following}", make_sft, arguments)))
            workers.side_by_side(*jobs)


def make_rows(root: Path, config: TableConfig, scenario: str, seed: int) -> None:
    """The reward model of a scenario, and then its rows, which share it: one worker does them all."""
    for name, algorithm in config.rows:
        if name == scenario:
            arguments = (root, config, scenario, algorithm, seed)
            attempt(root, row_name(scenario, algorithm, seed), record_row, arguments)


def row_name(scenario: str, algorithm: str, seed: int) -> str:
    """What a row's record is called."""
    return f"{scenario}-{algorithm}-{seed}"


def attempt(root: Path, name: str, job: Callable[..., None], arguments: Sequence[Any]) -> None:
    """Do a job of a worker. One that fails leaves its reason in `rows/<name>.failed`, and the others go on."""
    failure = root / ROWS / f"{name}.failed"
    failure.unlink(missing_ok=True)
    started = time.perf_counter()
    try:
        job(*arguments)
    except Exception as error:
        # Whatever it was: the other rows do not depend on it, and the table tells it.
        with atomic_file(failure) as file:
            file.write(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        say(f"{name} FAILED: {type(error).__name__}: {error}")
        return
    say(f"{name} done in {time.perf_counter() - started:.0f} s")


def make_sft(root: Path, config: TableConfig, seed: int, num_threads: int) -> None:
    """Demonstrations, prompts and the SFT policy of a seed."""
    bench = Bench.build(root / f"seed-{seed}", config.settings(seed), num_threads=num_threads)
    if not bench.data("prompts").exists():
        write_data(bench)
    run_sft(bench)


def record_row(root: Path, config: TableConfig, scenario: str, algorithm: str, seed: int) -> None:
    """Make a row, unless its record is there, and the table as far as it has come."""
    path = root / ROWS / f"{row_name(scenario, algorithm, seed)}.json"
    if path.exists():
        return
    started = time.perf_counter()
    settings = config.settings(seed, algorithm)
    learn_reward(root / f"seed-{seed}", settings, scenario)
    row = make_row(
        root / f"seed-{seed}",
        settings,
        scenario,
        panel=config.panel_comparisons,
        fresh=config.fresh_comparisons,
        rounds=config.remedy_rounds,
    )
    write_json(path, {**row, "seconds": time.perf_counter() - started})
    write_table(root, config)


def write_table(root: Path, config: TableConfig) -> dict[str, Any]:
    """`table.json`, `table.jsonl` and `table.md` of the rows that are done; returns what `table.json` holds."""
    rows = [
        read_json(path)
        for row in config.rows
        for seed in config.chosen_seeds
        if (path := root / ROWS / f"{row_name(*row, seed)}.json").exists()
    ]
    answer = answer_of(rows, config, _failures(root))
    write_json(root / "table.json", answer)
    write_rows(root / "table.jsonl", rows)
    with atomic_file(root / "table.md") as file:
        file.write(as_markdown(answer))
    return answer


def answer_of(rows: Sequence[Mapping[str, Any]], config: TableConfig, failed: Mapping[str, str]) -> dict[str, Any]:
    """The table: a line for each scenario and algorithm that has at least one finished row."""
    groups = {line: [row for row in rows if (row["scenario"], row["algorithm"]) == line] for line in config.rows}
    return {
        "lines": [columns(group) for group in groups.values() if group],
        "num_rows": len(rows),
        "num_wanted": len(config.rows) * len(config.chosen_seeds),
        "failed": dict(failed),
        "panel_comparisons": config.panel_comparisons,
        "fresh_comparisons": config.fresh_comparisons,
        "kl_budget": config.bench.kl_budget,
        "num_reported_prompts": config.bench.num_eval_prompts // 2,
    }


def _failures(root: Path) -> dict[str, str]:
    """The first line of each failure, by the name of its job."""
    found = sorted((root / ROWS).glob("*.failed"))
    return {path.stem: path.read_text("utf-8").partition("\n")[0] for path in found}
