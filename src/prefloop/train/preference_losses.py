"""Losses of `train preference`: each a config section with its settings and one method. Adding one = a class and a line
in LOSSES.

This module must import without torch (help and validation do); methods import `functional` when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field, PositiveFloat

from prefloop.config import Section, unknown_name
from prefloop.types import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from prefloop.functional.batch import LossOutput


class PreferenceLoss(Section):
    """What every preference loss has."""

    model_config = ConfigDict(allow_inf_nan=False)

    beta: PositiveFloat = 0.1
    """Strength of the pull towards the reference."""


class PairLoss(PreferenceLoss):
    """A loss of preference pairs."""

    @property
    def per_token(self) -> bool:
        """Whether log ratios are averaged over the tokens of a response instead of summed."""
        return False

    def loss(self, chosen: Tensor, rejected: Tensor, *, weights: Tensor, denominator: Tensor) -> LossOutput:
        """Loss of a micro-batch, from the log ratios [B] of its pairs; `denominator` is the whole optimiser step's."""
        raise NotImplementedError


class DPO(PairLoss):
    """Direct preference optimisation."""

    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Assumed share of wrong labels; above 0 the loss is conservative DPO (cDPO)."""

    def loss(self, chosen: Tensor, rejected: Tensor, *, weights: Tensor, denominator: Tensor) -> LossOutput:
        """Equation 7 of the DPO paper, on labels smoothed as in cDPO."""
        from prefloop.functional.preference import dpo_loss

        return dpo_loss(
            chosen,
            rejected,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            weights=weights,
            denominator=denominator,
        )


class IPO(PairLoss):
    """Identity preference optimisation: a wanted gap between the two log ratios instead of an ever larger one."""

    length_averaged: bool = True
    """Average log ratios over the tokens of a response, so that the wanted gap is 1 / (2 beta) nats per token; off: sum
    them, so that it is per response."""

    @property
    def per_token(self) -> bool:
        """As the setting says."""
        return self.length_averaged

    def loss(self, chosen: Tensor, rejected: Tensor, *, weights: Tensor, denominator: Tensor) -> LossOutput:
        """Equation 17 of the IPO paper."""
        from prefloop.functional.preference import ipo_loss

        return ipo_loss(chosen, rejected, beta=self.beta, weights=weights, denominator=denominator)


class RobustDPO(PairLoss):
    """DPO corrected for a known share of swapped labels: without bias, at the price of more variance."""

    label_smoothing: float = Field(0.1, ge=0, lt=0.5)
    """Assumed share of wrong labels."""

    def loss(self, chosen: Tensor, rejected: Tensor, *, weights: Tensor, denominator: Tensor) -> LossOutput:
        """The unbiased loss of the robust DPO paper."""
        from prefloop.functional.preference import robust_dpo_loss

        return robust_dpo_loss(
            chosen,
            rejected,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            weights=weights,
            denominator=denominator,
        )


class KTO(PreferenceLoss):
    """Kahneman-Tversky optimisation: single responses, each labelled desirable or not, against a reference point."""

    desirable_weight: PositiveFloat = 1.0
    """Weight of the loss of desirable responses."""
    undesirable_weight: PositiveFloat = 1.0
    """Weight of the loss of undesirable responses."""

    def loss(
        self,
        log_ratios: Tensor,
        desirable: Tensor,
        *,
        reference_point: Tensor,
        weights: Tensor,
        denominators: tuple[float, float],
    ) -> LossOutput:
        """L_KTO of a micro-batch; reference point and denominators are the whole step's."""
        from prefloop.functional.preference import kto_loss

        return kto_loss(
            log_ratios,
            desirable,
            reference_point=reference_point,
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
            weights=weights,
            denominators=denominators,
        )


LOSSES: dict[str, type[PairLoss] | type[KTO]] = {"dpo": DPO, "ipo": IPO, "robust": RobustDPO, "kto": KTO}


def loss_settings(name: str) -> type[PairLoss] | type[KTO]:
    """The class of a loss. Raises InputError for an unknown name."""
    if name not in LOSSES:
        remedy = unknown_name(name, LOSSES)
        if name == "cdpo":
            remedy = "conservative DPO is dpo with --settings.label-smoothing above 0"
        raise InputError(f"unknown loss {name!r}", field="loss", remedy=remedy)
    return LOSSES[name]
