"""Configs of the `data` commands."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from prefloop.config import Section

RecordKind = Literal["auto", "pairs", "demonstrations", "unpaired", "prompts"]


class DataCheckConfig(Section):
    """Validate a data file and say what is in it."""

    file: str
    """Data file: .jsonl, .jsonl.gz, .json or .parquet."""
    kind: RecordKind = "auto"
    """What its rows are read as; auto: by the fields of the first rows. Rankings, ratings and judgments are pairs."""
    skip_bad: bool = False
    """Report unusable rows as part of the answer instead of stopping."""
    max_chars: PositiveInt = 8192
    """Responses longer than this are reported as over-long."""


class DataConvertConfig(Section):
    """Convert a data file to the standard columns of another kind."""

    file: str
    """Data file: .jsonl, .jsonl.gz, .json or .parquet."""
    to: Literal["pairs", "demonstrations", "prompts"]
    """What to write. Demonstrations come from pairs too (the chosen response), prompts from every kind."""
    out: str
    """File to write, ending in .jsonl; an existing one is never replaced by other content."""
    skip_bad: bool = False
    """Leave unusable rows out (they are counted and named) instead of stopping."""


class DataSplitConfig(Section):
    """Split a data file by prompt: no prompt, nor another turn of its conversation, is on both sides."""

    file: str
    """Data file: .jsonl, .jsonl.gz, .json or .parquet."""
    out: str
    """Directory for train.jsonl and eval.jsonl, or for fold-0.jsonl, fold-1.jsonl, ..."""
    kind: RecordKind = "auto"
    """What its rows are read as; auto: by the fields of the first rows. Rankings, ratings and judgments are pairs."""
    eval_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the prompts on the eval side."""
    folds: NonNegativeInt = Field(0, le=1000)
    """Number of folds to write instead of two sides; 0 for two sides."""
    seed: int = 0
    """Another seed gives another split."""
    skip_bad: bool = False
    """Leave unusable rows out (they are counted and named) instead of stopping."""
