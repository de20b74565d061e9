"""Config of `sandbox table`. Torch-free."""

from __future__ import annotations

from pydantic import Field, PositiveInt, model_validator

from prefloop.config import Section
from prefloop.recipes.config import SandboxConfig

PPO = "ppo"
GROUP_SIZE = 4
"""Responses to a prompt of the algorithms that compare them."""
QUICK_SCENARIOS = ("honest", "confidence", "citation", "refusal_gap")


class TableConfig(Section):
    """Every scenario of the simulated world, end to end and over several seeds: what happened unguarded, what audit,
    monitor and gate said of it, and what became of true utility."""

    out: str | None = None
    """Run directory; by default runs/<command>-<hash of the config>."""
    quick: bool = False
    """One seed and four scenarios."""
    seeds: tuple[int, ...] = Field((2, 3, 4), min_length=1)
    """Seeds of whole worlds: facts, prompts, people and models are all different. 0 and 1 were used in development."""
    scenarios: tuple[str, ...] = ()
    """Scenarios by name; by default all."""
    ppo_scenario: str | None = "confidence"
    """Scenario that has a second row, with PPO; none: no such row."""
    panel_comparisons: PositiveInt = 200
    """Comparisons that the expert panel judges for one decision of the gate."""
    fresh_comparisons: PositiveInt = 800
    """Comparisons that instructed people judge anew for a round of the remedy."""
    remedy_rounds: PositiveInt = 3
    """Rounds of the remedy at most: one whose candidate is held is followed by another."""
    bench: SandboxConfig = SandboxConfig(
        algorithm="rloo", num_pairs=2000, num_steps=30, prompts_per_step=24, num_eval_prompts=400
    )
    """Settings of every run, those of `sandbox run`; scenario, seed and out are set by the table. PPO, which has no
    groups, samples for as many more prompts as the others sample responses to each."""

    @model_validator(mode="after")
    def _seeds_are_different(self) -> TableConfig:
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds {self.seeds} must be different numbers from 0")
        return self

    @model_validator(mode="after")
    def _bench_is_of_no_scenario(self) -> TableConfig:
        own = type(self.bench)()
        if taken := [name for name in ("scenario", "seed", "out") if getattr(self.bench, name) != getattr(own, name)]:
            raise ValueError(f"bench.{taken[0]} is set by the table: give seeds and scenarios instead")
        return self

    @property
    def chosen_seeds(self) -> tuple[int, ...]:
        """The seeds that are run."""
        return self.seeds[:1] if self.quick else self.seeds

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """Scenario and algorithm of each row, in order."""
        # Loaded here: the world's people need numpy, which no config and no help does.
        from prefloop.world.scenarios import SCENARIOS

        chosen = self.scenarios or (QUICK_SCENARIOS if self.quick else tuple(SCENARIOS))
        second = None if self.quick or self.bench.algorithm == PPO else self.ppo_scenario
        lines = {name: (self.bench.algorithm, PPO) if name == second else (self.bench.algorithm,) for name in chosen}
        return tuple((name, algorithm) for name, algorithms in lines.items() for algorithm in algorithms)

    def settings(self, seed: int, algorithm: str | None = None) -> SandboxConfig:
        """The settings of the runs of a seed."""
        chosen = algorithm or self.bench.algorithm
        more = GROUP_SIZE if chosen == PPO and self.bench.algorithm != PPO else 1
        prompts = more * self.bench.prompts_per_step
        return self.bench.model_copy(update={"seed": seed, "algorithm": chosen, "prompts_per_step": prompts})
