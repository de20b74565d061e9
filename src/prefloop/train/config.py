"""Configs of the training commands. Torch-free, so that `--help` is fast."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    create_model,
    model_validator,
)

from prefloop.config import Section
from prefloop.models.config import ScratchConfig
from prefloop.train.algorithms import algorithm_settings

DEFAULT_KL_BUDGET = 2.0
"""Nats per response: chosen on seed 0 of the simulated world, whose answers have about 15 words."""


SCRATCH_LR = 2e-3
"""Learning rate of supervised fine-tuning for a model made from scratch."""


class OptimizerConfig(Section):
    """AdamW and its learning-rate schedule."""

    model_config = ConfigDict(allow_inf_nan=False)

    lr: PositiveFloat = 1e-4
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """Decay of the second moment."""
    eps: PositiveFloat = 1e-5
    """Added to the root of the second moment (1e-5 as in the PPO reference implementations)."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Course of the learning rate after warm-up; linear and cosine end at a tenth of the peak."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly from 0."""


class TrainConfig(Section):
    """What every training command has."""

    model_config = ConfigDict(allow_inf_nan=False)

    out: str | None = None
    """Run directory; by default runs/<command>-<hash of the config>."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Seed of data order, new weights and sampling."""
    checkpoint_every: PositiveInt = 100
    """Steps between checkpoints; a killed run goes on from the newest."""
    keep_checkpoints: PositiveInt = 2
    """How many of the newest checkpoints stay on disk."""
    token_budget: PositiveInt = 4096
    """Padded tokens of a micro-batch; memory grows with it, results do not depend on it."""


class OfflineConfig(TrainConfig):
    """What training on a fixed data set has."""

    data: tuple[str, ...] = Field(min_length=1)
    """Training files (JSON Lines, .gz, Parquet); PATH@WEIGHT weighs a file."""
    eval_data: tuple[str, ...] = ()
    """Held-out files; without them a share of the conversations of --data is held out."""
    eval_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of the conversations held out when no --eval-data is given; chosen by the hash of how they open."""
    skip_bad: bool = False
    """Leave unusable or over-long rows out (they are counted and named) instead of stopping."""
    max_length: PositiveInt = 512
    """Longest row in tokens; longer rows count as unusable."""
    num_epochs: PositiveInt = 1
    """Passes over the data."""
    batch_size: PositiveInt = 32
    """Rows of one optimiser step."""
    eval_every: PositiveInt = 50
    """Steps between evaluations on the held-out rows."""
    patience: PositiveInt | None = None
    """Stop after this many evaluations without a new best; the best checkpoint is the result."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimiser."""


class SFTConfig(OfflineConfig):
    """Supervised fine-tuning on demonstrations: loss on assistant turns only, end-of-turn included."""

    model: str | None = None
    """Model directory or run to start from; without it a model and tokenizer are made from scratch, and the learning
    rate is 0.002 unless it is given: new weights need more than trained ones bear."""
    scratch: ScratchConfig = ScratchConfig()
    """Shape of the scratch model."""

    @model_validator(mode="after")
    def _one_start(self) -> SFTConfig:
        if self.model is not None and "scratch" in self.model_fields_set and self.scratch != ScratchConfig():
            raise ValueError("scratch has no effect together with model; leave one of them out")
        return self

    @model_validator(mode="after")
    def _rate_of_new_weights(self) -> SFTConfig:
        if self.model is None and "lr" not in self.optimizer.model_fields_set:
            # A default that depends on another setting; the config is frozen, but not handed out yet.
            object.__setattr__(self, "optimizer", self.optimizer.model_copy(update={"lr": SCRATCH_LR}))
        return self


class RewardConfig(OfflineConfig):
    """A Bradley-Terry reward model on preference pairs."""

    model: str
    """Model directory or run whose trunk the reward model starts from (the SFT model)."""
    centering_coef: NonNegativeFloat = 0.01
    """Weight of (chosen score + rejected score)^2, which keeps scores around 0."""


class PreferenceConfig(OfflineConfig):
    """Preference optimisation without rollouts (DPO)."""

    model: str
    """Model directory or run to start from (the SFT model)."""
    reference: str | None = None
    """Reference policy; by default the starting weights."""
    loss: Literal["dpo"] = "dpo"
    """Preference loss."""
    beta: PositiveFloat = 0.1
    """Strength of the pull towards the reference."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Assumed share of wrong labels (conservative DPO)."""


class PolicyConfig(TrainConfig):
    """On-policy optimisation against a scorer, held near a reference by a KL penalty."""

    model: str
    """Model directory or run to start from (the SFT model)."""
    reward: str
    """Reward model directory or run, or a Python function as file.py:function."""
    prompts: tuple[str, ...] = Field(min_length=1)
    """Files with the prompts that responses are sampled for."""
    reference: str | None = None
    """Policy that the KL is measured against; by default the starting weights."""
    value: str | None = None
    """Value model's starting weights; by default the reward model, or the policy's trunk for a function."""
    algorithm: str = "ppo"
    """Built-in algorithm, or file.py:Class."""
    num_steps: PositiveInt = 50
    """Rounds of sampling and updating."""
    prompts_per_step: PositiveInt = 32
    """Prompts of one round; each gets group_size responses."""
    max_prompt_length: PositiveInt = 512
    """Longest prompt in tokens; longer ones count as unusable."""
    max_new_tokens: PositiveInt = 64
    """Longest response in tokens."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature; divides the logits in every pass alike."""
    skip_bad: bool = False
    """Leave unusable or over-long prompts out instead of stopping."""
    kl_coef: NonNegativeFloat = 0.05
    """Weight of the per-token KL penalty in the reward (first value, if kl_target is set)."""
    kl_target: PositiveFloat | None = None
    """Adapt kl_coef so that the sequence KL (nats per response) comes near this."""
    kl_horizon: PositiveInt = 10
    """Time constant of the adaptive coefficient, in rounds of sampling."""
    kl_budget: PositiveFloat | None = DEFAULT_KL_BUDGET
    """Stop at the last checkpoint whose exact KL (kl/full, nats per response) is inside this; none: no limit."""
    score_clip: PositiveFloat = 5.0
    """Normalised scores are clipped to +- this."""
    truncated_score: float | None = None
    """Score of a response cut off by max_new_tokens; by default it keeps the scorer's."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-5, schedule="constant", warmup_fraction=0.0)
    """Optimiser of the policy."""
    value_optimizer: OptimizerConfig = OptimizerConfig(lr=1e-5, schedule="constant", warmup_fraction=0.0)
    """Optimiser of the value model, for algorithms that have one."""
    save_rollouts: NonNegativeInt = 16
    """Responses of each step stored under rollouts/ (a multiple of nothing; the first ones of the batch)."""

    @model_validator(mode="after")
    def _kl_settings(self) -> PolicyConfig:
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target adapts kl_coef by factors, which leave 0 at 0: give a kl_coef above 0")
        if self.kl_budget is None:
            return self
        if self.kl_target is not None and self.kl_target >= self.kl_budget:
            raise ValueError(f"kl_target {self.kl_target:g} is not inside kl_budget {self.kl_budget:g}")
        if self.keep_checkpoints < 2:
            raise ValueError("keep_checkpoints must be at least 2 with a kl_budget: the newest may lie outside it")
        return self


def policy_config(algorithm: str | None) -> type[PolicyConfig]:
    """The config class of one algorithm: PolicyConfig with that algorithm's settings as section `settings`."""
    settings = algorithm_settings(algorithm or PolicyConfig.model_fields["algorithm"].default)
    made: type[PolicyConfig] = create_model(
        "PolicyConfig",
        __base__=PolicyConfig,
        __doc__=PolicyConfig.__doc__,
        settings=(settings, Field(default=settings(), description=f"Settings of the algorithm: {settings.__doc__}")),
    )
    return made
