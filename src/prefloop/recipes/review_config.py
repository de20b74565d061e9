"""Configs of `review list` and `review export`. docs/review.md has the reasons for the defaults."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveInt

from prefloop.config import Section


class ReviewSettings(Section):
    """Which responses of a log are looked at."""

    log: str
    """Run of `train policy`, a rollout log as `monitor` reads it, or scored responses of one policy, without steps."""
    from_step: NonNegativeInt = 0
    """Leave the responses of earlier steps out."""
    reference: str | None = None
    """Responses of the policy that the run started from, in the same form; by default the first steps of the log."""
    reference_steps: PositiveInt = 4
    """Steps at the beginning of the log that stand for the reference of the monitor's limits, where no file does."""
    per_prompt: PositiveInt = 2
    """Most suspicious responses to one prompt."""
    skip_bad: bool = False
    """Leave unusable rows out (they are counted) instead of stopping."""


class ReviewListConfig(ReviewSettings):
    """The most suspicious responses of a log, with what makes them so."""

    top: PositiveInt = 10
    """How many are shown."""


class ReviewExportConfig(ReviewSettings):
    """A queue for people to read: the most suspicious responses of a log and a slice by lot, mixed."""

    out: str
    """The file to write, JSON Lines."""
    size: int = Field(100, ge=10)
    """Items of the queue."""
    random_fraction: float = Field(0.2, ge=0.1, le=1.0)
    """Share of the queue that is drawn by lot from the whole log."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Seed of the lot and of the order."""
