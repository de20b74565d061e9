"""Text records that cross a boundary between stations, and the errors that a user may see.

Records are frozen and hold text and numbers only, never tensors (those are in `functional/batch.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Choice = Literal["a", "b", "tie", "both_bad", "skip"]
Severity = Literal["ok", "warn", "block"]
Verdict = Literal["pass", "warn", "block"]
Action = Literal["note", "review", "stop", "rewind"]
GateVerdict = Literal["promote", "hold", "rollback"]


class InputError(Exception):
    """Something that the user gave is wrong. Printed as one line, exit code 2.

    Every part but `problem` is optional; `remedy` says what would be right.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.path, self.line, self.field = path, line, field
        self.problem, self.remedy = problem, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        """`file:line: field: what is wrong; what would be right`, without the parts that do not apply."""
        place = str(self.path) if self.path is not None else ""
        if self.line is not None:
            place = f"{place}:{self.line}" if place else f"line {self.line}"
        text = ": ".join(part for part in (place, self.field or "", self.problem) if part)
        return " ".join((f"{text}; {self.remedy}" if self.remedy else text).split())


class Refusal(Exception):
    """The answer is no: a binding audit forbids what was asked for. Printed as one line, exit code 1."""


class EnvironmentStop(Exception):
    """The environment stopped a run that can be resumed: a full disk, a reward server that stays away. Exit code 3."""


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue."""

    role: Role
    content: str


Messages = tuple[Message, ...]


@dataclass(frozen=True)
class Prompt:
    """What a policy is asked. `messages` ends with a user turn. `split` is "train", "eval" or ""."""

    prompt_id: str
    messages: Messages
    source: str = ""
    split: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the row, handed to custom reward functions."""
    weight: float = 1.0
    place: str = field(default="", compare=False)
    """Where it was read, as file:line; empty if it was made otherwise."""


@dataclass(frozen=True)
class Demonstration:
    """A dialogue to imitate. Loss is on every assistant turn of `completion`; `prompt` is context only.

    `prompt` is empty for rows given as `messages`: then the loss is on all assistant turns of `completion`.
    """

    demonstration_id: str
    prompt: Messages
    completion: Messages
    source: str = ""
    weight: float = 1.0
    place: str = field(default="", compare=False)
    """Where it was read, as file:line; empty if it was made otherwise."""


@dataclass(frozen=True)
class Comparison:
    """Two responses to one prompt, shown to an annotator as A and B."""

    comparison_id: str
    prompt: Prompt
    response_a: str
    response_b: str
    model_a: str = ""
    model_b: str = ""

    def swap(self) -> Comparison:
        """The same comparison with A and B exchanged."""
        return dataclasses.replace(
            self,
            response_a=self.response_b,
            response_b=self.response_a,
            model_a=self.model_b,
            model_b=self.model_a,
        )


@dataclass(frozen=True)
class Judgment:
    """One vote, raw and never edited. `choice` speaks of A and B of the comparison, whichever was shown first."""

    comparison_id: str
    annotator_id: str
    choice: Choice
    strength: Literal["slightly", "clearly"] | None = None
    shown_first: Literal["a", "b"] = "a"
    seconds: float | None = None
    guideline_version: str = ""
    at: str = ""


@dataclass(frozen=True)
class PreferencePair:
    """A derived preference: `chosen` was preferred to `rejected` as an answer to `prompt`."""

    pair_id: str
    prompt: Prompt
    chosen: str
    rejected: str
    source: str = ""
    strength: float | None = None
    num_judgments: int = 1
    weight: float = 1.0
    annotator_id: str = ""
    tie: bool = False
    """Neither was preferred: which one is called chosen says nothing. Only those who ask for ties get such pairs."""
    place: str = field(default="", compare=False)
    """Where it was read, as file:line; empty if it was made otherwise."""


@dataclass(frozen=True)
class LabelledResponse:
    """One response to `prompt` with a verdict of its own, without a partner: `label` is True where it was wanted."""

    response_id: str
    prompt: Prompt
    response: str
    label: bool
    source: str = ""
    weight: float = 1.0
    annotator_id: str = ""
    place: str = field(default="", compare=False)
    """Where it was read, as file:line; empty if it was made otherwise."""


@dataclass(frozen=True)
class Rollout:
    """A response that a policy wrote in training, as stored under `rollouts/`."""

    rollout_id: str
    prompt_id: str
    prompt: str
    group: int
    response: str
    score: float
    score_spread: float | None
    kl: float
    """Sequence KL to the reference in nats (k1 estimate, sum over the response)."""
    finish_reason: Literal["stop", "length"]
    policy_version: str
    reward_version: str
    step: int
    raw_score: float | None = None
    """What the scorer said, before shaping."""
    shuffled_score: float | None = None
    """What the scorer says of the response under another prompt, before shaping."""
    out_of_distribution: bool | None = None
    """Whether the reward model's state is farther out than nearly all of those on pairs that it knows."""
    held_out_score: float | None = None
    """Score by a scorer that nothing is optimised against."""


@dataclass(frozen=True)
class RunResult:
    """What a command that makes a run answers, and what `result.json` holds."""

    run: str
    command: str
    stopped: str
    """Why it ended: "done", "kl_budget", "early_stopping"."""
    metrics: Mapping[str, Any]
    outputs: Mapping[str, str]
    """Name -> path relative to the run directory; "model" is what later commands take from this run."""
    next: str = ""
    """The command that usually follows, ready to paste."""


@dataclass(frozen=True)
class Finding:
    """What one probe of an audit found. Every probe that ran has one, also where all is well."""

    name: str
    value: float | None
    """What the message says it is; None where the probe had too little to go by or does not apply."""
    severity: Severity
    message: str
    interval: tuple[float, float] | None = None
    """95 % interval of `value`, or of `human_rate` where that is given; clustered by prompt."""
    p_value: float | None = None
    """Corrected for the number of probes of its kind."""
    threshold: float | None = None
    """Beyond this `value` the probe warns."""
    num_pairs: int = 0
    """Rows that tell: for a shortcut the discordant pairs."""
    human_rate: float | None = None
    """Share of the discordant pairs in which the chosen response has more of it."""
    model_rate: float | None = None
    """The same share by a reward model's choices; None in an audit of data."""
    remedy: str = ""
    """What can be done about it."""
    examples: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class AuditReport:
    """Is the data, or the reward model, fit to be optimised against?"""

    subject: str
    """Path of what was audited."""
    subject_sha256: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    at: str
    """When, ISO 8601 in UTC."""


@dataclass(frozen=True)
class Signal:
    """What was measured in the responses of one look of the monitor."""

    name: str
    step: int
    """The last step of the look."""
    value: float


@dataclass(frozen=True)
class Alarm:
    """A signal that left its limit."""

    signal: str
    step: int
    value: float
    limit: float
    action: Action
    message: str
    examples: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """One piece of evidence about a model, tied by hashes to what was measured. Every one has its line in a file."""

    name: str
    """What was measured, for example "win_rate" or "suite/citations/change"."""
    candidate_sha256: str
    """Of the model's directory (`rundir.sha256_of`)."""
    baseline_sha256: str
    """Of the directory of the model that it was measured beside."""
    data_sha256: str
    """Of the file of prompts or texts."""
    value: float
    interval: tuple[float, float] | None
    """95 % interval of `value`; None where nothing is known of it."""
    n: int
    """Prompts, or texts."""
    at: str
    """When, ISO 8601 in UTC."""


@dataclass(frozen=True)
class Approval:
    """A person's word on a candidate: yes, or no."""

    candidate_sha256: str
    approved: bool
    by: str
    why: str
    at: str
    """When, ISO 8601 in UTC."""


@dataclass(frozen=True)
class Check:
    """One question that the gate asked of the evidence, and the answer."""

    name: str
    passed: bool
    observed: float | str | None
    """What the evidence says; None where there is none."""
    required: str
    reason: str
    """In plain words, also where it passed."""


@dataclass(frozen=True)
class GateDecision:
    """May a candidate go live? If it is live: may it stay?"""

    candidate: str
    """sha256 of its weights."""
    incumbent: str | None
    """sha256 of the weights that it was compared with, or None where nothing is live. Of a live candidate: what was
    live before."""
    checks: tuple[Check, ...]
    verdict: GateVerdict


@dataclass(frozen=True)
class ModelVersion:
    """A registered model. Whether it is live is derived from the ledger's events, never stored."""

    name: str
    version: int
    """Counts from 1 for each name."""
    role: Literal["policy", "reward"]
    parents: tuple[str, ...]
    """sha256 of the weights that it was made from."""
    run: str
    """Path of the run or directory that it was taken from."""
    weights_sha256: str
    data: Mapping[str, str] = field(default_factory=dict)
    """Path -> sha256 of the files that it was trained on, prompts included."""
    optimised_against: Mapping[str, str] | None = None
    """Path -> sha256 of reward models, or of preference data; empty where it was optimised against nothing (SFT), None
    where that is not known."""

    @property
    def label(self) -> str:
        """`name:version`, as commands take it."""
        return f"{self.name}:{self.version}"


@dataclass(frozen=True)
class Told:
    """A command's answer where people get other words than programs, or where the answer may be no."""

    values: Mapping[str, Any]
    """For programs."""
    text: str
    """For people."""
    refused: bool = False
    """The answer is no: exit code 1."""
