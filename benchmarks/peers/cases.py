"""What one measured process is told: the job and its settings, as JSON on the command line. Standard library only."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Any

JOBS = ("sft", "reward", "dpo", "grpo", "rloo", "ppo", "generation")
OFFLINE = ("sft", "reward", "dpo")
BATCH = 32
"""Rows, pairs or rollouts of a step."""
GROUP = 4
"""Rollouts of a prompt in GRPO and RLOO."""
GENERATED = 128
"""Responses of a step of the job "generation": four to each of 32 prompts."""
PPO_EPOCHS = 4
"""Both libraries' default."""
KL_COEF = 0.05
LEARNING_RATE = 1e-5


@dataclass(frozen=True)
class Case:
    """One job on one size of model."""

    job: str
    size: str
    regime: str
    dtype: str
    threads: int
    num_steps: int
    """Steps that the data must last for, the warm-up included."""
    testbed: str
    order: tuple[int, ...] = ()
    """For peers: the rows of the data file in the order that prefloop takes them."""
    batch: int = BATCH
    new_tokens: int = 64
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """For peers: what `grid` varies."""

    @property
    def group(self) -> int:
        """Rollouts of a prompt."""
        return GROUP if self.job in ("grpo", "rloo", "generation") else 1

    def words(self) -> str:
        """For the command line."""
        return json.dumps(dataclasses.asdict(self))


def told() -> Case:
    """The case that this process was started with."""
    fields = json.loads(sys.argv[1])
    return Case(**{**fields, "order": tuple(fields["order"])})
