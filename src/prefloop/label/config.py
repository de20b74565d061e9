"""Settings of the labelling station's commands."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from prefloop.config import Section


class Quotas(Section):
    """What share of the work is for measuring the annotators."""

    overlap: float = Field(0.2, ge=0, le=1)
    """Share of the items that get a second annotator."""
    repeats: float = Field(0.05, ge=0, le=0.5)
    """Share of an annotator's tasks that are earlier ones again, unannounced, with the sides drawn anew."""
    gold: float = Field(0.05, ge=0, le=0.5)
    """Share of an annotator's tasks that are gold questions, as far as there are any."""
    repeat_gap: NonNegativeInt = 10
    """Tasks that lie at least between an item and its repetition."""
    lease_seconds: PositiveFloat = 1800
    """How long a task waits for its annotator before others may get it."""


class DatabaseSection(Section):
    """What every command of the labelling station takes."""

    database: str = "label.sqlite"
    """SQLite file, or the URL of a PostgreSQL database (postgresql://user@host/name)."""


class ImportConfig(DatabaseSection):
    """Put questions into the labelling database: all rows of the file, or none. What is there already stays."""

    file: str
    """Comparisons (response_a, response_b), pairs (chosen, rejected), responses to prompts, or a review queue."""
    pairs_per_prompt: PositiveInt = 6
    """Of prompts that come with several responses: how many pairs of them are asked at most, drawn by lot."""


class InviteConfig(DatabaseSection):
    """Make a one-time invitation; who uses it can sign in and vote."""

    name: str = Field(min_length=1, max_length=100)
    """Name of the person; of somebody who is there already, the invitation is a new way in."""
    role: Literal["annotator", "reviewer", "owner"] = "annotator"
    """What the person may do."""
    who: str | None = None
    """Who invites; by default the user of the operating system."""


class BackupConfig(DatabaseSection):
    """Copy a labelling database in use, consistently."""

    out: str
    """File to write; one that exists is never overwritten."""
