"""What every benchmark starts from: an SFT policy and reward models in the simulated world, one set for each seed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from prefloop.cli import COMMANDS, config_class, find, split_words
from prefloop.config import load
from prefloop.flags import parse
from prefloop.recipes.config import SandboxConfig
from prefloop.recipes.scenario import learn_reward
from prefloop.recipes.stages import Bench, run_sft, write_data
from prefloop.rundir import write_json

QUICK: dict[str, Any] = {
    "num_demonstrations": 240,
    "sft_epochs": 1,
    "num_pairs": 96,
    "num_eval_prompts": 60,
    "max_new_tokens": 12,
}
"""Settings of a trial run that takes seconds and measures nothing."""


def prepare(out: Path, seed: int, *, quick: bool, scenarios: tuple[str, ...] = ("honest",)) -> Bench:
    """Data, SFT policy and one reward model a scenario under `out`/seed-N; what is finished is not done again."""
    root = out / f"seed-{seed}"
    root.mkdir(parents=True, exist_ok=True)
    bench = Bench.build(root, SandboxConfig(seed=seed, **(QUICK if quick else {})))
    if not bench.data("prompts").exists():
        write_data(bench)
    run_sft(bench)
    for scenario in scenarios:
        learn_reward(root, bench.config, scenario)
    return bench


def train_policy(bench: Bench, name: str, scenario: str, flags: str) -> float | None:
    """Train a policy with `flags` (see `policy_words`) as stage `name`.

    Gives the CPU seconds that it took, None if it was interrupted on the way.
    """
    stage = bench.stage(name)
    record = bench.root / "seconds" / f"{name}.json"
    if not (stage / "result.json").exists():
        begun, started = stage.exists(), time.process_time()
        train, config = configured(*policy_words(bench, scenario, flags), "--out", str(stage))
        train(config)
        record.parent.mkdir(exist_ok=True)
        write_json(record, {"cpu_seconds": None if begun else time.process_time() - started})
    seconds: float | None = json.loads(record.read_text(encoding="utf-8"))["cpu_seconds"]
    return seconds


def configured(*words: str) -> tuple[Any, Any]:
    """The function and the config of the command line `prefloop WORDS`."""
    name, rest = split_words(words)
    assert name is not None, words
    command = COMMANDS[name]
    model, _ = config_class(name, command, rest)
    given = parse(rest, model, command.positionals, command=name)
    return find(command.run), load(model, overrides=given.overrides, origins=given.origins)


def policy_words(bench: Bench, scenario: str, flags: str) -> list[str]:
    """`train policy` with `flags` as a user would type them, on the policy and the reward model of `bench`."""
    config = bench.config
    return [
        *("train", "policy", *flags.split(), "--seed", str(config.seed)),
        *("--model", str(bench.stage("sft")), "--reward", str(bench.stage(f"reward-{scenario}"))),
        *("--prompts", str(bench.data("prompts")), "--max-new-tokens", str(config.max_new_tokens)),
        *("--token-budget", str(config.token_budget)),
    ]


def result_of(stage: Path) -> dict[str, Any]:
    """What a finished run wrote last."""
    found: dict[str, Any] = json.loads((stage / "result.json").read_text(encoding="utf-8"))
    return found


def logged(stage: Path) -> list[dict[str, float]]:
    """The steps of a run, as metrics.jsonl has them."""
    return [json.loads(line) for line in (stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
