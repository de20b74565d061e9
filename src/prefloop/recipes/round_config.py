"""Configs of `round run` and `round status`. Torch-free.

The sections `retrain` and `tune` are the settings of `train reward` and `train policy` without those that a round gives
itself, made from the same fields: a setting that a trainer gains, a round has too.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import Field, PositiveFloat, PositiveInt, create_model, model_validator

from prefloop.config import Section
from prefloop.recipes.tune_config import watched_policy_config
from prefloop.train.config import PolicyConfig, RewardConfig

GIVEN = frozenset({"model", "data", "eval_data", "reward", "prompts", "reference", "algorithm"})
"""Settings of the trainers that follow from what a round is about."""
SHARED = frozenset({"out", "seed", "accept_findings", "skip_bad"})
"""Settings of the trainers that a round has once for all its stages."""


class RoundConfig(Section):
    """One round of preference tuning: sample the newest policy, have it judged, measure how far the reward model has
    lost its way there, retrain it on old and new, audit it, and tune again from the last good policy."""

    policy: str
    """The newest policy, whose responses are judged: model directory or run."""
    incumbent: str
    """The last good policy, which training goes on from and which the KL is measured against: directory or run."""
    reward: str
    """The reward model in use: directory or run."""
    pairs: tuple[str, ...] = Field(min_length=1)
    """The preference files that it was trained on; PATH@WEIGHT weighs a file."""
    prompts: tuple[str, ...] = Field(min_length=1)
    """Files with the prompts that responses are sampled for, to be judged and in training."""
    out: str | None = None
    """Run directory; by default runs/<command>-<hash of the config>."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Seed of sampling, of simulated people, of the split and of all training."""
    judgments: str | None = None
    """Votes on the round's comparisons, once there are some; without them (and without simulate) the round waits."""
    simulate: str | None = None
    """Scenario of the simulated world whose annotators judge (see `sandbox list`); the prompts must be the world's."""
    world_seed: int = Field(0, ge=0, lt=10**9)
    """Seed of that world."""
    votes: PositiveInt = 1
    """Simulated votes on each comparison."""
    num_comparisons: PositiveInt = 1000
    """Pairs of responses that are sampled to be judged."""
    against_incumbent: float = Field(0.0, ge=0, le=1)
    """Share of these pairs whose second response is the incumbent's: what the newest policy has unlearnt is in no pair
    of its own."""
    max_new_tokens: PositiveInt = 64
    """Longest of these responses, in tokens."""
    temperature: PositiveFloat = 1.0
    """Temperature that they are sampled at."""
    token_budget: PositiveInt = 2048
    """Padded tokens of a micro-batch of what is scored; memory grows with it, results do not depend on it."""
    held_out_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of the new conversations that no model is trained on, to compare the reward models on."""
    keep_old: bool = True
    """Train the reward model on the old pairs too."""
    balance: tuple[str, ...] = ()
    """Signals (length, citation, ...) that the old pairs are balanced in first (`data balance`)."""
    drop: tuple[Literal["duplicates", "near_duplicates", "conflicts"], ...] = ()
    """Findings whose rows are left out of the old pairs first (`data balance`)."""
    accept_findings: tuple[str, ...] = ()
    """Findings of an audit that would block and are borne, by name (length,citation); recorded in the runs."""
    skip_bad: bool = False
    """Leave unusable rows out, and votes on other comparisons (they are counted and named), instead of stopping."""
    num_resamples: PositiveInt = 2000
    """Bootstrap resamples of conversations behind the intervals."""
    algorithm: str = "ppo"
    """Algorithm of policy optimisation: built-in, or file.py:Class."""

    @model_validator(mode="after")
    def _one_source_of_votes(self) -> RoundConfig:
        if self.judgments is not None and self.simulate is not None:
            raise ValueError("judgments and simulate both say who judges; give one of them")
        if not self.keep_old and (self.balance or self.drop):
            raise ValueError("balance and drop prepare the old pairs, which keep_old leaves out; give one or the other")
        return self

    @model_validator(mode="after")
    def _settings_hold(self) -> RoundConfig:
        # What a trainer would refuse after an hour of sampling and judging is refused here.
        if type(self) is not RoundConfig:
            retrain_config(self, data=("-",), out="-")
            tune_config(self, reward="-", out="-")
        return self


class RoundStatusConfig(Section):
    """Where a round stands: what is done, what it says, and what comes next."""

    run: str
    """Run directory of the round."""


def round_config(algorithm: str | None = None) -> type[RoundConfig]:
    """The config class of a round with one algorithm: with the sections `retrain` and `tune`."""
    name = algorithm or RoundConfig.model_fields["algorithm"].default
    retrain = _section("RetrainSettings", RewardConfig, "Settings of `train reward` for the retrained reward model.")
    tune = _section("TuneSettings", watched_policy_config(name), "Settings of `train policy` for the tuned policy.")
    chosen = RoundConfig.model_fields["algorithm"]
    made: Any = create_model(
        "RoundConfig",
        __base__=RoundConfig,
        __doc__=RoundConfig.__doc__,
        algorithm=(str, chosen.merge_field_infos(chosen, default=name)),
        retrain=(retrain, Field(default=retrain(), description=retrain.__doc__)),
        tune=(tune, Field(default=tune(), description=tune.__doc__)),
    )
    return cast("type[RoundConfig]", made)


def retrain_config(config: RoundConfig, *, data: tuple[str, ...], out: str) -> RewardConfig:
    """What `train reward` is called with: on the trunk of the last good policy."""
    given = {"model": config.incumbent, "data": data, "out": out}
    return RewardConfig.model_validate({**_settings(config, "retrain"), **given})


def tune_config(config: RoundConfig, *, reward: str, out: str) -> PolicyConfig:
    """What `train policy` is called with: from the last good policy, which is also the reference."""
    given = {"model": config.incumbent, "reference": config.incumbent, "reward": (reward,), "out": out}
    given |= {"algorithm": config.algorithm, "prompts": config.prompts}
    return watched_policy_config(config.algorithm).model_validate({**_settings(config, "tune"), **given})


def _settings(config: RoundConfig, section: str) -> dict[str, Any]:
    """The settings of a section, with those that all stages share."""
    own: Section = getattr(config, section)
    shared = {name: getattr(config, name) for name in SHARED if name != "out"}
    return {**{name: getattr(own, name) for name in type(own).model_fields}, **shared}


def _section(name: str, source: type[Section], doc: str) -> type[Section]:
    """The fields of a trainer's config, but for those that the round gives."""
    fields: Any = {
        key: (field.annotation, field) for key, field in source.model_fields.items() if key not in GIVEN | SHARED
    }
    made: Any = create_model(name, __base__=Section, __doc__=doc, **fields)
    return cast("type[Section]", made)
