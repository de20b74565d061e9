"""Sections of `RewardConfig`: what can be done about shortcuts in the labels, several heads, ensembles. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, model_validator

from prefloop.config import Section

Habit = Literal[
    "hedging", "confidence", "citation", "disclaimer", "flattery", "list_format", "exclamation", "repetition"
]


class OdinConfig(Section):
    """A second head that takes the length and is thrown away (ODIN). Off unless one of these settings is given."""

    model_config = ConfigDict(allow_inf_nan=False)

    length_coef: NonNegativeFloat = 1.0
    """Weight of |correlation of quality and length| minus the correlation of the length head and length."""
    orthogonality_coef: NonNegativeFloat = 1.0
    """Weight of the cosine between the two heads."""


class HeadsConfig(Section):
    """Several heads on one trunk, each trained on the pairs of its dimension. Off unless names are given."""

    model_config = ConfigDict(allow_inf_nan=False)

    names: tuple[str, ...] = Field(min_length=2)
    """The dimensions, as the column names them, for example helpful harmless."""
    column: str = "dimension"
    """Column that says which dimension a pair was judged by; source is one, too."""
    weights: tuple[float, ...] = ()
    """Weight of each dimension's normalised score in the model's one score; empty: all the same, together 1."""

    @model_validator(mode="after")
    def _one_weight_each(self) -> HeadsConfig:
        if len(set(self.names)) < len(self.names):
            raise ValueError("names has a dimension twice")
        if any(not name.replace("-", "").replace("_", "").isalnum() for name in self.names):
            raise ValueError("names become directories: give letters, digits, - and _ only")
        if self.weights and len(self.weights) != len(self.names):
            raise ValueError(f"weights has {len(self.weights)} numbers for {len(self.names)} names")
        if self.weights and not any(self.weights):
            raise ValueError("weights are all 0")
        return self

    def combination(self) -> tuple[float, ...]:
        """The weight of each dimension."""
        return self.weights or (1.0 / len(self.names),) * len(self.names)


class AugmentConfig(Section):
    """Counterfactual pairs that are added to the training pairs, never to the held-out ones."""

    mismatched_fraction: float = Field(0.0, ge=0, le=1)
    """Share of the pairs that give another: their chosen response beats that of another prompt."""
    neutral_fraction: float = Field(0.0, ge=0, le=1)
    """Share of the pairs that give another: one of their responses ties with itself and a neutral sentence."""
    habits: tuple[Habit, ...] = ()
    """Habits of speech that are to be worth less: a response with one in it loses against the same one without it."""
    habit_fraction: float = Field(0.2, gt=0, le=1)
    """Share of the pairs that give another for the habits: more takes more away, too much teaches dislike."""

    @model_validator(mode="after")
    def _fraction_of_something(self) -> AugmentConfig:
        if not self.habits and self.habit_fraction != type(self).model_fields["habit_fraction"].default:
            raise ValueError("habit_fraction has no effect without habits; name some, or leave it out")
        return self


class MembersConfig(Section):
    """An ensemble in place of one model: `model` is a directory of members. Off unless one of these is given."""

    size: int = Field(5, ge=2, le=100)
    """Members, trained one after the other."""
    by: Literal["seed", "bootstrap"] = "seed"
    """Members differ by head, data order and augmentation, or also by the conversations, drawn with replacement."""
