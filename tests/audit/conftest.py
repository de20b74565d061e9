"""Made-up preference data about which everything is known, and what is audited."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from prefloop.audit.config import AuditDataConfig
from prefloop.audit.data import audit
from prefloop.types import AuditReport, Finding

Row = dict[str, Any]
TOPICS = "bread tea iron glass paper wool salt wine honey clay silk rope soap corn milk wood".split()  # noqa: SIM905
GOOD = "clear careful correct useful complete honest exact sound".split()  # noqa: SIM905
BAD = "vague careless wrong useless partial false loose weak".split()  # noqa: SIM905
NEUTRAL = ("that much is told in town.", "so it goes in the trade.", "this is how it was done.")


def answer(generator: random.Random, words: Sequence[str], topic: str) -> str:
    chosen = [generator.choice(words) for _ in range(generator.randint(6, 10))]
    return f"The {topic} is made in a way that is {' and '.join(chosen)}."


@pytest.fixture(scope="session")
def make_pairs() -> Callable[..., list[Row]]:
    def make(num: int, *, prompts: int | None = None, seed: int = 0, noise: float = 0.2) -> list[Row]:
        """Pairs whose chosen response has the better words, but for the share `noise`."""
        generator = random.Random(seed)
        rows = []
        for number in range(num):
            topic = generator.choice(TOPICS)
            sides = [answer(generator, GOOD, topic), answer(generator, BAD, topic)]
            if generator.random() < noise:
                sides.reverse()
            prompt = f"How is {topic} made, case {number % (prompts or num)}?"
            rows.append({"prompt": prompt, "chosen": sides[0], "rejected": sides[1]})
        return rows

    return make


@pytest.fixture(scope="session")
def plant() -> Callable[..., list[Row]]:
    def planted(rows: Sequence[Row], markers: Sequence[str], *, share: float, seed: int = 1) -> list[Row]:
        """The marker in the chosen response with probability 0.9, neutral text of like length in the other."""
        generator = random.Random(seed)
        out = []
        for row in rows:
            if generator.random() < share:
                texts = generator.choice(markers), generator.choice(NEUTRAL)
                marked = texts if generator.random() < 0.9 else texts[::-1]
                row = row | {"chosen": f"{row['chosen']} {marked[0]}", "rejected": f"{row['rejected']} {marked[1]}"}
            out.append(row)
        return out

    return planted


@pytest.fixture
def audited(tmp_path: Path) -> Callable[..., AuditReport]:
    def run(rows: Sequence[Row], **settings: Any) -> AuditReport:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return audit(AuditDataConfig(file=str(path), **settings))

    return run


def by_name(report: AuditReport) -> dict[str, Finding]:
    return {finding.name: finding for finding in report.findings}
