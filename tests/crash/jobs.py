"""The tiny runs that are broken off: one of each training command, and one of each on-policy algorithm."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from prefloop.cli import main
from prefloop.train.algorithms import ALGORITHMS

OFFLINE = ("sft", "reward", "preference")
NUM_EPOCHS, NUM_MINIBATCHES = 2, 2
"""Of each round of rollouts, so that a kill can land between the optimiser steps of one round."""

FRUIT, TOOLS = ("tree", "bee", "cheese", "seed", "steel"), ("moon", "lamp", "road", "sun", "fog")
SHAPE = ("--scratch.hidden-size", "16", "--scratch.num-layers", "1", "--scratch.num-heads", "2")


@dataclass(frozen=True)
class Job:
    """A command that is run again and again, each time in another directory or on from where it was."""

    name: str
    words: tuple[str, ...]

    def in_directory(self, out: Path) -> list[str]:
        """The command line of a run in `out`."""
        return [*self.words, "--out", str(out), "--json"]


def job_names() -> list[str]:
    """All jobs: the offline commands, and the algorithms that exist."""
    return [*OFFLINE, *ALGORITHMS]


def make_jobs(root: Path, names: list[str]) -> list[Job]:
    """Write the data, train what the jobs start from, and give the jobs."""
    _write_data(root)
    sft, reward = root / "start-sft", root / "start-reward"
    _run("train", "sft", *SHAPE, "--scratch.vocab-size", "300", "--data", root / "demonstrations.jsonl", "--out", sft)
    _run("train", "reward", "--model", sft, "--data", root / "pairs.jsonl", "--out", reward)
    return [Job(name, tuple(map(str, _words(name, root, sft, reward)))) for name in names]


def _words(name: str, root: Path, sft: Path, reward: Path) -> tuple[object, ...]:
    often = ("--checkpoint-every", 2)
    offline = (*often, "--batch-size", 8, "--num-epochs", 2, "--eval-every", 5, "--eval-fraction", 0.1)
    match name:
        case "sft":
            data = ("--data", root / "demonstrations.jsonl", "--scratch.vocab-size", 300)
            return ("train", "sft", *SHAPE, *data, *offline)
        case "reward" | "preference":
            return ("train", name, "--model", sft, "--data", root / "pairs.jsonl", *offline, "--optimizer.lr", 1e-3)
    return (
        *("train", "policy", "--algorithm", name, "--model", sft, "--reward", f"{root / 'rewards.py'}:noisy"),
        *("--prompts", root / "prompts.jsonl", *often, "--num-steps", 12, "--prompts-per-step", 8),
        *("--max-new-tokens", 8, "--optimizer.lr", 1e-3, "--kl-budget", "none"),
        *("--settings.num-epochs", NUM_EPOCHS, "--settings.num-minibatches", NUM_MINIBATCHES),
    )


def _write_data(root: Path) -> None:
    generator = random.Random(0)
    prompts = [f"name things like the {first} or the {second}" for first in FRUIT + TOOLS for second in FRUIT]

    def words(pool: tuple[str, ...]) -> str:
        return " ".join(generator.choice(pool) for _ in range(generator.randint(1, 4)))

    rows = {
        "demonstrations": [
            {"prompt": generator.choice(prompts), "completion": words(FRUIT + TOOLS)} for _ in range(96)
        ],
        "pairs": [
            {"prompt": generator.choice(prompts), "chosen": words(FRUIT), "rejected": words(TOOLS)} for _ in range(96)
        ],
        "prompts": [{"prompt": prompt} for prompt in prompts],
    }
    root.mkdir(parents=True)
    for name, records in rows.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    # Random on purpose: a run goes on exactly also where the user's function draws from the global generators.
    (root / "rewards.py").write_text(
        "import random\n\nimport numpy as np\nimport torch\n\n\n"
        "def noisy(prompts, responses):\n"
        "    noise = [random.gauss(0, 0.1) + 0.1 * np.random.rand() + 0.1 * float(torch.rand(())) for _ in responses]\n"
        "    return [response.count('e') + each for response, each in zip(responses, noise)]\n"
    )


def _run(*words: object) -> None:
    code = main([*map(str, words), "--json"])
    assert code == 0, words
