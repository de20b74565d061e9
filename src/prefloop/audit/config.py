"""What the audits are told, and from where on they warn or block. docs/audits.md has the reasons."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from prefloop.config import Section


class Thresholds(Section):
    """From where on a finding warns, and from where on it blocks."""

    min_pairs: PositiveInt = 10
    """Discordant pairs, or rows, below which nothing is claimed."""
    significance: float = Field(0.05, gt=0, lt=1)
    """Chance of any false claim among all shortcut probes together (Holm)."""
    shortcut_warn: float = Field(0.1, gt=0, lt=0.5)
    """Distance of a shortcut's rate from one half that warns."""
    shortcut_block: float = Field(0.25, gt=0, lt=0.5)
    """Distance of the whole interval of a shortcut's rate from one half that blocks."""
    block_share: float = Field(0.05, ge=0, le=1)
    """Share of all pairs that must be discordant before a shortcut blocks."""
    coverage: PositiveInt = 10
    """Prompts on each side of the refusal boundary."""
    coverage_ratio: float = Field(0.2, ge=0, le=1)
    """Prompts on the rarer side of the refusal boundary for each on the other side."""
    duplicates_warn: float = Field(0.05, gt=0, le=1)
    """Share of repeated rows, exact or near, that warns."""
    conflicts_warn: float = Field(0.01, gt=0, le=1)
    """Share of the pairs that stand in both orders that warns."""
    conflicts_block: float = Field(0.2, gt=0, le=1)
    """Share of the pairs that stand in both orders that blocks."""
    leakage_block: float = Field(0.05, gt=0, le=1)
    """Share of the held-out conversations found in the file that blocks; a single one warns."""
    noise_warn: float = Field(0.2, gt=0, le=0.5)
    """Estimated share of wrong labels that warns."""
    noise_block: float = Field(0.4, gt=0, le=0.5)
    """Estimated share of wrong labels that blocks."""
    learnable: float = Field(0.55, gt=0.5, lt=1)
    """Labels that neither words nor a ruler predict block where even this accuracy is ruled out."""
    alpha_warn: float = Field(0.3, ge=0, le=1)
    """Krippendorff's alpha below which annotators are warned of."""
    alpha_block: float = Field(0.1, ge=0, le=1)
    """Krippendorff's alpha that blocks where the whole interval is below it."""
    position_warn: float = Field(0.05, gt=0, lt=0.5)
    """Distance from one half of the share of votes for the response shown first that warns."""
    position_block: float = Field(0.25, gt=0, lt=0.5)
    """The same distance for the whole interval that blocks."""


class AuditDataConfig(Section):
    """Is preference data fit to be optimised against? Exit code 1 where it is not."""

    file: str
    """Preference pairs, rankings, ratings or judgments: .jsonl, .jsonl.gz, .json or .parquet."""
    eval_data: tuple[str, ...] = ()
    """Held-out files that must share no conversation with the file."""
    html: str | None = None
    """Also write the report as one HTML page to this file."""
    audits: str = "audits"
    """Directory where the report is kept, under the sha256 of the file, for training to find."""
    skip_bad: bool = False
    """Do not hold unusable rows against the file; they are left out and counted either way."""
    thresholds: Thresholds = Thresholds()
    """From where on a finding warns, and from where on it blocks."""


class DataBalanceConfig(Section):
    """Write a preference file without what an audit found against it."""

    file: str
    """Preference pairs, rankings, ratings or judgments: .jsonl, .jsonl.gz, .json or .parquet."""
    out: str
    """File to write, ending in .jsonl; an existing one is never replaced by other content."""
    signals: tuple[str, ...] = ()
    """Signals (length, citation, ...) that the labels are to prefer in half of the pairs that differ in them."""
    drop: tuple[Literal["duplicates", "near_duplicates", "conflicts", "leakage"], ...] = ()
    """Findings whose rows are left out: all but the first of repeated ones, both orders of contradicted ones."""
    eval_data: tuple[str, ...] = ()
    """Held-out files whose conversations "leakage" leaves out."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Which of the pairs that are too many go."""
    skip_bad: bool = False
    """Leave unusable rows out (they are counted) instead of stopping."""


class RewardThresholds(Section):
    """From where on a finding about a reward model warns, and from where on it blocks."""

    min_pairs: PositiveInt = 10
    """Conversations, or discordant pairs, below which nothing is claimed."""
    significance: float = Field(0.05, gt=0, lt=1)
    """Chance of any false claim among all counterfactual probes together (Holm)."""
    accuracy_block: float = Field(0.6, gt=0.5, lt=1)
    """A model that is not shown to be better than a coin warns, and blocks where even this accuracy is ruled out."""
    effect_warn: PositiveFloat = 0.25
    """What a habit of speech adds to a score, in typical differences between two responses of a pair, that warns."""
    effect_block: PositiveFloat = 1.0
    """The same for the whole interval that blocks."""
    calibration_warn: float = Field(0.1, gt=0, lt=0.5)
    """Expected calibration error that warns where chance does not explain it."""
    disagreement_warn: PositiveFloat = 1.0
    """An ensemble that is fooled and disagrees on the probes no more than this times as much as on the file is warned
    of."""
    far_share: float = Field(0.05, gt=0, lt=0.5)
    """Share of held-out responses that are to lie beyond the distance from which on a response counts as far."""
    far_warn: float = Field(0.2, gt=0, le=1)
    """Share of the policy's samples that are far from the training responses that warns."""
    far_block: float = Field(0.5, gt=0, le=1)
    """The same for the whole interval that blocks."""
    spread_warn: PositiveFloat = 0.1
    """Standard deviation of the scores of one prompt's samples, in typical differences, below which is warned."""
    coverage: PositiveInt = 10
    """Prompts on each side of the refusal boundary."""


class AuditRewardConfig(Section):
    """Is a reward model fit to be optimised against? Exit code 1 where it is not."""

    model: str
    """Reward model directory or run, or file.py:function."""
    file: str
    """Preference pairs that the model did not see: .jsonl, .jsonl.gz, .json or .parquet."""
    other_data: tuple[str, ...] = ()
    """Preference pairs of another kind, for the calibration out of distribution."""
    train_data: tuple[str, ...] = ()
    """Pairs whose responses are what the model knows; by default those of the file."""
    samples: str | None = None
    """Responses of the policy that is to be tuned, as `prefloop sample` writes them; several to a prompt."""
    html: str | None = None
    """Also write the report as one HTML page to this file."""
    audits: str = "audits"
    """Directory where the report is kept, under the sha256 of the model, for training to find."""
    num_pairs: PositiveInt = 1000
    """Most pairs of each file that are scored."""
    num_probes: PositiveInt = 200
    """Most responses that each probe is put into, of as many conversations as there are."""
    token_budget: PositiveInt = 2048
    """Padded tokens of a micro-batch; memory grows with it, results do not depend on it."""
    skip_bad: bool = False
    """Leave unusable or over-long rows out (they are counted) instead of stopping."""
    seed: int = Field(0, ge=0, lt=10**9)
    """Seed of where the probes are put, and of the bootstrap."""
    thresholds: RewardThresholds = RewardThresholds()
    """From where on a finding warns, and from where on it blocks."""

    @model_validator(mode="after")
    def _training_data_needs_samples(self) -> AuditRewardConfig:
        if self.train_data and self.samples is None:
            raise ValueError("train_data has no effect without samples; leave it out")
        return self
