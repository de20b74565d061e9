"""Every algorithm from one SFT policy against one honest reward model, inside the default KL budget.

All sample the same number of responses unless the budget ends a run, so best-of-n at that cost stands beside them.
The settings were chosen on seed 0 and are reported on others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.evaluate import best_of, measured
from benchmarks.options import gain_cell, in_errors, options, publish, table
from benchmarks.start import logged, prepare, result_of, train_policy
from prefloop.recipes.measure import Measured, difference
from prefloop.recipes.stages import Bench
from prefloop.statistics.intervals import Estimate

SHARED = "--num-steps 32 --optimizer.lr 3e-4"
"""The rate is the demo's: a model from scratch wants more than the default. A step has 96 responses."""
SETTINGS = {
    "ppo": "--prompts-per-step 96 --kl-coef 0.08 --value-optimizer.lr 1e-3 --settings.num-epochs 2",
    "reinforce": "--prompts-per-step 96 --kl-coef 0.08",
    "rloo": "--prompts-per-step 24 --kl-coef 0.08",
    "reinforce_pp": "--prompts-per-step 96 --kl-coef 0.08",
    "grpo": "--prompts-per-step 12",
    "dr_grpo": "--prompts-per-step 12",
    "dapo": "--prompts-per-step 12",
    "gspo": "--prompts-per-step 12",
    "raft": "--prompts-per-step 12",
    "online_dpo": "--prompts-per-step 48",
}
"""What is typed beside `prefloop train policy --algorithm NAME` and SHARED; everything else is the default."""
QUICK = "--num-steps 2 --prompts-per-step 4"
BEST_OF = (6, 16)
"""Samples an answer. With 6 the 500 reported answers cost about what a training run samples."""
ENOUGH = 5.0
"""Standard errors of gain in true utility that every algorithm should reach."""


@dataclass(frozen=True)
class Row:
    """One policy on one seed."""

    utility: Estimate
    gain: Estimate
    """True utility minus that of the SFT policy, paired by prompt."""
    proxy: Estimate
    kl: float | None
    """Exact, nats per response; None where no policy has these probabilities."""
    num_steps: int = 0
    stopped: str = ""
    generated_tokens: float = 0.0
    """Of training; of best-of-n for its answers to the reported prompts."""
    cpu_seconds: float | None = None
    """None for a run that was interrupted, and where nothing was spent."""


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = options("algorithms", words)
    found = {seed: rows_of(prepare(flags.out, seed, quick=flags.quick), quick=flags.quick) for seed in flags.seeds}
    answer = {seed: {name: dataclasses.asdict(row) for name, row in rows.items()} for seed, rows in found.items()}
    publish(flags, {"shared": SHARED, "settings": SETTINGS, "seeds": answer}, [summary(found), verdict(found)])


def rows_of(bench: Bench, *, quick: bool) -> dict[str, Row]:
    """Train and measure everything on one seed."""
    sft = measured(bench, "sft")
    rows = {"sft": compared(sft, sft, kl=0.0)}
    for name, settings in SETTINGS.items():
        given = QUICK if quick else f"{SHARED} {settings}"
        seconds = train_policy(bench, name, "honest", f"--algorithm {name} {given}")
        steps, policy = logged(bench.stage(name)), measured(bench, name)
        rows[name] = dataclasses.replace(
            compared(policy, sft, kl=policy.kl),
            num_steps=len(steps),
            stopped=str(result_of(bench.stage(name))["stopped"]),
            generated_tokens=sum(step["tokens/generated"] for step in steps),
            cpu_seconds=seconds,
        )
    for number, stored in best_of(bench, BEST_OF).items():
        rows[f"best of {number}"] = dataclasses.replace(
            compared(Measured(stored["rows"], kl=0.0), sft, kl=None),
            generated_tokens=stored["generated_tokens"],
            cpu_seconds=stored["cpu_seconds"],
        )
    return rows


def compared(policy: Measured, sft: Measured, *, kl: float | None) -> Row:
    """A policy beside the SFT policy."""
    return Row(policy.utility(), difference(policy, sft), policy.proxy(), kl)


def summary(found: Mapping[int, Mapping[str, Row]]) -> str:
    """A line for each policy: true utility (gain in standard errors) by seed, then means over the seeds."""
    seeds = [f"seed {seed}" for seed in found]
    lines = []
    for name in next(iter(found.values())):
        rows = [rows[name] for rows in found.values()]
        seconds = [row.cpu_seconds for row in rows if row.cpu_seconds is not None]
        kls = [row.kl for row in rows if row.kl is not None]
        lines.append(
            [
                name,
                *(gain_cell(row.utility, row.gain) for row in rows),
                f"{fmean(row.proxy.mean for row in rows):.2f}",
                f"{fmean(kls):.2f}" if kls else "",
                ", ".join(str(row.num_steps) for row in rows) if any(row.num_steps for row in rows) else "",
                f"{fmean(row.generated_tokens for row in rows) / 1000:.1f}k",
                f"{fmean(seconds):.0f}" if seconds else "",
            ]
        )
    return table(["policy", *seeds, "proxy", "KL, nats", "steps", "generated tokens", "CPU seconds"], lines)


def verdict(found: Mapping[int, Mapping[str, Row]]) -> str:
    """Which algorithms do not gain enough, on which seeds."""
    short = [
        f"{name} on seed {seed} ({in_errors(rows[name].gain):.1f})"
        for seed, rows in found.items()
        for name in SETTINGS
        if in_errors(rows[name].gain) < ENOUGH
    ]
    return f"Below {ENOUGH:g} standard errors: {', '.join(short) or 'none'}."


if __name__ == "__main__":
    main()
