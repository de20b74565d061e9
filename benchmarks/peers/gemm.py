"""Peak rate of matrix products on this machine: the physical limit that shares are shares of."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

SHAPES = ((2048, 2048, 2048), (4096, 1536, 512), (4096, 512, 1536))
"""Rows, columns and inner width: a large square, and the MLP of the big model."""


def peak_gflops(dtype: torch.dtype, clock: Callable[[], float], *, rounds: int = 3) -> float:
    """GFLOP/s of the fastest shape, each the median of some rounds."""
    return max(statistics.median(_rates(*shape, dtype, clock, rounds)) for shape in SHAPES)


def _rates(
    rows: int, columns: int, inner: int, dtype: torch.dtype, clock: Callable[[], float], rounds: int
) -> list[float]:
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    product = torch.empty(rows, columns, dtype=dtype)
    torch.mm(left, right, out=product)
    flops = 2 * rows * columns * inner
    repeats = max(1, int(1e10 / flops))
    rates = []
    for _ in range(rounds):
        start = clock()
        for _ in range(repeats):
            torch.mm(left, right, out=product)
        rates.append(flops * repeats / (clock() - start) / 1e9)
    return rates
