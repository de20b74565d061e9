"""From reports to the table: FLOPs and ratios by hand, and the shape that the interfaces promise."""

from __future__ import annotations

import pytest
from benchmarks.peers.figures import differences, entries_table, entry, useful_flops
from benchmarks.testbed import SIZES, Size

# Two layers of width 4: 2 x (4 x 16 for attention, 3 x 4 x 12 for the MLP) = 416 weights; head 4096 x 4 = 16384.
TINY = Size(hidden=4, layers=2, heads=1)
PROMISED = {
    *("job", "size", "regime", "peer", "dtype", "threads", "seconds_per_step", "peer_seconds_per_step"),
    *("ratio", "share_of_peak", "memory_ratio", "max_loss_difference"),
}


def test_counts_weights() -> None:
    assert (TINY.body_weights, TINY.head_weights) == (416, 16384)
    # 4 layers x 13 x 256^2, and 8 layers x 13 x 512^2.
    assert SIZES["small"].body_weights == 3_407_872
    assert SIZES["big"].body_weights == 27_262_976


@pytest.mark.parametrize(
    ("job", "wanted"),
    [
        # 10 prompt and 5 response tokens: 15 x 416 = 6240 in the body, 5 x 16384 = 81920 in the head.
        ("sft", 6 * 88_160),
        ("reward", 6 * 6_240),
        ("dpo", 8 * 88_160),
        ("generation", 2 * 88_160),
        ("grpo", 10 * 88_160),
        ("rloo", 10 * 88_160),
        # Sampling 2, reference 2, four updates of 6; value and reward model likewise, without a head.
        ("ppo", 28 * 88_160 + 28 * 6_240),
    ],
)
def test_flops_by_hand(job: str, wanted: int) -> None:
    assert useful_flops(job, TINY, prompts=10, responses=5) == wanted


def test_ppo_costs_56_a_weight_and_token_where_the_head_is_nothing() -> None:
    long = Size(hidden=4096, layers=1000, heads=1)
    tokens, weights = 300, long.body_weights
    assert useful_flops("ppo", long, prompts=100, responses=200) == pytest.approx(56 * tokens * weights, rel=1e-3)


def report(seconds: float, tokens: int, *, mib: float, prompts: int = 10, responses: int = 5) -> dict[str, float]:
    return {"seconds": seconds, "tokens": tokens, "prompts": prompts, "responses": responses, "peak_mib": mib}


CASE = {"job": "generation", "size": "small", "regime": "fixed", "peer": "default", "dtype": "fp32", "threads": 1}


def test_ratio_is_of_seconds_for_each_useful_token() -> None:
    ours = [report(1.0, 100, mib=50), report(2.0, 100, mib=60), report(9.0, 100, mib=60)]
    # Twice the tokens in thrice the time: 0.03 s a token against 0.02.
    peer = [report(6.0, 200, mib=120), report(6.0, 200, mib=110), report(60.0, 200, mib=110)]
    found = entry(case=CASE, size=TINY, ours=ours, peer=peer, peak_gflops=1e-3, same={"loss": 1e-7, "grad_norm": None})
    assert found["ratio"] == pytest.approx(1.5)
    assert found["seconds_per_step"] == pytest.approx(2.0)
    assert found["peer_seconds_per_step"] == pytest.approx(3.0)
    assert found["tokens_per_second"] == pytest.approx(50)
    assert found["memory_ratio"] == pytest.approx(0.5)
    # The median step: 2 x 88,160 FLOPs in 2 s, of 10^6 a second.
    assert found["share_of_peak"] == pytest.approx(0.08816)
    assert found.keys() >= PROMISED


def test_table_has_a_line_for_each_entry() -> None:
    steps = [report(2.0, 100, mib=50)]
    found = entry(case=CASE, size=TINY, ours=steps, peer=steps, peak_gflops=1.0, same={"loss": None})
    assert entries_table([found, found]).splitlines()[2].startswith("| generation | small | fixed | default | 2.00 |")
    assert len(entries_table([found, found]).splitlines()) == 4


def test_differences_are_of_what_both_say() -> None:
    ours = {"loss": 2.5, "grad_norm": 1.01}
    assert differences(ours, {"loss": 2.0, "grad_norm": 1.0}) == {"loss": 0.5, "grad_norm": pytest.approx(0.01)}
    assert differences(ours, {"grad_norm": 1.0})["loss"] is None
