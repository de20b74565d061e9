"""Config of `sample`."""

from __future__ import annotations

from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveInt, model_validator

from prefloop.config import Section


class SampleConfig(Section):
    """Sample responses of a policy to prompts, as JSON Lines."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: str
    """Policy: model directory or run."""
    prompts: str
    """File with the prompts (PATH)."""
    out: str
    """File to write: one object a response, with prompt, response and finish_reason; with best_of also its score."""
    num_samples: PositiveInt = 1
    """Responses to each prompt."""
    best_of: int | None = Field(None, ge=2)
    """Sample so many for each response and write the one with the highest score."""
    reward: tuple[str, ...] = ()
    """Scorer that chooses, with best_of (as --reward of train policy)."""
    max_new_tokens: PositiveInt = 128
    """Longest response in tokens."""
    temperature: NonNegativeFloat = 1.0
    """Sampling temperature; 0 takes the most likely token."""
    limit: PositiveInt | None = Field(None)
    """Only the first so many prompts."""
    batch_size: PositiveInt = 256
    """Prompts decoded together; results do not depend on it."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Sampling seed."""
    skip_bad: bool = False
    """Leave unusable prompts out (they are counted and named) instead of stopping."""

    @model_validator(mode="after")
    def _choice(self) -> SampleConfig:
        if (self.best_of is None) != (not self.reward):
            raise ValueError("best_of and reward belong together: give both or neither")
        if self.best_of is not None and self.temperature == 0:
            raise ValueError("best_of has no effect at temperature 0: all samples are the same")
        return self
