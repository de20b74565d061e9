"""Configs of the commands that read the labelling database: statistics, export, a model as annotator. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from prefloop.evaluate.config import EndpointConfig
from prefloop.label.config import DatabaseSection


class LabelStatsConfig(DatabaseSection):
    """Whether the votes are any good: agreement, consistency, gold questions, position, attention, influence."""

    html: str | None = None
    """Also write the statistics as one HTML page to this file."""
    queue: str | None = None
    """Also write the items on which people differ to this file, worst first, ending in .jsonl."""
    num_resamples: PositiveInt = 1000
    """Bootstrap resamples of items behind the intervals of alpha and kappa."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Seed of the bootstrap."""


class LabelExportConfig(DatabaseSection):
    """Make training data of the votes, and audit it."""

    out: str | None = None
    """File for the preference pairs, ending in .jsonl; an existing one is never replaced by other content."""
    method: Literal["majority", "bradley-terry", "dawid-skene"] = "majority"
    """How several votes on one comparison become one pair."""
    keep_ties: bool = False
    """Also write comparisons in which neither response is preferred, with tie: true."""
    strict_trl: bool = False
    """Write the columns prompt, chosen and rejected only."""
    votes: str | None = None
    """File for every vote that was not taken back, as judgments, ending in .jsonl; replaced where it exists."""
    verdicts: str | None = None
    """File for the verdicts on a review queue, ending in .jsonl; replaced where it exists."""
    queue: str | None = None
    """The review queue that the verdicts are to be of, where the database holds more than one."""
    audits: str = "audits"
    """Directory where the audit of the pairs is kept, for training to find."""

    @model_validator(mode="after")
    def _makes_sense(self) -> LabelExportConfig:
        if self.out is None and self.votes is None and self.verdicts is None:
            raise ValueError("nothing is exported; give out, votes or verdicts")
        if self.queue is not None and self.verdicts is None:
            raise ValueError("queue chooses among verdicts, and none are exported; give verdicts, or leave it out")
        if self.strict_trl and self.keep_ties:
            raise ValueError("strict_trl has no column for ties; leave keep_ties out")
        return self


class LabelJudgeConfig(DatabaseSection):
    """Let a judge model vote as one more annotator, asked in both orders. Stops resumable where it stays away."""

    judge: str
    """Address of an OpenAI-compatible API: http://host:port/v1."""
    endpoint: EndpointConfig = EndpointConfig()
    """How the judge model is asked; endpoint.model is needed."""
    name: str | None = None
    """Name of the annotator, beginning with "judge "; by default "judge MODEL"."""
    limit: PositiveInt | None = None
    """Most votes of this run."""
    answers: str = "label-judge.jsonl"
    """File that keeps what the judge said, so that nothing is asked twice."""
