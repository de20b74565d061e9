"""Simulated people judge the comparisons of a round. They know the prompts of their own world only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from prefloop.config import unknown_name
from prefloop.recipes.round_config import RoundConfig
from prefloop.types import Comparison, InputError, Judgment, Messages, Prompt
from prefloop.world.annotators import collect
from prefloop.world.knowledge import World
from prefloop.world.prompts import all_prompts
from prefloop.world.scenarios import SCENARIOS, Scenario


def world_prompts(config: RoundConfig, prompts: Sequence[Prompt]) -> dict[Messages, Prompt]:
    """What the world knows of each prompt, by its text. Raises InputError for the first one that it does not know."""
    scenario_of(config)
    known = {prompt.messages: prompt for prompt in all_prompts(World.build(config.world_seed))}
    for prompt in prompts:
        if prompt.messages not in known:
            path, _, line = prompt.place.rpartition(":")
            raise InputError(
                f"is no prompt of the world of seed {config.world_seed}, so its people cannot judge answers to it",
                path=path or None,
                line=int(line) if line else None,
                field="prompt",
                remedy="give --world-seed and prompts of that sandbox, or real judgments instead of --simulate",
            )
    return {prompt.messages: known[prompt.messages] for prompt in prompts}


def scenario_of(config: RoundConfig) -> Scenario:
    """The scenario whose people judge. Raises InputError for an unknown name."""
    name = config.simulate or ""
    if name not in SCENARIOS:
        raise InputError(f"no scenario {name!r}", field="simulate", remedy=unknown_name(name, list(SCENARIOS)))
    return SCENARIOS[name]


def simulated_votes(config: RoundConfig, comparisons: Sequence[Comparison]) -> list[Judgment]:
    """The votes of the scenario's people, in the order of the comparisons."""
    known = world_prompts(config, [comparison.prompt for comparison in comparisons])
    shown = [dataclasses.replace(each, prompt=known[each.prompt.messages]) for each in comparisons]
    world = World.build(config.world_seed)
    return collect(world, shown, scenario_of(config).team, seed=config.seed, votes=config.votes)
