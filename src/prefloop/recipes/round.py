"""`round run`: one whole round of preference tuning."""

from __future__ import annotations

from typing import Any

from prefloop.recipes.round_config import RoundConfig


def run(config: RoundConfig, *, look_up_audits: bool = True) -> dict[str, Any]:
    """The command `round run` (look_up_audits: audits of the pairs bind).

    The policy's run is `answer["policy"]["run"]`, the retrained reward model's `answer["reward"]["run"]`.
    """
    raise NotImplementedError
