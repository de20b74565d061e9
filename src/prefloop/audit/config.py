"""What `audit data` is told, and from where on it warns or blocks. docs/audits.md has the reasons."""

from __future__ import annotations

from pydantic import Field, PositiveInt

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
