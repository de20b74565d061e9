"""Configs of the reward commands, and the sections that say how scores are taken and shaped. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from prefloop.config import Section

EnsembleRule = Literal["mean", "worst", "mean_minus_variance"]


def _refuse_idle(section: Section, names: tuple[str, ...], without: str) -> None:
    """Raise ValueError where one of the settings `names`, which nothing reads now, is not at its default."""
    for name in names:
        if getattr(section, name) != type(section).model_fields[name].default:
            raise ValueError(f"{name} has no effect without {without}; leave it out")


class ScoringConfig(Section):
    """How an ensemble's members become one score, and how a reward server is asked."""

    model_config = ConfigDict(allow_inf_nan=False)

    ensemble: EnsembleRule = "mean"
    """One score from an ensemble's members: their mean, the worst, or the mean minus ensemble_lambda x variance."""
    ensemble_lambda: PositiveFloat = 0.5
    """Weight of the members' variance, with ensemble mean_minus_variance."""
    timeout_seconds: PositiveFloat = 60.0
    """Longest wait for a reward server: to connect, and for each part of its answer."""
    retries: NonNegativeInt = 5
    """How often a reward server is asked again that is away, too slow or failing, before the run stops (resumable)."""
    retry_seconds: PositiveFloat = 1.0
    """Wait before the first repetition; it doubles each time."""
    server_token_env: str | None = None
    """Environment variable that holds the bearer token of a reward server."""
    server_prompt_template: str = "{}"
    """A prompt as a reward server gets it, {} standing for its text (for servers that score one templated text)."""

    @model_validator(mode="after")
    def _read_settings(self) -> ScoringConfig:
        if self.ensemble != "mean_minus_variance":
            _refuse_idle(self, ("ensemble_lambda",), "ensemble mean_minus_variance")
        if self.retries == 0:
            _refuse_idle(self, ("retry_seconds",), "retries")
        if self.server_prompt_template.count("{}") != 1:
            raise ValueError("server_prompt_template must hold {} once, where the prompt goes")
        return self


class ShapingConfig(Section):
    """From the scorer's scores to the scores that are optimised, in the order of these settings."""

    model_config = ConfigDict(allow_inf_nan=False)

    score_clip: PositiveFloat = 5.0
    """Scores are cut off at +- this."""
    relative_to_reference: bool = False
    """Score a response by how probably it is preferred to the reference's own responses to the prompt (PAR)."""
    num_reference_samples: PositiveInt = 1
    """Responses of the reference to each prompt that relative_to_reference compares with."""
    whiten_scores: bool = False
    """Scale scores to variance 1 over the round; the mean stays."""
    length_penalty_coef: NonNegativeFloat = 0.0
    """Price of each response token above free_length."""
    free_length: NonNegativeInt = 0
    """Response tokens without a price, with length_penalty_coef."""
    soft_overlong_cache: PositiveInt | None = None
    """A penalty that grows linearly to -1 over the last so many tokens before max_new_tokens (DAPO)."""
    truncated: Literal["keep", "score", "mask"] = "keep"
    """A response cut off by max_new_tokens keeps its score, gets truncated_score, or is left out of the loss."""
    truncated_score: float = -1.0
    """Score of a response that was cut off, with truncated score."""

    @model_validator(mode="after")
    def _read_settings(self) -> ShapingConfig:
        if not self.relative_to_reference:
            _refuse_idle(self, ("num_reference_samples",), "relative_to_reference")
        if self.length_penalty_coef == 0:
            _refuse_idle(self, ("free_length",), "a length_penalty_coef")
        if self.truncated != "score":
            _refuse_idle(self, ("truncated_score",), "truncated score")
        if self.whiten_scores and self.relative_to_reference:
            raise ValueError(
                "whiten_scores scales up again what relative_to_reference flattens, more so the less responses differ; "
                "leave one of them out"
            )
        return self

    def check_lengths(self, max_new_tokens: int) -> None:
        """Raise ValueError where responses of at most `max_new_tokens` leave a length setting without effect."""
        if self.length_penalty_coef and self.free_length >= max_new_tokens:
            raise ValueError(f"free_length {self.free_length} is no less than max_new_tokens {max_new_tokens}")
        if self.soft_overlong_cache is not None and self.soft_overlong_cache > max_new_tokens:
            raise ValueError(f"soft_overlong_cache {self.soft_overlong_cache} is above max_new_tokens {max_new_tokens}")


class RewardEvalConfig(Section):
    """Accuracy of a reward model on preference pairs, beside its baselines."""

    model: str
    """Reward model directory or run, file.py:function, or http://host:port/path; SPEC@WEIGHT weighs one."""
    data: str
    """File with preference pairs that the model did not see."""
    also: tuple[str, ...] = ()
    """Further ones: reward models make an ensemble, anything with a weight or of another kind a weighted sum."""
    scoring: ScoringConfig = ScoringConfig()
    """Ensembles and reward servers."""
    skip_bad: bool = False
    """Leave unusable rows out (they are counted and named) instead of stopping."""
    num_resamples: PositiveInt = 2000
    """Bootstrap resamples of conversations behind the interval."""
    protocol: str | None = None
    """Score the file as a benchmark does that sorts its pairs into subsets (column subset): rewardbench."""
    plot: str | None = None
    """File to write the reliability diagram to (SVG)."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Seed of the bootstrap and of the shuffled prompts."""


class RewardScoreConfig(Section):
    """Score responses, as JSON Lines."""

    model: str
    """Reward model directory or run, file.py:function, or http://host:port/path; SPEC@WEIGHT weighs one."""
    data: str
    """File with prompt and response (as `sample` writes), or prompt and completion."""
    out: str
    """File to write: the input rows with a score added, and for an ensemble a score_spread."""
    also: tuple[str, ...] = ()
    """Further ones: reward models make an ensemble, anything with a weight or of another kind a weighted sum."""
    scoring: ScoringConfig = ScoringConfig()
    """Ensembles and reward servers."""


class RewardServeConfig(Section):
    """Answer scores over HTTP, to prefloop and to OpenRLHF (POST /get_reward), until interrupted."""

    model: tuple[str, ...] = Field(min_length=1)
    """Reward model directory or run, file.py:function, or several of these; SPEC@WEIGHT weighs one."""
    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs token_env."""
    port: int = Field(8900, ge=0, lt=65536)
    """Port to listen on; 0 takes a free one."""
    token_env: str | None = None
    """Environment variable that holds the bearer token that clients must send."""
    max_body_bytes: PositiveInt = 16 * 1024 * 1024
    """Largest request."""
    max_batch: PositiveInt = 1024
    """Most responses in one request."""
    token_budget: PositiveInt = 2048
    """Padded tokens of a micro-batch; memory grows with it, results do not depend on it."""
    scoring: ScoringConfig = ScoringConfig()
    """Ensembles and reward servers that stand behind this one."""
