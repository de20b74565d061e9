"""Configs of the training commands. Torch-free, so that `--help` is fast."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal, get_args

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    create_model,
    field_validator,
    model_validator,
)

from prefloop.config import Section
from prefloop.models.config import LoraConfig, Precision, ScratchConfig
from prefloop.reward.config import ScoringConfig, ShapingConfig
from prefloop.train.algorithms import algorithm_settings
from prefloop.train.examine_settings import ExamineConfig
from prefloop.train.preference_losses import loss_settings
from prefloop.train.reward_settings import AugmentConfig, HeadsConfig, MembersConfig, OdinConfig

DEFAULT_KL_BUDGET = 2.0
"""Nats per response: chosen on seed 0 of the simulated world, whose answers have about 15 words."""

Tracker = Literal["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"]
TRACKER_PACKAGES: dict[str, str] = {name: name for name in get_args(Tracker)} | {"tensorboard": "tensorboardX"}
"""What `pip install` takes for each tracker."""

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
    """Steps between checkpoints; a killed run goes on from the newest. Ctrl-C writes one before it stops."""
    keep_checkpoints: PositiveInt = 2
    """How many of the newest checkpoints stay on disk."""
    token_budget: PositiveInt = 2048
    """Padded tokens of a micro-batch; memory grows with it, results do not depend on it."""
    precision: Precision = "fp32"
    """What linear layers and attention compute in, training and sampling; weights and optimisers stay fp32."""
    recompute_activations: bool = False
    """Keep each layer's input only and run the layer again in the backward pass: less memory, a third more work."""
    report_to: tuple[Tracker, ...] = ()
    """Experiment trackers that get the metrics too (each needs its package); metrics.jsonl has them anyway."""

    @field_validator("report_to")
    @classmethod
    def _installed(cls, names: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
        # Looked up, not imported: a run must not find out after an hour of preparation that a tracker is missing.
        for name in names:
            modules = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
            if not any(importlib.util.find_spec(module) for module in modules):
                raise ValueError(f"{name} is not installed; pip install {TRACKER_PACKAGES[name]}")
        return names


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
    lora: LoraConfig | None = None
    """Low-rank adapters instead of all weights."""

    @model_validator(mode="after")
    def _one_start(self) -> SFTConfig:
        if self.model is not None and "scratch" in self.model_fields_set and self.scratch != ScratchConfig():
            raise ValueError("scratch has no effect together with model; leave one of them out")
        return self

    @model_validator(mode="after")
    def _adapters_need_weights(self) -> SFTConfig:
        if self.model is None and self.lora is not None:
            raise ValueError("lora trains beside the weights of a model: give one to start from (--model)")
        return self

    @model_validator(mode="after")
    def _rate_of_new_weights(self) -> SFTConfig:
        if self.model is None and "lr" not in self.optimizer.model_fields_set:
            # A default that depends on another setting; the config is frozen, but not handed out yet.
            object.__setattr__(self, "optimizer", self.optimizer.model_copy(update={"lr": SCRATCH_LR}))
        return self


class AuditedConfig(OfflineConfig):
    """What training on preferences has: their audit binds."""

    accept_findings: tuple[str, ...] = ()
    """Findings of an audit that would block and are borne, by name (length,citation); recorded in the run."""


class RewardConfig(AuditedConfig):
    """A Bradley-Terry reward model on preference pairs."""

    model: str
    """Model directory or run whose trunk the reward model starts from (the SFT model)."""
    centering_coef: NonNegativeFloat = 0.01
    """Weight of (chosen score + rejected score)^2, which keeps scores around 0."""
    margin_coef: NonNegativeFloat = 0.0
    """The preferred response is to be ahead by this times the pair's strength (0 where it has none)."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Take each label as swapped with this probability: margins beyond log((1 - s) / s) are pulled back."""
    noise_rate: float = Field(0.0, ge=0, lt=0.5)
    """Share of the labels that are known to be swapped at random: their effect is taken out of the mean loss."""
    soft_ties: bool = False
    """Train on ties too, as half a preference either way; without it they are counted and left out."""
    length_balance: bool = False
    """Weigh the pairs so that the longer response wins as often as the shorter one, at every difference of length."""
    augment: AugmentConfig = AugmentConfig()
    """Counterfactual pairs."""
    odin: OdinConfig | None = None
    """Two heads that part quality from length."""
    heads: HeadsConfig | None = None
    """Several dimensions of preference."""
    members: MembersConfig | None = None
    """An ensemble."""
    reference_samples: NonNegativeInt = 0
    """Responses of the starting model to training prompts whose scores give reward_mean and reward_std; 0: those of the
    responses of up to 512 training pairs."""
    reference_max_new_tokens: PositiveInt = 64
    """Longest of these responses in tokens, with reference_samples."""
    lora: LoraConfig | None = None
    """Low-rank adapters instead of all weights; the scalar head is trained in full."""

    @model_validator(mode="after")
    def _one_remedy_each(self) -> RewardConfig:
        if self.label_smoothing and self.noise_rate:
            raise ValueError("label_smoothing and noise_rate undo each other; give one of them")
        if self.odin is not None and self.heads is not None:
            raise ValueError("odin and heads both say what the heads are for; give one of them")
        if not self.reference_samples and self.reference_max_new_tokens != 64:
            raise ValueError("reference_max_new_tokens has no effect without reference_samples; leave it out")
        return self


class RewardMemberConfig(RewardConfig):
    """One member of an ensemble: what `train reward` makes of a RewardConfig with `members`, under its run."""

    member: NonNegativeInt = 0
    """Its number, from 0."""


class PreferenceConfig(AuditedConfig):
    """Preference optimisation without rollouts: on preference pairs, or on single responses with a label."""

    model: str
    """Model directory or run to start from (the SFT model)."""
    reference: str | None = None
    """Reference policy; by default the starting weights."""
    loss: str = "dpo"
    """Preference loss."""
    lora: LoraConfig | None = None
    """Low-rank adapters instead of all weights."""


def preference_config(loss: str | None) -> type[PreferenceConfig]:
    """The config class of one preference loss: PreferenceConfig with that loss's settings as section `settings`."""
    settings = loss_settings(loss or PreferenceConfig.model_fields["loss"].default)
    made: type[PreferenceConfig] = create_model(
        "PreferenceConfig",
        __base__=PreferenceConfig,
        __doc__=PreferenceConfig.__doc__,
        settings=(settings, Field(default=settings(), description=f"Settings of the loss: {settings.__doc__}")),
    )
    return made


class PolicyConfig(TrainConfig):
    """On-policy optimisation against a scorer, held near a reference by a KL penalty."""

    model: str
    """Model directory or run to start from (the SFT model)."""
    reward: tuple[str, ...] = Field(min_length=1)
    """Reward model directory or run, ensemble, file.py:function or http://host:port/path; several reward models make an
    ensemble, SPEC@WEIGHT or other kinds a weighted sum."""
    scoring: ScoringConfig = ScoringConfig()
    """Ensembles and reward servers."""
    accept_findings: tuple[str, ...] = ()
    """Findings of the reward model's audit that would block and are borne, by name (length,citation); recorded in the
    run."""
    shaping: ShapingConfig = ShapingConfig()
    """From scores to the scores that are optimised."""
    prompts: tuple[str, ...] = Field(min_length=1)
    """Files with the prompts that responses are sampled for."""
    reference: str | None = None
    """Policy that the KL is measured against; by default the starting weights."""
    value: str | None = None
    """Value model's starting weights; by default the reward model, or the policy's trunk for a function."""
    lora: LoraConfig | None = None
    """Low-rank adapters for policy and value model; the reference is then the policy with its adapters off."""
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
    kl_penalty: Literal["reward", "loss_k2", "loss_k3"] = "reward"
    """Where the KL penalty acts: per token in the reward (k1, the gradient of the sequence KL), or as a loss of its own
    by the estimator k2 or k3."""
    kl_coef: NonNegativeFloat = 0.05
    """Weight of the KL penalty (first value, if kl_target is set)."""
    kl_target: PositiveFloat | None = None
    """Adapt kl_coef so that the sequence KL (nats per response) comes near this."""
    kl_horizon: PositiveInt = 10
    """Time constant of the adaptive coefficient, in rounds of sampling."""
    kl_budget: PositiveFloat | None = DEFAULT_KL_BUDGET
    """Stop at the last checkpoint whose exact KL (kl/full, nats per response) is inside this; none: no limit."""
    reference_refresh_every: PositiveInt | None = None
    """Make the policy the reference after every so many steps; none: the reference is frozen."""
    ptx_data: tuple[str, ...] = ()
    """Demonstrations, or plain text (.txt, .txt.gz), whose likelihood is held up beside the reward (PPO-ptx)."""
    ptx_coef: PositiveFloat = 1.0
    """Weight of the loss on ptx_data, in nats per token, against the policy loss."""
    ptx_batch_size: PositiveInt = 32
    """Rows of ptx_data in one optimiser step."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Keep an exponential moving average of the policy's weights (output "ema"), with this decay a step."""
    eval_reward: tuple[str, ...] = ()
    """Held-out scorer, trained on other annotators' labels: names the best checkpoint, which is then the result."""
    eval_prompts: tuple[str, ...] = ()
    """Files with the prompts of the held-out evaluation."""
    eval_every: PositiveInt = 10
    """Steps between held-out evaluations."""
    patience: PositiveInt | None = None
    """Stop after this many held-out evaluations without a new best."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-5, schedule="constant", warmup_fraction=0.0)
    """Optimiser of the policy."""
    value_optimizer: OptimizerConfig = OptimizerConfig(lr=1e-5, schedule="constant", warmup_fraction=0.0)
    """Optimiser of the value model, for algorithms that have one."""
    save_rollouts: NonNegativeInt = 64
    """Responses of each step stored under rollouts/, which the monitor watches: the first ones of the batch."""
    examine: ExamineConfig = ExamineConfig()
    """What is measured of the stored responses beside their scores."""

    @field_validator("reward", "eval_reward", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        # Behind a validator of Python, a list of JSON no longer passes for a tuple by itself.
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _lengths(self) -> PolicyConfig:
        self.shaping.check_lengths(self.max_new_tokens)
        return self

    @model_validator(mode="after")
    def _kl_settings(self) -> PolicyConfig:
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target adapts kl_coef by factors, which leave 0 at 0: give a kl_coef above 0")
        if self.reference_refresh_every is not None and self.lora is not None:
            raise ValueError("reference_refresh_every has no model to refresh with lora: the reference is the base")
        if self.kl_budget is None:
            return self
        if self.reference_refresh_every is not None:
            raise ValueError(
                "kl_budget would bound the KL since the last refresh only: give kl_budget none with a refresh"
            )
        if self.kl_target is not None and self.kl_target >= self.kl_budget:
            raise ValueError(f"kl_target {self.kl_target:g} is not inside kl_budget {self.kl_budget:g}")
        if self.keep_checkpoints < 2:
            raise ValueError("keep_checkpoints must be at least 2 with a kl_budget: the newest may lie outside it")
        return self

    @model_validator(mode="after")
    def _held_out(self) -> PolicyConfig:
        if bool(self.eval_reward) != bool(self.eval_prompts):
            raise ValueError("eval_reward and eval_prompts belong together: give both or neither")
        if set(self.eval_reward) & set(self.reward):
            raise ValueError("eval_reward is the reward itself: the best checkpoint is never chosen by the proxy score")
        if self.patience is not None and not self.eval_reward:
            raise ValueError("patience needs a held-out evaluation: give eval_reward and eval_prompts")
        return self


class InterpolateConfig(Section):
    """A model whose weights lie between those of two others."""

    model_config = ConfigDict(allow_inf_nan=False)

    base: str
    """Model directory or run at weight 0 (the SFT model)."""
    tuned: str
    """Model directory or run at weight 1 (what was tuned from it)."""
    out: str
    """Directory to make."""
    weight: float = Field(0.5, ge=0, le=1)
    """How far to go from base to tuned."""


def policy_config(algorithm: str | None) -> type[PolicyConfig]:
    """The config class of one algorithm: PolicyConfig with that algorithm's settings as section `settings`, and with
    the loop's defaults as its paper has them."""
    settings = algorithm_settings(algorithm or PolicyConfig.model_fields["algorithm"].default)
    fields = {name: PolicyConfig.model_fields[name] for name in settings.loop_defaults}
    defaults: dict[str, Any] = {
        name: (field.annotation, field.merge_field_infos(field, default=settings.loop_defaults[name]))
        for name, field in fields.items()
    }
    made: type[PolicyConfig] = create_model(
        "PolicyConfig",
        __base__=PolicyConfig,
        __doc__=PolicyConfig.__doc__,
        **defaults,
        settings=(settings, Field(default=settings(), description=f"Settings of the algorithm: {settings.__doc__}")),
    )
    return made
