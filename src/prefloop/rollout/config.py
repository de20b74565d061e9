"""Config of `sample`."""

from __future__ import annotations

from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveInt

from prefloop.config import Section


class SampleConfig(Section):
    """Sample responses of a policy to prompts, as JSON Lines."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: str
    """Policy: model directory or run."""
    prompts: str
    """File with the prompts (PATH)."""
    out: str
    """File to write: one object a response, with prompt, response and finish_reason."""
    num_samples: PositiveInt = 1
    """Responses to each prompt."""
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
