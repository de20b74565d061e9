"""The stages of a sandbox run, each through the same function that its command calls, each a run directory of its own.

Only `measure.py` reads the truth; nothing that trains does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prefloop.console import say
from prefloop.data.pairs import derive_pairs
from prefloop.models.load import load_policy
from prefloop.recipes.config import SandboxConfig
from prefloop.rollout.respond import plain_prompt, respond
from prefloop.rundir import resolve_model, write_rows
from prefloop.train import policy as policy_trainer
from prefloop.train import reward as reward_trainer
from prefloop.train import sft as sft_trainer
from prefloop.train.algorithms import algorithm_settings
from prefloop.train.config import RewardConfig, SFTConfig, policy_config
from prefloop.types import Comparison, Judgment, PreferencePair, Prompt, RunResult
from prefloop.world.annotators import collect
from prefloop.world.knowledge import World
from prefloop.world.prompts import make_prompts
from prefloop.world.scenarios import SCENARIOS, select_prompts
from prefloop.world.writers import make_demonstrations

NUM_CHECKPOINTS = 6
"""Checkpoints of a policy run that the curve is measured at."""
DOUBLE_JUDGED = 300
"""Comparisons that two people judge, so that an audit sees whether people agree."""


@dataclass(frozen=True)
class Bench:
    """A scenario's directory and world."""

    root: Path
    config: SandboxConfig
    world: World

    @classmethod
    def build(cls, root: Path, config: SandboxConfig, *, num_threads: int | None = None) -> Bench:
        """Make the directories; set the threads of this process (by default the config's)."""
        torch.set_num_threads(num_threads or config.num_threads)
        (root / "data").mkdir(exist_ok=True)
        (root / "stages").mkdir(exist_ok=True)
        return cls(root, config, World.build(config.seed))

    def data(self, name: str) -> Path:
        """A data file of this bench."""
        return self.root / "data" / f"{name}.jsonl"

    def stage(self, name: str) -> Path:
        """The run directory of a stage."""
        return self.root / "stages" / name


def write_data(bench: Bench) -> None:
    """Demonstrations and the prompts of the policy run."""
    config = bench.config
    demonstrations = make_demonstrations(bench.world, count=config.num_demonstrations, seed=config.seed)
    write_rows(
        bench.data("demonstrations"),
        [{"prompt": plain_prompt(row.prompt), "completion": row.completion[0].content} for row in demonstrations],
    )
    prompts = make_prompts(bench.world, split="train", count=2000, seed=config.seed)
    write_rows(bench.data("prompts"), [{"prompt": plain_prompt(prompt.messages)} for prompt in prompts])


def run_sft(bench: Bench) -> RunResult:
    """Supervised fine-tuning from scratch on the demonstrations."""
    config = bench.config
    return sft_trainer.train(
        SFTConfig(
            data=(str(bench.data("demonstrations")),),
            out=str(bench.stage("sft")),
            seed=config.seed,
            token_budget=config.token_budget,
            scratch=config.scratch,
            num_epochs=config.sft_epochs,
            batch_size=32,
            eval_every=250,
            optimizer=config.sft_optimizer,
        )
    )


def pair_prompts(bench: Bench) -> list[Prompt]:
    """The prompts that comparisons are made of."""
    return make_prompts(bench.world, split="train", count=2000, seed=bench.config.seed + 1)


def write_pairs(bench: Bench, scenario_name: str) -> list[PreferencePair]:
    """Two responses of the SFT policy to each prompt, judged by the scenario's annotators.

    `pairs-<scenario>.jsonl` is what a reward model learns from, one vote each. `judgments-<scenario>.jsonl` has the
    votes themselves with who gave them, and a second one on the first `DOUBLE_JUDGED` comparisons, for an audit of the
    people.
    """
    config, scenario = bench.config, SCENARIOS[scenario_name]
    prompts = select_prompts(scenario, pair_prompts(bench), seed=config.seed)
    count = min(config.num_pairs, scenario.num_comparisons or config.num_pairs)
    comparisons = _comparisons(bench, [prompts[index % len(prompts)] for index in range(count)], name=scenario_name)
    judgments = collect(bench.world, comparisons, scenario.team, seed=config.seed)
    # Votes on a comparison are drawn in order: the first of two is the one that a single vote would be.
    second = collect(bench.world, comparisons[:DOUBLE_JUDGED], scenario.team, seed=config.seed, votes=2)[1::2]
    by_id = {each.comparison_id: each for each in comparisons}
    write_rows(
        bench.data(f"judgments-{scenario_name}"),
        [_judgment_row(by_id[each.comparison_id], each) for each in (*judgments, *second)],
    )
    derived = derive_pairs((each, [judgment]) for each, judgment in zip(comparisons, judgments, strict=True))
    say(f"{scenario_name}: {len(comparisons)} comparisons judged, {len(derived.pairs)} pairs, {dict(derived.counts)}")
    write_rows(
        bench.data(f"pairs-{scenario_name}"),
        [
            {"prompt": plain_prompt(pair.prompt.messages), "chosen": pair.chosen, "rejected": pair.rejected}
            for pair in derived.pairs
        ],
    )
    return derived.pairs


def _comparisons(bench: Bench, asked: Sequence[Prompt], *, name: str) -> list[Comparison]:
    """Two responses of the SFT policy to each prompt; empty and identical ones are left out."""
    config = bench.config
    model, chat = load_policy(resolve_model(str(bench.stage("sft")), "model"))
    first, second = (
        respond(
            model,
            chat,
            asked,
            max_new_tokens=config.max_new_tokens,
            temperature=1.0,
            seed=config.seed * 1000 + offset,
        )
        for offset in (1, 2)
    )
    return [
        Comparison(f"{name}-{index}", prompt, a.text, b.text, "sft", "sft")
        for index, (prompt, a, b) in enumerate(zip(asked, first, second, strict=True))
        if a.text and b.text and a.text != b.text
    ]


def _judgment_row(comparison: Comparison, judgment: Judgment) -> dict[str, Any]:
    return {
        "prompt": plain_prompt(comparison.prompt.messages),
        "response_a": comparison.response_a,
        "response_b": comparison.response_b,
        "choice": judgment.choice,
        "annotator_id": judgment.annotator_id,
        "shown_first": judgment.shown_first,
    }


def run_reward(bench: Bench, name: str) -> RunResult:
    """The reward model `name` on the SFT trunk, from the pairs of that name."""
    config = bench.config
    given = {
        "model": str(bench.stage("sft")),
        "data": (str(bench.data(f"pairs-{name}")),),
        "out": str(bench.stage(f"reward-{name}")),
        "seed": config.seed,
    }
    return reward_trainer.train(RewardConfig.model_validate({**reward_settings(config), **given}), look_up_audits=False)


def reward_settings(config: SandboxConfig) -> dict[str, Any]:
    """What all reward models of a bench are trained with."""
    return {
        "token_budget": config.token_budget,
        "num_epochs": config.reward_epochs,
        "batch_size": 32,
        "eval_fraction": 0.1,
        "eval_every": 25,
        "optimizer": config.reward_optimizer,
    }


def run_policy(bench: Bench, name: str, scenario_name: str, *, kl_budget: float | None) -> RunResult:
    """Policy optimisation against the scenario's reward model; runs of a bench differ in the budget only."""
    config = bench.config
    given = {
        "model": str(bench.stage("sft")),
        "reward": str(bench.stage(f"reward-{scenario_name}")),
        "prompts": (str(bench.data("prompts")),),
        "out": str(bench.stage(name)),
        "seed": config.seed,
        "algorithm": config.algorithm,
        "kl_budget": kl_budget,
    }
    return policy_trainer.train(
        policy_config(config.algorithm).model_validate({**policy_settings(config), **given}), look_up_audits=False
    )


def policy_settings(config: SandboxConfig) -> dict[str, Any]:
    """What all policies of a bench are tuned with."""
    return {
        "settings": algorithm_settings(config.algorithm)(num_epochs=config.policy_epochs),
        "token_budget": config.token_budget,
        "num_steps": config.num_steps,
        "prompts_per_step": config.prompts_per_step,
        "max_new_tokens": config.max_new_tokens,
        "kl_coef": config.kl_coef,
        "checkpoint_every": max(1, config.num_steps // NUM_CHECKPOINTS),
        "keep_checkpoints": 10_000,
        "optimizer": config.policy_optimizer,
        "value_optimizer": config.value_optimizer,
    }
