"""The GPU script on a CPU: it runs whole, and its floor is the bytes that a step must read."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from prefloop.models.decoder import InferenceWeights

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.gpu")


def test_it_runs_whole(gpu, capsys):
    gpu.main(["--device", "cpu", "--quick"])
    printed = capsys.readouterr().out
    assert "GEMM peak" in printed and "share of the floor" in printed


def test_the_floor_is_weights_and_cache_over_the_bandwidth(gpu):
    weights = InferenceWeights(gpu.new_model("tiny", torch.device("cpu")), torch.bfloat16)
    # By hand, two layers: qkv 32 x 64, out 32 x 32, gate and up 32 x 128, down 64 x 32, norms 32 + 32 + 8 + 8.
    layer = 32 * 64 + 32 * 32 + 32 * 128 + 64 * 32 + 80
    num_bytes = 2 * (2 * layer + 512 * 32)
    cache = 2 * (3 * 100) * 2 * (2 * 2 * 8)
    assert gpu.step_floor(weights, batch=3, context=100, bandwidth=1.0) == num_bytes + cache


def test_without_a_gpu_it_says_so(gpu, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "no CUDA device here" in capsys.readouterr().err
