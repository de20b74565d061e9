"""What is done about a scenario, from what its audit named and what the gate decided: one rule for all of them.

The remedy is a round of preference tuning: the newest policy's responses judged by people who were told what to look
at, old and new pairs together, a new reward model, and tuning again from what is live.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.audit.balance import balance
from prefloop.audit.config import DataBalanceConfig
from prefloop.recipes.stages import Bench, run_policy, run_reward, sample_comparisons, write_judged
from prefloop.rundir import resolve_model
from prefloop.signals.measures import SIGNALS
from prefloop.world.annotators import collect, team
from prefloop.world.prompts import make_prompts

INSTRUCTED = {"honest": 8}
"""Who judges anew: people who were told what not to be swayed by, with ordinary noise."""


@dataclass(frozen=True)
class Remedy:
    """What is done before tuning again."""

    balance: tuple[str, ...]
    """Signals in which the old pairs are balanced."""
    fresh: bool
    """Whether new judgments are bought; without them there is nothing to do."""

    @property
    def text(self) -> str:
        """In words."""
        if not self.fresh:
            return "none"
        return (
            f"old pairs balanced in {', '.join(self.balance)}; fresh judgments" if self.balance else "fresh judgments"
        )


def remedy_of(named: Collection[str], *, promoted: bool) -> Remedy:
    """The rule. `named` are the findings that an audit raised.

    Habits of speech that the labels prefer are balanced away in the old pairs. Whatever else was named cannot be mended
    in old labels (who was not asked, or did not look, has not judged), and where the guarded candidate was held with
    nothing named, more is to be learnt: both take fresh judgments, of all kinds of prompts. Where nothing was named and
    the candidate went live, nothing is done.
    """
    habits = tuple(name for name in SIGNALS if name in named)
    return Remedy(habits, fresh=bool(named) or not promoted)


def mend(
    bench: Bench, scenario: str, remedy: Remedy, name: str, *, newest: str, live: str, fresh: int
) -> dict[str, Any]:
    """Make the policy run `name`. What is finished is not done again; returns the numbers of pairs."""
    old = scenario
    if remedy.balance:
        old = f"{name}-balanced"
        source = str(bench.data(f"pairs-{scenario}"))
        balance(DataBalanceConfig(file=source, out=str(bench.data(f"pairs-{old}")), signals=remedy.balance))
    _judge_newest(bench, f"{name}-fresh", resolve_model(str(bench.stage(newest)), "model"), fresh)
    reward = f"{name}-reward"
    run_reward(bench, reward, old=old, more=(f"{name}-fresh",))
    start: Path | None = None if live == "sft" else bench.stage(live)
    run_policy(bench, name, reward, kl_budget=bench.config.kl_budget, start=start)
    counted = {"old_pairs": bench.data(f"pairs-{old}"), "fresh_pairs": bench.data(f"pairs-{name}-fresh")}
    return {key: len(path.read_text("utf-8").splitlines()) for key, path in counted.items()}


def _judge_newest(bench: Bench, name: str, policy: Path, count: int) -> None:
    """Responses of a policy to prompts of all kinds, judged by instructed people."""
    if bench.data(f"pairs-{name}").exists():
        return
    seed = bench.config.seed + 2
    prompts = make_prompts(bench.world, split="train", count=2000, seed=seed)
    comparisons = sample_comparisons(bench, policy, prompts, count, name=name, seed=seed)
    write_judged(bench, name, comparisons, collect(bench.world, comparisons, team(INSTRUCTED), seed=seed))
