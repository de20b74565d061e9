"""What is done about a scenario, from what its audit named and what the gate decided: one rule for all of them.

The remedy is a round (`round.py`): the newest policy's responses judged by people who were told what to look at, old
and new pairs together, a new reward model, and tuning again from what is live.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.audit.shortcuts import RIGHT_AT_TIMES
from prefloop.recipes.round import run as run_round
from prefloop.recipes.round_config import round_config
from prefloop.recipes.stages import Bench, policy_settings, reward_settings
from prefloop.signals.measures import SIGNALS

INSTRUCTED = "honest"
"""The scenario whose people judge anew: they were told what not to be swayed by, and have ordinary noise."""


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

    Habits of speech that the labels prefer are balanced away in the old pairs, but for those that are right for some
    prompts: balanced refusals would teach that it does not matter which. Whatever else was named cannot be mended
    in old labels (who was not asked, or did not look, has not judged), and where the guarded candidate was held with
    nothing named, more is to be learnt: both take fresh judgments, of all kinds of prompts. Where nothing was named and
    the candidate went live, nothing is done. A round whose candidate is held is followed by another, from its policy.
    """
    habits = tuple(name for name in SIGNALS if name in named and name not in RIGHT_AT_TIMES)
    return Remedy(habits, fresh=bool(named) or not promoted)


@dataclass(frozen=True)
class Stock:
    """What a round begins with: the reward model in use, and the files that it was trained on."""

    reward: str
    pairs: tuple[str, ...]
    balance: tuple[str, ...] = ()
    """Signals that the files are still to be balanced in."""


def mend(bench: Bench, stock: Stock, name: str, *, newest: str, live: str, fresh: int) -> tuple[dict[str, Any], Stock]:
    """Run the round `name`, whose policy is then that stage's. What is finished is not done again.

    {"old_pairs", "fresh_pairs", "accuracy"}: pairs of each kind that are trained on; how often the reward model in use
    orders old and new pairs rightly, and the retrained one the new pairs that it has not seen. And what a further
    round would begin with.
    """
    config = bench.config
    given = {
        "policy": str(bench.stage(newest)),
        "incumbent": str(bench.stage(live)),
        "reward": stock.reward,
        "pairs": stock.pairs,
        "prompts": (str(bench.data("prompts")),),
        "out": str(bench.stage(name)),
        "seed": config.seed,
        "simulate": INSTRUCTED,
        "world_seed": config.seed,
        "num_comparisons": fresh,
        "against_incumbent": 0.5,
        "max_new_tokens": config.max_new_tokens,
        "token_budget": config.token_budget,
        "balance": stock.balance,
        "algorithm": config.algorithm,
        "retrain": reward_settings(config),
        "tune": {**policy_settings(config), "kl_budget": config.kl_budget},
    }
    told = run_round(round_config(config.algorithm).model_validate(given), look_up_audits=False)
    new, *old = told["audit"]["trained_on"]
    record = {
        "old_pairs": sum(len(Path(file).read_text("utf-8").splitlines()) for file in old),
        "fresh_pairs": told["label"]["num_train"],
        "accuracy": {
            "in_use_on_old": told["shift"]["old"]["accuracy"],
            "in_use_on_new": told["shift"]["new"]["accuracy"],
            "in_use_on_held_out": told["reward"]["in_use"]["accuracy"],
            "retrained_on_held_out": told["reward"]["retrained"]["accuracy"],
        },
    }
    return record, Stock(told["reward"]["run"], (*old, new))
