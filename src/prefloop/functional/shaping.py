"""Scores of whole responses -> the scores that are optimised: clipping, whitening, centring, penalties.

All tensors are `[B]`, one element a response, unless said otherwise; lengths count response tokens, the stop token
included. Penalties are answered as what is added to a score, so they are never positive. In which order the functions
apply is said in one place, `reward/shaping.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prefloop.functional.masked import whiten


def clip_scores(scores: Tensor, *, limit: float) -> Tensor:
    """Cut scores off at +- `limit`: min(max(r, -limit), limit).

    It bounds what a single error of a reward model can pay; Engstrom et al. (2020) name it among the details of PPO,
    where rewards are clipped to +-5 or +-10. Any shape.
    """
    assert limit > 0
    return scores.clamp(-limit, limit)


def whiten_scores(scores: Tensor, counted: Tensor, *, keep_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Scale scores to variance 1 over the batch, the mean kept or removed.

        (r - mean) / sqrt(variance + eps) + mean        (without the last term if not keep_mean)

    The biased variance, as lm-human-preferences (Ziegler et al. 2019) whitens: rewards keep their mean, because it is
    what a value model learns; advantages lose it. `counted` [B] bool: the responses that mean and variance are taken
    over. The others are left as they are.
    """
    return torch.where(counted, whiten(scores, counted, shift_mean=not keep_mean, eps=eps), scores)


def sigmoid_against_reference(scores: Tensor, reference_scores: Tensor) -> Tensor:
    """How probably a response is preferred to one of the reference policy, by the reward model's own account.

        r'_i = 1/M sum_m sigmoid(r_i - r_ref_im)

    PAR, Fu et al. (2025), "Reward shaping to mitigate reward hacking in RLHF". In (0, 1): steep around the reference's
    level, flat far above it, so that ever higher scores pay ever less. `scores` [B], `reference_scores` [B, M]: scores
    of M responses of the reference to the same prompt; answers [B].
    """
    assert reference_scores.shape[:1] == scores.shape and reference_scores.dim() == 2 and reference_scores.shape[1] > 0
    return torch.sigmoid(scores.unsqueeze(1) - reference_scores).mean(dim=1)


def length_penalty(lengths: Tensor, *, coef: float, free_length: int = 0) -> Tensor:
    """A fixed price for each token above a free length: -coef max(0, |y| - free_length).

    Linear in the length, as what Singhal et al. (2023), "A long way to go", try against length bias; they charge every
    token and scale by the deviation of scores. `lengths` [B] int64.
    """
    return -coef * (lengths - free_length).clamp(min=0)


def soft_overlong_penalty(lengths: Tensor, *, max_length: int, cache: int) -> Tensor:
    """Nothing up to `max_length - cache` tokens, then linearly down to -1 at `max_length`, and -1 beyond.

        0                                   |y| <= L_max - L_cache
        ((L_max - L_cache) - |y|) / L_cache      between
        -1                                  |y| > L_max

    Soft overlong punishment of DAPO, Yu et al. (2025), equation 13. `lengths` [B] int64.
    """
    assert 0 < cache <= max_length
    return ((max_length - cache - lengths) / cache).clamp(-1.0, 0.0)


def missing_eos_penalty(scores: Tensor, finished: Tensor, *, penalty: float = -1.0) -> Tensor:
    """The fixed score `penalty` for responses without an end (`finished` [B] False), whatever the scorer said of them.

    lm-human-preferences (Ziegler et al. 2019) and Huang et al. (2024), "The N+ implementation details of RLHF with
    PPO", detail "EOS trick": -1.
    """
    return torch.where(finished, scores, penalty)
