"""Settings of what is measured of a policy run's stored responses beside their scores. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, model_validator

from prefloop.config import Section


class ExamineConfig(Section):
    """What is measured of the stored responses beside their scores, for the monitor."""

    held_out: bool = True
    """Score them with eval_reward in every step, where there is one."""
    shuffled_prompts: Literal["models", "always", "never"] = "models"
    """Score them under other prompts of the step: always, never, or where reward models
    on this machine are all that is asked (models)."""
    known_data: tuple[str, ...] = ()
    """Pairs that the reward model knows, for the distance of responses from them; by default those that its run was
    trained on."""
    known_pairs: NonNegativeInt = 256
    """Of these pairs so many are looked at, drawn at random; 0: no distance."""
    far_share: float = Field(0.05, gt=0, lt=0.5)
    """Share of held-out known responses that count as out of distribution: sets the limit of the distance."""

    @model_validator(mode="after")
    def _distance(self) -> ExamineConfig:
        if self.known_data and not self.known_pairs:
            raise ValueError("known_data has no effect with known_pairs 0; leave one of them out")
        return self
