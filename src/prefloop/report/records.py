"""The files of a run directory, read back as checked records.

Reports are made of files only, so that a page can be drawn again later, elsewhere, by a newer version. What does not
fit is an InputError that names the file and the line: somebody edited it, or another version of prefloop wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from prefloop.rundir import MADE_AGAIN, read_json
from prefloop.types import InputError

CURVE_RUNS = ("tuned", "hacked", "guarded")
POLICIES = ("sft", "tuned", "hacked_peak", "hacked", "guarded")


class Record(BaseModel):
    """Base of what is read from a run: frozen, further keys ignored, infinities and nan refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Mean(Record):
    """A mean over prompts."""

    mean: float
    standard_error: float


class RewardAccuracy(Record):
    """How often a reward model orders a held-out pair of its own annotators as they did."""

    accuracy: float
    ceiling: float | None = None
    """The best that any model could reach, the annotators' own noise being what it is; None if not measured."""
    longer: float | None = None
    """The accuracy of always betting on the longer response; None if not measured."""


class Raised(Record):
    """What an audit of preference pairs found against them."""

    name: str
    severity: Literal["warn", "block"]
    message: str


class AuditOfPairs(Record):
    """The audit of the pairs that a reward model was trained on."""

    verdict: Literal["pass", "warn", "block"]
    raised: tuple[Raised, ...]


class AlarmSeen(Record):
    """An alarm of the monitor on a policy run."""

    signal: str
    step: int
    kl: float
    message: str


class Differences(Record):
    """Differences of true utility, paired by prompt."""

    tuned_minus_sft: Mean
    hacked_minus_peak: Mean
    guarded_minus_hacked: Mean
    guarded_minus_sft: Mean


class DemoAnswer(Record):
    """The answer of `prefloop demo`."""

    seconds: float
    peak_memory_bytes: float
    num_prompts: int
    stages: dict[str, float]
    kl: dict[Literal["tuned", "hacked", "guarded"], float]
    true_utility: dict[Literal["sft", "tuned", "hacked", "hacked_peak", "guarded"], Mean]
    seed: int
    scenario: str
    scenario_description: str
    kl_budget: float
    num_pairs: int
    reward_accuracy: dict[Literal["honest", "biased"], RewardAccuracy]
    audits: dict[Literal["honest", "biased"], AuditOfPairs]
    alarms: dict[Literal["tuned", "hacked", "guarded"], tuple[AlarmSeen, ...]]
    peak_step: int
    differences: Differences
    worst_part: str
    worst_kind: str


class CurvePoint(Record):
    """One evaluation of a policy in training; step 0 is the SFT policy."""

    run: Literal["tuned", "hacked", "guarded"]
    step: int
    kl: float
    proxy: Mean
    true_utility: Mean
    parts: dict[str, float]
    kinds: dict[str, float]
    words: float


class EvaluatedResponse(Record):
    """What one policy answered to one unseen prompt.

    `proxy` is the score of the reward model that the policy was optimised against; for SFT it may be either's.
    """

    policy: Literal["sft", "tuned", "hacked", "hacked_peak", "guarded"]
    prompt_id: str
    kind: str
    half: Literal["select", "report"]
    prompt: str
    response: str
    true_utility: float
    parts: dict[str, float]
    proxy: float


SomeRecord = TypeVar("SomeRecord", bound=Record)


def read_result(run_dir: Path) -> dict[str, Any]:
    """`result.json` of a finished run. Raises InputError where there is none."""
    if not run_dir.exists():
        raise InputError("no such directory", path=run_dir, field="run", remedy="give a finished run directory")
    if not run_dir.is_dir():
        raise InputError("is a file", path=run_dir, field="run", remedy="give a finished run directory")
    path = run_dir / "result.json"
    if not path.exists() and any((run_dir / name).exists() for name in ("inputs.json", "config.yaml", "metrics.jsonl")):
        remedy = "run its command again: it resumes by itself"
        raise InputError("this run is not finished", path=run_dir, field="run", remedy=remedy)
    if not path.exists():
        remedy = "give a directory that a prefloop command made with --out"
        raise InputError("is not a run directory (no result.json)", path=run_dir, field="run", remedy=remedy)
    result = read_json(path)
    if not isinstance(result.get("command"), str):
        raise InputError("does not say which command made it", path=path, field="command", remedy=MADE_AGAIN)
    return result


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line of a JSON Lines file."""
    if not path.exists():
        raise InputError("is missing from the run", path=path, remedy=MADE_AGAIN)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                value = json.loads(line.decode("utf-8"))
            except ValueError as error:
                raise InputError(f"is not JSON ({error})", path=path, line=number, remedy=MADE_AGAIN) from None
            if not isinstance(value, dict):
                raise InputError("is not a JSON object", path=path, line=number, remedy=MADE_AGAIN)
            yield number, value


def read_records(path: Path, kind: type[SomeRecord]) -> list[SomeRecord]:
    """Every line of a JSON Lines file as a record."""
    return [parse(value, kind, path, number) for number, value in read_lines(path)]


def parse(value: Any, kind: type[SomeRecord], path: Path, line: int | None = None) -> SomeRecord:
    """Check one object against its record."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(first["msg"].lower(), path=path, line=line, field=field, remedy=MADE_AGAIN) from None
