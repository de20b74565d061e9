"""What the monitor is told. docs/monitor.md has the reasons for the defaults."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from prefloop.config import Section

WATCHED = (
    *("length", "repetition", "hedging", "confidence", "citation", "disclaimer", "flattery", "list_format"),
    *("exclamation", "refusal", "openings", "language", "cut_off", "score_spread", "length_gain"),
    *("out_of_distribution", "shuffled_gain", "held_out_score"),
)
"""What has limits in a run's own log."""


class MonitorSettings(Section):
    """When a change of what a policy writes is an alarm."""

    false_alarms: PositiveFloat = 1.0
    """False alarms in 1,000 looks, over all signals, that chance alone may give; limits are set for it."""
    patience: PositiveInt = 2
    """Looks in a row beyond a limit that make an alarm."""
    responses: PositiveInt = 64
    """Fewest responses of a look; steps with fewer are looked at together."""
    share: float = Field(0.1, gt=0, lt=1)
    """Least change of a share (of responses with a disclaimer, of refusals) that is worth an alarm."""
    growth: PositiveFloat = 0.25
    """Least relative growth of a mean (of length, of an ensemble's spread) that is worth an alarm."""
    examples: PositiveInt = 3
    """Responses that each alarm shows."""


class TrainingMonitor(MonitorSettings):
    """The monitor of a policy run, on the responses that it stores (save_rollouts)."""

    enabled: bool = True
    """Watch the run."""
    reference_responses: PositiveInt = 128
    """Responses of the first steps that stand for the policy that the run started from."""
    stop_on: tuple[str, ...] = ("held_out_score",)
    """Signals whose alarm ends the run, with the last checkpoint before the signal left its limits as the result; none:
    no alarm does."""

    @field_validator("stop_on", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        # Behind a validator of Python, a list of JSON no longer passes for a tuple by itself.
        named = tuple(value) if isinstance(value, list) else value
        return () if named in (("none",), "none", None) else named

    @model_validator(mode="after")
    def _known_signals(self) -> TrainingMonitor:
        if unknown := [name for name in self.stop_on if name not in WATCHED]:
            raise ValueError(f"stop_on: no signal {unknown[0]!r} has limits; known: {', '.join(WATCHED)}")
        return self


class MonitorConfig(Section):
    """The signals and alarms of a rollout log: what changed in what the policy writes, while the score rose."""

    file: str
    """Rollouts: prompt, response, score, step, and where known kl, finish_reason, score_spread, raw_score,
    shuffled_score, out_of_distribution and held_out_score."""
    reference: str | None = None
    """Responses of the policy that the run started from, in the same form; by default the first steps of the file."""
    reference_steps: PositiveInt = 4
    """Steps at the beginning of the file that stand for the reference, where no file does."""
    sources: str | None = None
    """Text file with the sources that may be cited, one a line; citations of others are counted as unverified."""
    html: str | None = None
    """Also write the report as one HTML page to this file."""
    skip_bad: bool = False
    """Leave unusable rows out (they are counted) instead of stopping."""
    limits: MonitorSettings = MonitorSettings()
    """When a change is an alarm."""
