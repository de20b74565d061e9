"""An ensemble by one command: members are trained one after the other, each in a run directory of its own.

    members/member-00/      the run of the first member; its model is members/member-00/model
    members/ensemble.json   the temperature of the mean of the members' normalised scores
    members/README.md       the card

A killed run goes on with the member in hand. Members hold out the same conversations, so the ensemble can be judged on
pairs that none of them was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from prefloop.console import say
from prefloop.models.load import default_device
from prefloop.reward.scoring import ENSEMBLE_FILE, load_scorer, reward_models
from prefloop.rundir import RunDir, write_json
from prefloop.train.config import RewardConfig, RewardMemberConfig
from prefloop.train.pairs import encode_pairs, load_pairs
from prefloop.train.reward_card import write_card
from prefloop.train.reward_finish import calibrated_summary
from prefloop.types import RunResult

FOLDER = "members"
TrainModel = Callable[[RewardConfig, RunDir, Path], RunResult]


def train_members(
    config: RewardConfig,
    run: RunDir,
    inputs: Mapping[str, Path],
    train_model: TrainModel,
    *,
    next_command: str,
) -> RunResult:
    """Train the members that are missing and write the ensemble's files. Raises what `train_model` raises."""
    assert config.members is not None
    root = run.path / FOLDER
    results = []
    for number in range(config.members.size):
        say(f"member {number + 1} of {config.members.size}")
        results.append(_train_member(config, number, root / f"member-{number:02d}", inputs, train_model))
    scorer = load_scorer(str(root), device=default_device(), token_budget=config.token_budget)
    first = reward_models(scorer)[0]
    # As each member left the over-long ones out.
    held_out, _ = encode_pairs(config, first.model, first.chat, load_pairs(config)[1], may_be_none=True)
    summary = calibrated_summary(scorer, held_out, seed=config.seed)
    write_json(root / ENSEMBLE_FILE, {"reward_temperature": None if summary is None else summary["temperature"]})
    write_card(root, config, run, summary)
    metrics: dict[str, Any] = {"num_members": len(results)}
    if summary is not None:
        metrics |= {"eval/accuracy": summary["accuracy"], "eval/loss": summary["log_loss"]}
        metrics |= {"member_accuracy": fmean(result.metrics["eval/accuracy"] for result in results)}
    return run.finish(stopped="done", metrics=metrics, outputs={"model": FOLDER}, next_command=next_command)


def _train_member(
    config: RewardConfig, number: int, out: Path, inputs: Mapping[str, Path], train_model: TrainModel
) -> RunResult:
    settings = {name: getattr(config, name) for name in RewardConfig.model_fields}
    member = RewardMemberConfig.model_validate({**settings, "out": str(out), "member": number})
    with RunDir("train reward", member, inputs) as run:
        finished = run.finished
        return finished if finished is not None else train_model(member, run, inputs["model"])
