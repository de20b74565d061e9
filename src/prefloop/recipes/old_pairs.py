"""The pairs that a reward model in use was trained on, and those of them that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prefloop.console import say
from prefloop.data.read import read_pairs
from prefloop.data.split import conversation_key, split_of
from prefloop.rundir import read_json
from prefloop.types import PreferencePair
from prefloop.yaml_tree import read_yaml


@dataclass(frozen=True)
class OldPairs:
    """Pairs to measure a reward model on."""

    pairs: list[PreferencePair]
    held_out: bool
    """Whether it was not trained on them; they may have chosen its checkpoint and its temperature."""


def old_pairs(
    reward: str, files: Sequence[str], *, skip_bad: bool, at_most: int | None = None, seed: int = 0
) -> OldPairs:
    """The pairs that the run of `reward` held out: its --eval-data, or its share of the conversations in `files`.

    All pairs of `files` where there is no such run, or it held nothing out. Of more than `at_most` a random part.
    """
    found = _held_out(Path(reward), files, skip_bad=skip_bad)
    if not found:
        say("warning: which pairs the reward model in use held out is not known: part of the shift may be its memory")
    pairs = found or read_pairs(files, skip_bad=skip_bad).records
    if at_most is not None and len(pairs) > at_most:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(pairs))[:at_most])
        pairs = [pairs[place] for place in chosen]
    return OldPairs(pairs, bool(found))


def _held_out(run: Path, files: Sequence[str], *, skip_bad: bool) -> list[PreferencePair]:
    if not (run / "config.yaml").is_file() or read_json(run / "inputs.json").get("command") != "train reward":
        return []
    config = read_yaml(run / "config.yaml").tree
    if named := [str(file) for file in config["eval_data"]]:
        return read_pairs(named, skip_bad=skip_bad).records if all(Path(file).is_file() for file in named) else []
    share, seed = float(config["eval_fraction"]), int(config["seed"])
    return [
        pair
        for pair in read_pairs(files, skip_bad=skip_bad).records
        if split_of(conversation_key(pair), eval_fraction=share, seed=seed) == "eval"
    ]
