"""The losses: supervised, policy, value, Bradley-Terry. Each is a sum over a micro-batch divided by a denominator.

The denominator is always that of the whole optimiser step, all micro-batches and ranks together (`loss_denominator`):
then the gradients of micro-batches add up to the gradient of the step, however it was split. A mean per micro-batch
would weigh tokens by the company they happen to be in.

Metrics are detached and divided like the loss, so they add up over micro-batches too; those ending in `_max` combine by
maximum. Coefficients (of the value loss, of an entropy bonus) belong to the caller.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from prefloop.functional.batch import LossOutput
from prefloop.functional.kl import k2, k3
from prefloop.functional.masked import masked_mean, masked_sum, zero_outside
from prefloop.functional.reduction import Reduction


def loss_denominator(response_mask: Tensor, *, reduction: Reduction, max_length: int | None = None) -> Tensor:
    """What a step's summed loss is divided by: an integer scalar tensor.

    `response_mask` [B, T] of the *whole* optimiser step. "token": its True positions (every token weighs the same);
    "sequence" and "response": rows with a response token (every response weighs the same; its loss is the mean over
    its tokens or their sum); "constant": B * max_length (Dr. GRPO, Liu et al. 2025: no dependence on the lengths at
    all; needs `max_length`).
    """
    if reduction == "token":
        return response_mask.sum()
    if reduction in ("sequence", "response"):
        return response_mask.any(dim=1).sum()
    assert reduction == "constant" and max_length is not None, "the constant reduction divides by rows * max_length"
    return torch.tensor(response_mask.shape[0] * max_length, device=response_mask.device)


def reduce_loss(
    per_token: Tensor, response_mask: Tensor, *, reduction: Reduction, denominator: Tensor | float
) -> Tensor:
    """Reduce per-token losses [B, T] to a scalar: "sequence" sums the rows' means, the others sum the tokens.

    `denominator` comes from `loss_denominator` with the same reduction. Below 1 it is taken as 1: where no token of the
    step counts it is 0, and loss and gradient are then 0.
    """
    assert reduction in get_args(Reduction)
    if reduction == "sequence":
        total = masked_mean(per_token, response_mask, dim=1).sum()
    else:
        total = masked_sum(per_token, response_mask)
    return total / _at_least_one(denominator)


def nll_loss(logprobs: Tensor, mask: Tensor, *, denominator: Tensor | float) -> LossOutput:
    """Supervised fine-tuning: -sum over masked tokens of log pi(token), per `denominator`.

    `logprobs`, `mask` [B, T]. Metric: `sft/loss`, nats per token if the denominator counts tokens.
    """
    loss = reduce_loss(-logprobs, mask, reduction="token", denominator=denominator)
    return LossOutput(loss, {"sft/loss": loss.detach()})


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    *,
    clip_range: float,
    clip_range_high: float | None = None,
    dual_clip: float | None = None,
    denominator: Tensor | float,
    reduction: Reduction = "token",
) -> LossOutput:
    """PPO's clipped surrogate, Schulman et al. (2017), equation 7, negated.

        ratio_t = pi(y_t) / pi_old(y_t)
        L = -min(ratio_t A_t, clip(ratio_t, 1 - clip_range, 1 + clip_range_high) A_t)

    `clip_range_high`: the upper side where it differs from the lower (DAPO, Yu et al. 2025, equation 8). `dual_clip` c:
    where A_t < 0 the loss is at most -c A_t, so that a token that has become far likelier does not dominate (Ye et al.
    2020, equation 5). All tensors [B, T]. Metric: `policy/loss`; token sum: `policy/clip_fraction`, tokens whose
    gradient is cut off.
    """
    ratio = zero_outside(logprobs - old_logprobs, response_mask).exp()
    advantages = zero_outside(advantages, response_mask)
    high = clip_range if clip_range_high is None else clip_range_high
    unclipped = -ratio * advantages
    clipped = -ratio.clamp(1.0 - clip_range, 1.0 + high) * advantages
    per_token, cut_off = torch.maximum(unclipped, clipped), clipped > unclipped
    if dual_clip is not None:
        ceiling = torch.where(advantages < 0, -dual_clip * advantages, torch.inf)
        per_token, cut_off = torch.minimum(per_token, ceiling), cut_off | (per_token > ceiling)
    loss = reduce_loss(per_token, response_mask, reduction=reduction, denominator=denominator)
    clip_fraction = masked_sum(cut_off.to(ratio.dtype), response_mask)
    return LossOutput(loss, {"policy/loss": loss.detach()}, {"policy/clip_fraction": clip_fraction})


def sequence_ratio_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    *,
    clip_range: float,
    clip_range_high: float,
    denominator: Tensor | float,
) -> LossOutput:
    """GSPO: one ratio a response, the geometric mean of its tokens' ratios, Zheng et al. (2025), equations 5 to 7.

        s = exp(1/|y| sum_t log(pi(y_t) / pi_old(y_t)))
        L = -min(s A, clip(s, 1 - clip_range, 1 + clip_range_high) A)

    Tensors [B, T], the advantage of a row the same on all its tokens; summed over rows, so `denominator` is that of the
    "sequence" reduction. Metric: `policy/loss`; token sum: `policy/clip_fraction`, tokens of responses cut off.
    """
    ratio = masked_mean(logprobs - old_logprobs, response_mask, dim=1).exp()
    advantage = masked_mean(advantages, response_mask, dim=1)
    unclipped = -ratio * advantage
    clipped = -ratio.clamp(1.0 - clip_range, 1.0 + clip_range_high) * advantage
    loss = torch.maximum(unclipped, clipped).sum() / _at_least_one(denominator)
    clip_fraction = ((clipped > unclipped) * response_mask.sum(dim=1)).sum().to(ratio.dtype)
    return LossOutput(loss, {"policy/loss": loss.detach()}, {"policy/clip_fraction": clip_fraction})


def kl_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor,
    response_mask: Tensor,
    *,
    estimator: Literal["k2", "k3"],
    denominator: Tensor | float,
    reduction: Reduction = "token",
) -> LossOutput:
    """KL(policy || reference) as a loss of its own, estimated on sampled tokens.

        L = sg(ratio_t) k(log pi, log ref),    ratio_t = pi(y_t) / pi_old(y_t)

    k2: on-policy its gradient is that of the per-token KL at the visited positions (later tokens ignored); the weight
    keeps that true after the policy has moved. k3: Shao et al. (2024), equation 4; unbiased as a value, its gradient is
    biased. k1 is not offered: its gradient is 0 in expectation. All [B, T]. Metric: `kl/loss`, before any coefficient.
    """
    # Cleaned before any product: 0 (gradient from outside the mask) * NaN (a padded value) is NaN.
    ratio = zero_outside(logprobs.detach() - old_logprobs, response_mask).exp()
    logprobs, ref_logprobs = zero_outside(logprobs, response_mask), zero_outside(ref_logprobs, response_mask)
    estimate = {"k2": k2, "k3": k3}[estimator](logprobs, ref_logprobs)
    loss = reduce_loss(ratio * estimate, response_mask, reduction=reduction, denominator=denominator)
    return LossOutput(loss, {"kl/loss": loss.detach()})


@torch.no_grad()
def ratio_metrics(logprobs: Tensor, old_logprobs: Tensor, response_mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """How far the policy has moved since it sampled: the largest ratio of a token, and token sums.

    All [B, T]. Token sums: `policy/ratio_mean`; `policy/approx_kl`, k3 of KL(old || new) in nats.
    """
    ratio = zero_outside(logprobs - old_logprobs, response_mask).exp()
    return zero_outside(ratio, response_mask).amax(), {
        "policy/ratio_mean": masked_sum(ratio, response_mask),
        "policy/approx_kl": masked_sum(k3(old_logprobs, logprobs), response_mask),
    }


def policy_gradient_loss(
    logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    *,
    denominator: Tensor | float,
    reduction: Reduction = "response",
) -> LossOutput:
    """REINFORCE, Williams (1992): L = -A_t log pi(y_t), whose gradient is minus the policy gradient.

    All tensors [B, T]; the value of the loss means nothing, only its gradient does. "response" takes the
    log-probability of a response whole, as published; "sequence" divides it by its length. Metric: `policy/loss`.
    """
    # Cleaned before the product: 0 (gradient from outside the mask) * NaN (a padded advantage) is NaN.
    per_token = -zero_outside(advantages, response_mask) * zero_outside(logprobs, response_mask)
    loss = reduce_loss(per_token, response_mask, reduction=reduction, denominator=denominator)
    return LossOutput(loss, {"policy/loss": loss.detach()})


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    response_mask: Tensor,
    *,
    clip_range: float,
    denominator: Tensor | float,
) -> LossOutput:
    """Squared error of the value model, pessimistic about moves further than `clip_range` from the rollout's values.

        V_clip = V_old + clip(V - V_old, -clip_range, clip_range)
        L = 1/2 max((V - R)^2, (V_clip - R)^2)

    From lm-human-preferences (Ziegler et al. 2019); not in the PPO paper. All tensors [B, T], summed over tokens.
    Metrics: `value/loss`; `value/clip_fraction`, where the clipped term is the one that counts.
    """
    values = zero_outside(values, response_mask)
    old_values = zero_outside(old_values, response_mask)
    returns = zero_outside(returns, response_mask)
    near = old_values + (values - old_values).clamp(-clip_range, clip_range)
    unclipped, clipped = (values - returns).square(), (near - returns).square()

    def reduce(per_token: Tensor) -> Tensor:
        return reduce_loss(per_token, response_mask, reduction="token", denominator=denominator)

    loss = 0.5 * reduce(torch.maximum(unclipped, clipped))
    with torch.no_grad():
        clip_fraction = reduce((clipped > unclipped).to(values.dtype))
    return LossOutput(loss, {"value/loss": loss.detach(), "value/clip_fraction": clip_fraction})


def label_targets(labels: Tensor, *, label_smoothing: float = 0.0, noise_rate: float = 0.0) -> Tensor:
    """What Bradley-Terry is trained towards, [B], from P(chosen is preferred) as labelled: 1, or 1/2 for a tie.

        smoothed  t = (1 - s) p + s (1 - p)          s = label_smoothing in [0, 1/2)
        unbiased  t = (p - e) / (1 - 2 e)            e = noise_rate in [0, 1/2)

    Smoothing (Mitchell's cDPO, 2023) pulls every margin towards log((1 - s) / s) and no further. The unbiased target
    (Natarajan et al. 2013, lemma 1) lies outside [0, 1]: over labels swapped at random with probability e the mean of
    the loss is that of the true labels. A tie stays 1/2 under both.
    """
    smoothed = (1.0 - label_smoothing) * labels + label_smoothing * (1.0 - labels)
    return (smoothed - noise_rate) / (1.0 - 2.0 * noise_rate)


def bradley_terry_loss(
    chosen_scores: Tensor,
    rejected_scores: Tensor,
    *,
    targets: Tensor | float = 1.0,
    wanted_margins: Tensor | float = 0.0,
    weights: Tensor | None = None,
    centering_coef: float = 0.0,
    denominator: Tensor | float,
) -> LossOutput:
    """Reward model loss, Ouyang et al. (2022), equation 1, with optional centring, Eisenstein et al. (2023).

        l(d) = -log sigmoid(d - m)
        L = w (t l(r_chosen - r_rejected) + (1 - t) l(r_rejected - r_chosen)
               + centering_coef (r_chosen + r_rejected)^2)

    `targets` t as `label_targets` gives them; `wanted_margins` m >= 0, by which the preferred response is to be ahead
    (Llama 2, Touvron et al. 2023, equation 2). Scores, `targets`, `wanted_margins`, `weights` [B]. `denominator`: the
    sum of the weights over the whole step (the number of pairs if there are none), > 0. Metrics: `reward/loss`;
    `reward/accuracy`, a tie of the scores counts one half; `reward/margin`, in score units.
    """
    margin = chosen_scores - rejected_scores
    as_labelled = -F.logsigmoid(margin - wanted_margins)
    swapped = -F.logsigmoid(-margin - wanted_margins)
    centring = centering_coef * (chosen_scores + rejected_scores).square()
    per_pair = targets * as_labelled + (1.0 - targets) * swapped + centring
    loss = _weighted(per_pair, weights) / denominator
    with torch.no_grad():
        metrics = {
            "reward/loss": loss.detach(),
            "reward/accuracy": _weighted(_correct(margin), weights) / denominator,
            "reward/margin": _weighted(margin, weights) / denominator,
        }
    return LossOutput(loss, metrics)


def _at_least_one(denominator: Tensor | float) -> Tensor | float:
    # A float stays one: as a tensor it would be rounded to fp32.
    return denominator.clamp(min=1) if isinstance(denominator, Tensor) else max(denominator, 1)


def _weighted(per_pair: Tensor, weights: Tensor | None) -> Tensor:
    return per_pair.sum() if weights is None else (weights * per_pair).sum()


def _correct(margin: Tensor) -> Tensor:
    """1 where chosen is ahead, 1/2 at a tie, 0 where it is behind."""
    return 0.5 * (margin.sign() + 1.0)
