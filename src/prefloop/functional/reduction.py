"""How per-token losses become one number. Torch-free: the settings of an algorithm name it."""

from __future__ import annotations

from typing import Literal

Reduction = Literal["token", "sequence", "response", "constant"]
"""What a step's loss is averaged over; `losses.loss_denominator` says what each divides by."""
