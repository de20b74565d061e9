"""Evidence: `Evaluation` records, and the file of them that a gate reads."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefloop.rundir import atomic_file
from prefloop.types import Evaluation


@dataclass(frozen=True)
class Pairing:
    """Which models are compared; it stamps what was measured of them."""

    candidate_sha256: str
    baseline_sha256: str
    at: str

    def evaluation(
        self, name: str, data_sha256: str, value: float, interval: tuple[float, float] | None, n: int
    ) -> Evaluation:
        """A record of something measured of these two models."""
        return Evaluation(name, self.candidate_sha256, self.baseline_sha256, data_sha256, value, interval, n, self.at)


def now() -> str:
    """ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def as_lines(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """A line of JSON for each."""
    for each in evaluations:
        yield json.dumps(dataclasses.asdict(each), ensure_ascii=False, allow_nan=False) + "\n"


def write_evaluations(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """Write the file, atomically."""
    with atomic_file(path) as file:
        file.writelines(as_lines(evaluations))
