"""From what the processes report to the numbers of the table: useful tokens, useful FLOPs, ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from benchmarks.options import table
from benchmarks.peers.cases import PPO_EPOCHS
from benchmarks.testbed import Size

Report = Mapping[str, float]
Entry = dict[str, Any]

FORWARD, BACKWARD = 2, 4
"""FLOPs for each weight and token: a product with the weights; one with their transpose, and one for their gradient."""
TRAIN = FORWARD + BACKWARD


def useful_flops(job: str, size: Size, *, prompts: float, responses: float) -> float:
    """The least that a step costs in products with weights.

    `prompts` are the tokens of its distinct prompts (each counts once for the responses that share it), `responses`
    those of its responses. The head counts for response tokens only. Products of attention are left out: they are one
    or two hundredths at these lengths.

    SFT 6N. Reward model 6 x body. DPO 8N, a forward of the reference included. Generation 2N. GRPO and RLOO 10N:
    sampling, reference, update. PPO 2N each for sampling and reference, 2 x body each for reward model and values, and
    a policy and a value update an epoch: 56N at 4 epochs, less the head where there is none.
    """
    body = size.body_weights * (prompts + responses)
    policy = body + size.head_weights * responses
    match job:
        case "sft":
            return TRAIN * policy
        case "reward":
            return TRAIN * body
        case "dpo":
            return (FORWARD + TRAIN) * policy
        case "generation":
            return FORWARD * policy
        case "grpo" | "rloo":
            return (2 * FORWARD + TRAIN) * policy
        case "ppo":
            return (2 * FORWARD + PPO_EPOCHS * TRAIN) * policy + (2 * FORWARD + PPO_EPOCHS * TRAIN) * body
        case _:
            raise AssertionError(job)


def seconds_per_token(reports: Sequence[Report]) -> float:
    """Median over the steps of seconds for each useful token."""
    return median(report["seconds"] / report["tokens"] for report in reports)


def entry(
    *,
    case: Mapping[str, Any],
    size: Size,
    ours: Sequence[Report],
    peer: Sequence[Report],
    peak_gflops: float,
    same: Mapping[str, float | None],
) -> Entry:
    """One line of the answer. `case`: `job`, `size`, `regime`, `peer`, `dtype`, `threads` and what else to say of it.

    Where lengths are sampled or rows grouped, the two sides' steps do not have the same tokens. Seconds a step are
    those of a step with as many useful tokens as prefloop's have on average.
    """
    tokens = fmean(report["tokens"] for report in ours)
    mine, theirs = seconds_per_token(ours), seconds_per_token(peer)
    rates = [
        useful_flops(case["job"], size, prompts=report["prompts"], responses=report["responses"]) / report["seconds"]
        for report in ours
    ]
    memory, peer_memory = (max(report["peak_mib"] for report in reports) for reports in (ours, peer))
    return {
        **case,
        "seconds_per_step": mine * tokens,
        "peer_seconds_per_step": theirs * tokens,
        "ratio": theirs / mine,
        "share_of_peak": median(rates) / 1e9 / peak_gflops,
        "memory_ratio": memory / peer_memory,
        "max_loss_difference": same.get("loss"),
        "max_gradient_norm_difference": same.get("grad_norm"),
        "tokens_per_second": 1 / mine,
        "peer_tokens_per_second": 1 / theirs,
        "peak_mib": memory,
        "peer_peak_mib": peer_memory,
        "gemm_gflops": peak_gflops,
        "steps": len(ours),
    }


def differences(ours: Report, peer: Report) -> dict[str, float | None]:
    """How far loss, and the gradient's norm relative to itself, are apart; None where a side does not say it."""
    found: dict[str, float | None] = {"loss": None, "grad_norm": None}
    if "loss" in ours and "loss" in peer:
        found["loss"] = abs(ours["loss"] - peer["loss"])
    if "grad_norm" in ours and "grad_norm" in peer:
        found["grad_norm"] = abs(ours["grad_norm"] / peer["grad_norm"] - 1)
    return found


HEADER = (
    *("job", "size", "regime", "TRL", "s a step", "TRL's", "useful tokens/s", "TRL's", "ratio", "of GEMM peak"),
    *("memory", "loss differs", "gradient norm"),
)


def entries_table(entries: Sequence[Entry]) -> str:
    """For people."""
    return table(HEADER, [_cells(each) for each in entries])


def _cells(each: Entry) -> list[str]:
    def small(value: float | None) -> str:
        return "" if value is None else f"{value:.0e}"

    return [
        each["job"],
        each["size"],
        each["regime"],
        each["peer"],
        f"{each['seconds_per_step']:.2f}",
        f"{each['peer_seconds_per_step']:.2f}",
        f"{each['tokens_per_second']:.0f}",
        f"{each['peer_tokens_per_second']:.0f}",
        f"{each['ratio']:.2f}",
        f"{100 * each['share_of_peak']:.0f} %",
        f"{each['memory_ratio']:.2f}",
        small(each["max_loss_difference"]),
        small(each["max_gradient_norm_difference"]),
    ]
