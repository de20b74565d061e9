"""Config of `train policy`: that of the loop, and the monitor's."""

from __future__ import annotations

from typing import Any, cast

from pydantic import Field, create_model

from prefloop.monitor.config import TrainingMonitor
from prefloop.train.config import PolicyConfig, policy_config


def watched_policy_config(algorithm: str | None) -> type[PolicyConfig]:
    """The config class of one algorithm, with the section `monitor`."""
    base = policy_config(algorithm)
    monitor = Field(default=TrainingMonitor(), description="Alarms on what the policy writes.")
    made: Any = create_model("PolicyConfig", __base__=base, __doc__=base.__doc__, monitor=(TrainingMonitor, monitor))
    return cast("type[PolicyConfig]", made)
