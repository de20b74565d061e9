"""Configs of the recipes: the simulated world, end to end."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from prefloop.config import Section
from prefloop.models.config import ScratchConfig
from prefloop.train.config import DEFAULT_KL_BUDGET, OptimizerConfig, RewardConfig


class SandboxListConfig(Section):
    """The scenarios of the simulated world."""


class SandboxConfig(Section):
    """One scenario of the simulated world: demonstrations, biased judgments, reward model, policy, truth."""

    scenario: str = "confidence"
    """Scenario: which annotators judge (see `sandbox list`)."""
    out: str | None = None
    """Run directory; by default runs/<command>-<hash of the config>."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Seed of the world, of all sampling and of all training."""
    num_threads: PositiveInt = 1
    """Threads of each of the two processes that run side by side; what runs alone gets twice as many."""
    token_budget: PositiveInt = 1024
    """Padded tokens of a micro-batch; small ones are fastest for a small model on a CPU."""
    num_demonstrations: int = Field(6000, ge=50)
    """Demonstrations for supervised fine-tuning."""
    num_pairs: int = Field(3000, ge=50)
    """Comparisons that the annotators judge."""
    num_eval_prompts: int = Field(1000, ge=4)
    """Unseen prompts of the evaluation; one half chooses the peak, the other half is reported."""
    scratch: ScratchConfig = ScratchConfig(num_layers=2, vocab_size=1600, max_position=128)
    """Shape of the policy and of the reward model."""
    sft_epochs: PositiveInt = 5
    """Passes over the demonstrations."""
    sft_optimizer: OptimizerConfig = OptimizerConfig(lr=2e-3)
    """Optimiser of supervised fine-tuning."""
    reward_epochs: PositiveInt = 1
    """Passes over the pairs."""
    reward_optimizer: OptimizerConfig = OptimizerConfig(lr=1e-3)
    """Optimiser of the reward model."""
    algorithm: str = "ppo"
    """Algorithm of policy optimisation."""
    num_steps: PositiveInt = 32
    """Steps of policy optimisation."""
    prompts_per_step: PositiveInt = 96
    """Responses sampled in one step."""
    policy_epochs: PositiveInt = 2
    """Passes over one round of rollouts."""
    max_new_tokens: PositiveInt = 48
    """Longest response in tokens."""
    kl_coef: PositiveFloat = 0.08
    """Weight of the KL penalty in every run, guarded or not."""
    kl_budget: PositiveFloat = DEFAULT_KL_BUDGET
    """KL budget of the guarded run."""
    policy_optimizer: OptimizerConfig = OptimizerConfig(lr=3e-4, schedule="constant", warmup_fraction=0.0)
    """Optimiser of the policy."""
    value_optimizer: OptimizerConfig = OptimizerConfig(lr=1e-3, schedule="constant", warmup_fraction=0.0)
    """Optimiser of the value model."""

    @model_validator(mode="after")
    def _room_for_a_response(self) -> SandboxConfig:
        if self.max_new_tokens >= self.scratch.max_position:
            raise ValueError(
                f"max_new_tokens {self.max_new_tokens} leaves no room for a prompt "
                f"in the {self.scratch.max_position} positions of scratch.max_position"
            )
        return self


class DemoConfig(SandboxConfig):
    """The whole loop in the simulated world, offline: tuned on honest judgments, hacked on biased ones, guarded."""


class DoctorConfig(Section):
    """What this machine has and lacks; with a model, the start-up checks on it."""

    model: str | None = None
    """Policy to check: model directory or run."""
    reward: str | None = None
    """Reward model to check as well: directory or run."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature of the check."""
    max_new_tokens: PositiveInt = 32
    """Longest response of the check, in tokens."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Sampling seed."""

    @model_validator(mode="after")
    def _needs_a_policy(self) -> DoctorConfig:
        if self.reward is not None and self.model is None:
            raise ValueError("reward is checked on responses of a model: give one")
        return self


class RewardCrossvalConfig(RewardConfig):
    """Cross-validated accuracy of a reward model: every pair is scored by a model that did not see its prompt."""

    num_folds: int = Field(5, ge=2)
    """Folds, dealt by the hash of how a conversation opens: none of its turns is in two of them."""
    num_resamples: PositiveInt = 2000
    """Bootstrap resamples of conversations behind the interval."""

    @model_validator(mode="after")
    def _no_eval_data(self) -> RewardCrossvalConfig:
        if self.eval_data:
            raise ValueError("eval_data has no effect here: each fold is held out in turn; leave it out")
        return self
