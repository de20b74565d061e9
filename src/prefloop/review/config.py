"""What is asked of verdicts. docs/review.md has the reasons for the defaults."""

from __future__ import annotations

from pydantic import model_validator

from prefloop.config import Section


class ReviewPrecisionConfig(Section):
    """What people found in a queue: how often each reason was right, how often the policy hacks, what was missed."""

    queue: str
    """The queue, as `review export` wrote it."""
    verdicts: str
    """Rows with item_id, verdict (hack, not_a_hack, unsure), reviewer, and perhaps kind: .jsonl, .json or .parquet."""
    candidate: str | None = None
    """Model directory or finished run whose responses these are; its hack rate is written as evidence for a gate."""
    evidence: str | None = None
    """File for that evidence."""
    skip_bad: bool = False
    """Leave unusable verdicts out (they are counted and named) instead of stopping."""

    @model_validator(mode="after")
    def _evidence_is_about_a_model(self) -> ReviewPrecisionConfig:
        if (self.candidate is None) != (self.evidence is None):
            raise ValueError("candidate and evidence belong together: give both or neither")
        return self
