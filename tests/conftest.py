"""Environment of every test: small thread pools (CI has two cores) and no network.

Also what the tests of training share: a tiny vocabulary of words with and without the letter e, the data made of it,
one SFT run and one reward run, all through the command line.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every process that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# No test is timed: a busy machine is no fault of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

WITH_E = ("tree", "bee", "cheese", "seed", "steel")
WITHOUT_E = ("moon", "lamp", "road", "sun", "fog")
TINY_SHAPE = (
    *("--scratch.hidden-size", "32", "--scratch.num-layers", "2", "--scratch.num-heads", "2"),
    *("--scratch.vocab-size", "330", "--scratch.max-position", "128"),
)


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit code, its answer, and what it said."""

    code: int
    answer: dict[str, Any]
    said: str

    @property
    def run(self) -> Path:
        """The run directory."""
        return Path(self.answer["run"])

    @property
    def model(self) -> Path:
        """The model that the run made."""
        return self.run / self.answer["outputs"]["model"]

    @property
    def problem(self) -> str:
        """The one line that a refused command prints last."""
        assert self.code == 2, (self.code, self.said)
        assert "Traceback" not in self.said
        return self.said.strip().splitlines()[-1]

    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl."""
        return [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def prefloop() -> Callable[..., Outcome]:
    """`prefloop("train sft", "--data", path, ...)`: one command line, in this process."""
    from prefloop.cli import main

    def call(words: str, *rest: object) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*words.split(), *(str(word) for word in rest), "--json"])
        return Outcome(code, json.loads(out.getvalue() or "{}"), err.getvalue())

    return call


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """demonstrations.jsonl, pairs.jsonl (chosen has words with e only, rejected words without) and prompts.jsonl."""
    generator = random.Random(0)
    prompts = [f"name things like the {first} or the {second}" for first in WITH_E + WITHOUT_E for second in WITH_E]

    def words(pool: tuple[str, ...], most: int) -> str:
        return " ".join(generator.choice(pool) for _ in range(generator.randint(1, most)))

    rows = {
        "demonstrations": [
            {"prompt": generator.choice(prompts), "completion": words(WITH_E + WITHOUT_E, 6)} for _ in range(600)
        ],
        "pairs": [
            {"prompt": generator.choice(prompts), "chosen": words(WITH_E, 4), "rejected": words(WITHOUT_E, 4)}
            for _ in range(320)
        ],
        "prompts": [{"prompt": prompt} for prompt in prompts],
    }
    directory = tmp_path_factory.mktemp("data")
    for name, records in rows.items():
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (directory / "rewards.py").write_text(
        "def count_e(prompts, responses):\n    return [float(response.count('e')) for response in responses]\n\n\n"
        "def short(prompts, responses):\n    return [-float(len(response.split())) for response in responses]\n"
    )
    return directory


@pytest.fixture(scope="session")
def sft_run(prefloop: Callable[..., Outcome], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A tiny model that answers with one to six of the ten words."""
    outcome = prefloop(
        *("train sft", *TINY_SHAPE, "--data", data / "demonstrations.jsonl", "--out", tmp_path_factory.mktemp("sft")),
        *("--optimizer.lr", 1e-2, "--num-epochs", 3, "--eval-every", 20),
    )
    assert outcome.code == 0, outcome.said
    return outcome


@pytest.fixture(scope="session")
def reward_run(
    prefloop: Callable[..., Outcome], data: Path, sft_run: Outcome, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    """A reward model that prefers words with e."""
    outcome = prefloop(
        *("train reward", "--model", sft_run.run, "--data", data / "pairs.jsonl"),
        *("--out", tmp_path_factory.mktemp("reward"), "--optimizer.lr", 3e-3, "--num-epochs", 2),
        *("--eval-fraction", 0.2),
    )
    assert outcome.code == 0, outcome.said
    return outcome


@pytest.fixture(scope="session")
def tune(
    prefloop: Callable[..., Outcome], data: Path, sft_run: Outcome, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Outcome]:
    """`train policy` on the tiny policy, settings appended (a later one wins)."""

    def call(*settings: object, out: Path | None = None) -> Outcome:
        return prefloop(
            *("train policy", "--model", sft_run.run, "--prompts", data / "prompts.jsonl", "--max-new-tokens", 16),
            *("--optimizer.lr", 2e-3, "--value-optimizer.lr", 3e-3, "--out", out or tmp_path_factory.mktemp("policy")),
            *settings,
        )

    return call
