"""`reward crossval`: every pair scored once, by a reward model that did not see its prompt.

The conversations are dealt into folds by hash; for each fold a reward model is trained on the other folds, by the same
function as `train reward`. Scores are normalised by each model's own mean and standard deviation before they are
pooled, since raw scores of different models have no common scale; accuracy does not depend on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.console import say
from prefloop.data.lineage import prompts_met
from prefloop.data.read import read_pairs
from prefloop.data.split import conversation_key, fold_of
from prefloop.data.write import write_records
from prefloop.models.load import default_device, new_reward_model
from prefloop.recipes.config import RewardCrossvalConfig
from prefloop.recipes.scenario import stored_answer
from prefloop.reward.evaluate import margins_of, shuffled_margins
from prefloop.reward.measures import summarise
from prefloop.reward.scoring import load_scorer
from prefloop.rundir import RunDir, resolve_model, write_rows
from prefloop.statistics.pairwise import accuracy_with_ties
from prefloop.train import reward as reward_trainer
from prefloop.train.config import RewardConfig
from prefloop.train.offline import data_audits, input_files
from prefloop.train.pairs import encode_pairs
from prefloop.types import InputError, PreferencePair


@dataclass(frozen=True)
class Scored:
    """A pair as the model that did not see its prompt scores it; margins are chosen minus rejected, normalised."""

    pair: PreferencePair
    fold: int
    margin: float
    shuffled_margin: float | None
    """With the prompt of another pair of the fold."""


def run(config: RewardCrossvalConfig) -> dict[str, Any]:
    """Run (or resume) the folds; answers as `reward eval` does, over all pairs, with the accuracy of each fold.

    `margins.jsonl` in the run directory has a row for each pair, so that the answer can be taken apart.
    """
    start = resolve_model(config.model, "model")
    inputs = {"model": start, **input_files("data", config.data)}
    with RunDir("reward crossval", config, inputs, data_audits(config.data, config.accept_findings)) as run_dir:
        if run_dir.finished:
            return stored_answer(run_dir.path)
        folds = _deal(config, start)
        met = prompts_met(config.model, {pair.prompt.prompt_id for fold in folds for pair in fold})
        scored: list[Scored] = []
        for number, held_out in enumerate(folds):
            say(f"fold {number + 1} of {config.num_folds}: {len(held_out)} pairs held out")
            model = _train_without(config, run_dir.path / f"fold-{number}", number, folds)
            scored += _score(config, model, number, held_out)
        write_rows(run_dir.path / "margins.jsonl", [_row(each) for each in scored])
        answer = summarise(
            [each.pair for each in scored],
            [each.margin for each in scored],
            [each.shuffled_margin for each in scored],
            num_resamples=config.num_resamples,
            seed=config.seed,
        )
        accuracies = [
            accuracy_with_ties([each.margin for each in scored if each.fold == number])
            for number in range(config.num_folds)
        ]
        answer |= {"num_prompts_trained_on": len(met)}
        answer |= {"num_folds": config.num_folds, "fold_accuracies": accuracies}
        run_dir.finish(stopped="done", metrics={}, outputs={"margins": "margins.jsonl"}, answer=answer)
        return answer


def _score(config: RewardCrossvalConfig, model: str, number: int, held_out: list[PreferencePair]) -> list[Scored]:
    scorer = load_scorer(model, device=default_device(), token_budget=config.token_budget)
    margins = margins_of(scorer, held_out, [pair.prompt for pair in held_out])
    shuffled = shuffled_margins(scorer, held_out, config.seed)
    found = zip(held_out, margins, shuffled, strict=True)
    return [Scored(pair, number, margin, swapped) for pair, margin, swapped in found]


def _row(scored: Scored) -> dict[str, Any]:
    """A line of margins.jsonl."""
    return {
        "place": scored.pair.place,
        "pair_id": scored.pair.pair_id,
        "prompt_id": scored.pair.prompt.prompt_id,
        "conversation": conversation_key(scored.pair),
        "fold": scored.fold,
        "margin": scored.margin,
        "shuffled_prompt_margin": scored.shuffled_margin,
    }


def _deal(config: RewardCrossvalConfig, start: Path) -> list[list[PreferencePair]]:
    """The pairs by fold, over-long ones left out as in training.

    Raises InputError where a fold would have fewer than two prompts, or files are weighted.
    """
    pairs = read_pairs(config.data, skip_bad=config.skip_bad).records
    if any(pair.weight != 1 for pair in pairs):
        raise InputError("weights have no effect here", field="data", remedy="leave them out")
    model, chat = new_reward_model(start, seed=config.seed)
    pairs, _ = encode_pairs(config, model, chat, pairs)
    folds: list[list[PreferencePair]] = [[] for _ in range(config.num_folds)]
    for pair in pairs:
        folds[fold_of(conversation_key(pair), num_folds=config.num_folds, seed=config.seed)].append(pair)
    # A fold with a single prompt has no other one to shuffle it with.
    if min(len({pair.prompt.prompt_id for pair in fold}) for fold in folds) < 2:
        num_conversations = len({conversation_key(pair) for pair in pairs})
        raise InputError(
            f"{num_conversations} different conversations are too few for {config.num_folds} folds",
            field="num_folds",
            remedy="lower it",
        )
    return folds


def _train_without(config: RewardCrossvalConfig, out: Path, number: int, folds: list[list[PreferencePair]]) -> str:
    """Train on all folds but one; the run directory. The training file is the same at every start, so runs resume."""
    data = out.with_suffix(".jsonl")
    if not data.exists():
        write_records(data, [pair for other, fold in enumerate(folds) if other != number for pair in fold])
    settings = {name: getattr(config, name) for name in RewardConfig.model_fields}
    reward_trainer.train(
        RewardConfig.model_validate({**settings, "data": (str(data),), "out": str(out)}), look_up_audits=False
    )
    return str(out)
