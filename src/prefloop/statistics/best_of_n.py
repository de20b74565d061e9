"""Best-of-n sampling from samples that exist already: what the best of n would be worth, and how far it is from one.

The best of n is the sample with the highest proxy; among equals one is taken at random.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

SAMPLES_PER_N = 10
"""n goes to a tenth of the samples: beyond that the estimates for different n are the same few samples again."""
STEPS_PER_DOUBLING = 4


def sizes_up_to(largest: int) -> NDArray[np.int64]:
    """1, ..., largest: about four a doubling, all of them below 7."""
    assert largest >= 1, largest
    steps = np.arange(math.ceil(STEPS_PER_DOUBLING * math.log2(largest)) + 1) if largest > 1 else np.zeros(1)
    sizes = np.round(2.0 ** (steps / STEPS_PER_DOUBLING)).astype(np.int64)
    return np.unique(np.append(sizes[sizes < largest], largest))


def rank_weights(num_samples: int, sizes: ArrayLike) -> Floats:
    """[K, N]: how probable it is that the i-th smallest of N samples is the largest of n of them, n in sizes [K].

    C(i-1, n-1) / C(N, n) for i >= n, drawing without replacement: no estimator without bias has less variance.
    Source: Nakano et al. (2021), "WebGPT", appendix I; Gao et al. (2022), appendix.
    """
    each = np.asarray(sizes, dtype=np.int64)[:, None]
    rank = np.arange(1, num_samples + 1)[None, :]
    assert each.min() >= 1 and each.max() <= num_samples, (each.min(), each.max(), num_samples)
    logs = _log_choose(np.maximum(rank - 1, each - 1), each - 1) - _log_choose(num_samples, each)
    weights: Floats = np.where(rank >= each, np.exp(logs), 0.0)
    return weights


def best_of_n_curve(proxy: ArrayLike, values: ArrayLike, sizes: ArrayLike) -> Floats:
    """[K]: unbiased estimates of E[value of the best of n by proxy], n in sizes, from N samples of one prompt.

    proxy, values: [N]. Samples of equal proxy share the mean of their values. With values = proxy: the proxy's own
    gain.
    """
    by, worth = np.asarray(proxy, dtype=np.float64), np.asarray(values, dtype=np.float64)
    assert by.shape == worth.shape and by.ndim == 1 and by.size, (by.shape, worth.shape)
    levels, place, counts = np.unique(by, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=worth) / counts
    assert len(levels) == len(counts)
    curve: Floats = rank_weights(len(by), sizes) @ np.repeat(means, counts)
    return curve


def kl_bound(sizes: ArrayLike) -> Floats:
    """log n - (n - 1) / n in nats: the KL of best-of-n where no answer repeats, else an upper bound of it.

    Source: Stiennon et al. (2020), appendix; that it is a bound: Beirami et al. (2024), theorem 1.
    """
    n = np.asarray(sizes, dtype=np.float64)
    bound: Floats = np.log(n) - (n - 1) / n
    return bound


def best_of_n_kl(proxy: ArrayLike, sizes: ArrayLike) -> Floats:
    """[K]: KL(best-of-n || one sample) in nats, n in sizes, for the policy that N samples of one prompt show.

    A proxy value that several samples have is one answer (or several that are chosen alike) of probability
    p = count / N; with F its cumulative probability, best-of-n gives it Q = F^n - (F - p)^n, and it adds Q log(Q / p):
    exact for a policy of finitely many answers. A value seen once stands for answers that do not repeat, and its share
    is what a continuous policy has there, the integral of n u^(n-1) log(n u^(n-1)) from F - p to F. So N different
    values give log n - (n - 1) / n, and nothing gives more.

    Source: Beirami et al. (2024), "Theoretical guarantees on the best-of-n alignment policy", section 2.
    """
    by = np.asarray(proxy, dtype=np.float64)
    assert by.ndim == 1 and by.size, by.shape
    n = np.asarray(sizes, dtype=np.float64)[:, None]
    _, counts = np.unique(by, return_counts=True)
    above = np.cumsum(counts) / len(by)
    below = np.append(0.0, above[:-1])
    share, high, low = counts / len(by), above**n, below**n
    mass = high - low
    repeated = special.xlogy(mass, mass) - special.xlogy(mass, share)
    single = np.log(n) * mass + (n - 1) / n * (special.xlogy(high, high) - special.xlogy(low, low) - mass)
    kl: Floats = np.where(counts > 1, repeated, single).sum(axis=1)
    return np.maximum(kl, 0.0)


def _log_choose(of: ArrayLike, taken: ArrayLike) -> Floats:
    total, part = np.asarray(of, dtype=np.float64), np.asarray(taken, dtype=np.float64)
    logs: Floats = special.gammaln(total + 1) - special.gammaln(part + 1) - special.gammaln(total - part + 1)
    return logs
