"""Divergence of the policy from the reference: per-token estimates, the exact value, the adaptive coefficient.

Everything is KL(policy || reference) in nats, estimated on tokens that the policy itself sampled. The sum of `k1` over
a response is the unbiased estimate of the sequence KL; the exact one at the visited positions has the same expectation
and a far lower variance.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """The log ratio itself, k1 = log pi - log ref. Unbiased; may be negative and must not be clamped.

    Schulman (2020), "Approximating KL divergence". Any shape, element by element. Its place is in the reward: as a loss
    its gradient is 0 in expectation.
    """
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """k2 = k1^2 / 2: biased as a value, but on-policy its gradient is that of the per-token KL at visited positions.

    Schulman (2020). Any shape, element by element.
    """
    return 0.5 * k1(logprobs, ref_logprobs).square()


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """k3 = ref / pi - 1 + k1 >= 0: unbiased as a value, of lower variance than k1; its gradient is biased.

    Schulman (2020). Any shape, element by element.
    """
    log_ratio = k1(logprobs, ref_logprobs)
    return torch.expm1(-log_ratio) + log_ratio


def kl_and_entropy(logprobs: Tensor, ref_logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """Exact KL(policy || reference), sum_v p_v (log p_v - log q_v), and the entropy -sum_v p_v log p_v, in nats,
    at each position, with 0 log 0 = 0.

    `logprobs`, `ref_logprobs` [N, V] as `log_softmax` gives them; answers [N] each. The KL is infinite where the policy
    allows a token that the reference rules out.
    """
    probs = logprobs.exp()
    kl, entropies = (probs * (logprobs - ref_logprobs)).sum(dim=-1), -(probs * logprobs).sum(dim=-1)
    if bool((kl + entropies).isnan().any()):
        # Some token cannot occur. Looking for those always would double the passes over the vocabulary.
        impossible = probs == 0
        kl = (probs * (logprobs - ref_logprobs).masked_fill(impossible, 0.0)).sum(dim=-1)
        entropies = -(probs * logprobs.masked_fill(impossible, 0.0)).sum(dim=-1)
    return kl, entropies


def adapt_kl_coef(coef: float, *, kl: float, target: float, num_episodes: int, horizon: float) -> float:
    """One step of the log-space proportional controller of Ziegler et al. (2019), section 2.2.

        e = clip(kl / target - 1, -0.2, 0.2);    coef <- coef (1 + e num_episodes / horizon)

    `kl` and `target` are mean sequence KLs in nats per response, `num_episodes` the responses since the last step,
    `horizon` in episodes (the paper's K_beta is num_episodes / horizon). A horizon of num_episodes / 5 or less could
    turn the coefficient negative and is a caller's bug.
    """
    assert target > 0 and 5 * horizon > num_episodes
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return coef * (1.0 + error * num_episodes / horizon)
