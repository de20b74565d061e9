"""Losses on preferences: DPO and its family on pairs, KTO on single responses with a label.

All see a response through its log ratio, log(pi(y|x) / ref(y|x)) in nats: summed over the tokens of the response, or
averaged over them where a loss is to be blind to length (`log_ratio`). beta times the summed log ratio is the implicit
reward. As in `losses.py` a loss is a sum over a micro-batch divided by the denominator of the whole optimiser step, and
so is each metric: micro-batches add up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prefloop.functional.batch import LossOutput


def log_ratio(logprobs: Tensor, ref_logprobs: Tensor, lengths: Tensor | None = None) -> Tensor:
    """log(pi(y|x) / ref(y|x)) of whole responses, per token if their `lengths` (in tokens) are given. All [B].

    Log-probabilities are sums over the response; `ref_logprobs` carry no gradient.
    """
    ratio = logprobs - ref_logprobs
    return ratio if lengths is None else ratio / lengths


def dpo_loss(
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
    denominator: Tensor | float,
) -> LossOutput:
    """Direct preference optimisation, Rafailov et al. (2023), equation 7; label smoothing as in Mitchell's cDPO (2023).

        m = beta (log_ratio(chosen) - log_ratio(rejected))
        L = w (-(1 - label_smoothing) log sigmoid(m) - label_smoothing log sigmoid(-m))

    Log ratios and `weights` [B]. `denominator`: the sum of the weights over the whole step (the number of pairs if
    there are none), > 0. Metrics: `preference/loss`; `preference/accuracy`, a tie counts one half; `preference/margin`,
    mean m; `preference/chosen_reward` and `preference/rejected_reward`, the implicit rewards beta log_ratio.
    """
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    per_pair = -(1.0 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    return _pair_output(per_pair, chosen_log_ratio, rejected_log_ratio, beta, weights, denominator)


def robust_dpo_loss(
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    *,
    beta: float,
    label_smoothing: float,
    weights: Tensor | None = None,
    denominator: Tensor | float,
) -> LossOutput:
    """Robust DPO, Chowdhury et al. (2024): over labels swapped at random with probability e its mean is the DPO loss.

        L = w ((1 - e) l(m) - e l(-m)) / (1 - 2 e),    l(m) = -log sigmoid(m),    e = label_smoothing < 1/2

    Margin m, shapes, `denominator` and metrics as in `dpo_loss`. Unlike DPO's, the loss of a pair may be negative.
    """
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    as_labelled, swapped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
    per_pair = ((1.0 - label_smoothing) * as_labelled - label_smoothing * swapped) / (1.0 - 2.0 * label_smoothing)
    return _pair_output(per_pair, chosen_log_ratio, rejected_log_ratio, beta, weights, denominator)


def ipo_loss(
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    *,
    beta: float,
    weights: Tensor | None = None,
    denominator: Tensor | float,
) -> LossOutput:
    """Identity preference optimisation, Azar et al. (2024), equation 17 (their tau is beta).

        L = w (log_ratio(chosen) - log_ratio(rejected) - 1 / (2 beta))^2

    A gap of 1 / (2 beta) nats is wanted and no more, so that no pair pulls for ever: nats per response with summed log
    ratios, nats per token with averaged ones. Shapes, `denominator` and metrics as in `dpo_loss`.
    """
    per_pair = (chosen_log_ratio - rejected_log_ratio - 0.5 / beta).square()
    return _pair_output(per_pair, chosen_log_ratio, rejected_log_ratio, beta, weights, denominator)


def kto_reference_point(mismatched_log_ratio: Tensor, weights: Tensor) -> Tensor:
    """z0 of Ethayarajh et al. (2024), section 4: max(0, mean log ratio of responses put to prompts not their own).

    Both [N], all rows of one optimiser step: z0 of a micro-batch would be another one. Answers a scalar without
    gradient, in nats. It stands for KL(pi || ref), but the responses are the data's, not the policy's: a biased
    estimate, for the price of a forward pass and no sampling.
    """
    return ((weights * mismatched_log_ratio).sum() / weights.sum()).clamp(min=0.0).detach()


def kto_loss(
    log_ratios: Tensor,
    desirable: Tensor,
    *,
    reference_point: Tensor | float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    weights: Tensor,
    denominators: tuple[float, float],
) -> LossOutput:
    """Kahneman-Tversky optimisation, Ethayarajh et al. (2024), L_KTO of section 4.

        L = w lambda_D (1 - sigmoid(beta (log_ratio - z0)))    for a desirable response
        L = w lambda_U (1 - sigmoid(beta (z0 - log_ratio)))    for an undesirable one

    `log_ratios`, `desirable` (bool), `weights` [B]; z0 is `kto_reference_point` of the whole step, lambda the two
    coefficients. `denominators`: the summed weights of the step's desirable and of its undesirable responses; the loss
    is divided by both together. Metrics: `preference/loss`; `preference/accuracy`, the share of responses on the right
    side of z0; `preference/reference_point`, z0 in nats; `preference/chosen_reward`, `preference/rejected_reward`,
    the implicit rewards of desirable and undesirable responses, and `preference/margin`, their difference. What
    the step has no response of is left out.
    """
    gain = beta * (log_ratios - reference_point)
    gain = torch.where(desirable, gain, -gain)
    missed = torch.sigmoid(-gain)
    denominator = sum(denominators)
    per_response = torch.where(desirable, desirable_weight * missed, undesirable_weight * missed)
    loss = (weights * per_response).sum() / denominator
    with torch.no_grad():
        metrics = {
            "preference/loss": loss.detach(),
            "preference/accuracy": (weights * _ordered(gain)).sum() / denominator,
            "preference/reference_point": (weights * reference_point).sum() / denominator,
        }
        reward = beta * weights * log_ratios
        for name, kind, total in zip(("chosen", "rejected"), (desirable, ~desirable), denominators, strict=True):
            if total > 0:
                metrics[f"preference/{name}_reward"] = torch.where(kind, reward, 0.0).sum() / total
        if min(denominators) > 0:
            metrics["preference/margin"] = metrics["preference/chosen_reward"] - metrics["preference/rejected_reward"]
    return LossOutput(loss, metrics)


def _pair_output(
    per_pair: Tensor,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    beta: float,
    weights: Tensor | None,
    denominator: Tensor | float,
) -> LossOutput:
    """The loss of pairs, and the metrics that all losses of pairs have."""

    def reduce(per_pair: Tensor) -> Tensor:
        return (per_pair if weights is None else weights * per_pair).sum() / denominator

    loss = reduce(per_pair)
    with torch.no_grad():
        margin = beta * (chosen_log_ratio - rejected_log_ratio)
        metrics = {
            "preference/loss": loss.detach(),
            "preference/accuracy": reduce(_ordered(margin)),
            "preference/margin": reduce(margin),
            "preference/chosen_reward": reduce(beta * chosen_log_ratio),
            "preference/rejected_reward": reduce(beta * rejected_log_ratio),
        }
    return LossOutput(loss, metrics)


def _ordered(margin: Tensor) -> Tensor:
    """1 where the order is right, 1/2 at a tie, 0 where it is wrong."""
    return 0.5 * (margin.sign() + 1.0)
