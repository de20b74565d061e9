"""Two heads on one trunk, one of which is to carry the length: ODIN, Chen et al. (2024), section 3.

The heads are trained as one reward, quality + length. Correlations with the length push what follows from length alone
into the second head, which is thrown away afterwards. A correlation is a property of many responses: it is taken over
all responses of the optimiser step, never over a micro-batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def correlation(values: Tensor, others: Tensor, weights: Tensor) -> Tensor:
    """Pearson's correlation of two [N] under weights [N], a scalar; 0 where one of them has no spread.

    Differentiable in both.
    """
    share = weights / weights.sum()
    first = values - (share * values).sum()
    second = others - (share * others).sum()
    covariance = (share * first * second).sum()
    scale = (share * first.square()).sum() * (share * second.square()).sum()
    # Chosen before the division: the gradient of a quotient by nothing would be one too.
    spread = scale > torch.finfo(values.dtype).tiny
    return torch.where(spread, covariance, 0.0) / torch.where(spread, scale, 1.0).sqrt()


def length_penalty(quality: Tensor, length_scores: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
    """|rho(quality, length)| - rho(length head, length), from -1 (all length in its head) to 2; equation 4.

    Scores of the two heads, lengths in tokens and weights, [N] responses of a whole step.
    """
    lengths = lengths.to(quality.dtype)
    return correlation(quality, lengths, weights).abs() - correlation(length_scores, lengths, weights)


def head_overlap(heads: Tensor) -> Tensor:
    """|cos(w_quality, w_length)|, 0 to 1, of two heads [2, d]: 0 where they read orthogonal directions; equation 5.

    The paper normalises the weights before the product, so this is the cosine.
    """
    assert heads.ndim == 2 and heads.shape[0] == 2, heads.shape
    return F.cosine_similarity(heads[0], heads[1], dim=0).abs()
