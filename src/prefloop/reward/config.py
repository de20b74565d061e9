"""Configs of the reward commands."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from prefloop.config import Section


class RewardEvalConfig(Section):
    """Accuracy of a reward model on preference pairs, beside its baselines."""

    model: str
    """Reward model directory or run, or file.py:function."""
    data: str
    """File with preference pairs that the model did not see."""
    skip_bad: bool = False
    """Leave unusable rows out (they are counted and named) instead of stopping."""
    num_resamples: PositiveInt = 2000
    """Bootstrap resamples of conversations behind the interval."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Seed of the bootstrap and of the shuffled prompts."""


class RewardScoreConfig(Section):
    """Score responses, as JSON Lines."""

    model: str
    """Reward model directory or run, or file.py:function."""
    data: str
    """File with prompt and response (as `sample` writes), or prompt and completion."""
    out: str
    """File to write: the input rows with a score added."""
