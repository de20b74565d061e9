"""How accurate a reward model is on pairs it did not see, beside what needs no reward model: a table and a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefloop.report.page import Block, Prose, Table
from prefloop.report.records import Record, parse
from prefloop.report.wording import count, number, signed

Interval = tuple[float, float]


class Baselines(Record):
    """Accuracies that need no reward model, or not the right prompt."""

    longer: float
    shorter: float
    shuffled_prompt: float | None


class Against(Record):
    """The reward model's accuracy minus that of a ruler of length."""

    difference: float
    interval: Interval
    p_value: float
    smallest_detectable: float | None
    """None: these pairs could show no difference at all."""


class Accuracy(Record):
    """What `reward crossval` answers."""

    accuracy: float
    accuracy_interval: Interval
    num_pairs: int
    num_conversations: int
    num_prompts_trained_on: int
    baselines: Baselines
    against_longer: Against
    against_shorter: Against
    fold_accuracies: tuple[float, ...]


def accuracy_blocks(answer: Mapping[str, Any], path: Path) -> list[Block]:
    """The answer of `reward crossval`, read from `path`, for people. Raises InputError if it is not one."""
    found = parse(answer, Accuracy, path)
    rows = [
        ["this reward model", _three(found.accuracy), _between(found.accuracy_interval)],
        ["the longer answer wins", _three(found.baselines.longer), ""],
        ["the shorter answer wins", _three(found.baselines.shorter), ""],
        ["this reward model, shown the prompt of another pair", _shuffled(found.baselines), ""],
    ]
    pairs = f"{count(found.num_pairs, 'pair')} of {count(found.num_conversations, 'conversation')}"
    folds = ", ".join(_three(accuracy) for accuracy in found.fold_accuracies)
    blocks: list[Block] = [
        Table(["accuracy", "share right", "95 % interval"], rows, caption=f"Over {pairs}."),
        _stronger_ruler(found),
        Prose(f"{folds}.", "Fold by fold."),
    ]
    if found.num_prompts_trained_on:
        warning = (
            f"{count(found.num_prompts_trained_on, 'prompt')} of these pairs were in the training data of the model "
            "that the reward model started from: for them this is no held-out accuracy."
        )
        blocks.append(Prose(warning, "Warning."))
    return blocks


def _stronger_ruler(found: Accuracy) -> Prose:
    """The comparison with whichever length people chose more often."""
    if found.baselines.longer >= found.baselines.shorter:
        return Prose(_verdict(found.against_longer), "Against the longer answer.")
    return Prose(_verdict(found.against_shorter), "Against the shorter answer.")


def _verdict(against: Against) -> str:
    low, high = against.interval
    if low <= 0 <= high:
        words = "No measurable difference"
    else:
        words = "The reward model is better" if low > 0 else "The reward model is worse"
    seen = (
        "These pairs could not have shown any difference."
        if against.smallest_detectable is None
        else f"A difference of {_three(against.smallest_detectable)} would have been found four times in five."
    )
    p_value = "under 0.001" if against.p_value < 0.001 else number(against.p_value, 3)
    return f"{words}: {signed(against.difference, 3)} (95 % interval {_between(against.interval)}; p {p_value}). {seen}"


def _shuffled(baselines: Baselines) -> str:
    return "no other prompt fits" if baselines.shuffled_prompt is None else _three(baselines.shuffled_prompt)


def _three(value: float) -> str:
    return number(value, 3)


def _between(interval: Interval) -> str:
    return f"{_three(interval[0])} to {_three(interval[1])}"
