"""After the last step of a reward model: one head of several, scores of known scale, a temperature, a card.

Scale and temperature are written into the model's config: `reward_mean` and `reward_std` of raw scores on reference
responses, and `reward_temperature`, by which the difference of two normalised scores is divided to be a log-odds. Its
name is not `temperature`, which transformers refuses in the config of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefloop.console import say
from prefloop.models.batching import collate, micro_batches
from prefloop.models.chat import Chat, Encoded
from prefloop.models.forward import head_scores
from prefloop.models.heads import join_heads, joined_heads
from prefloop.models.load import load_policy, save_model
from prefloop.reward.evaluate import margins_of, shuffled_margins
from prefloop.reward.measures import summarise
from prefloop.reward.model import RewardModel
from prefloop.reward.scoring import Scorer
from prefloop.rollout.respond import fitting_prompts, respond
from prefloop.rundir import RunDir
from prefloop.statistics.calibration import usable_temperature
from prefloop.train.config import RewardConfig
from prefloop.train.loop import TrainState, last_metrics
from prefloop.train.pairs import EncodedPair, load_pairs, pair_scores
from prefloop.train.result import save_result, write_whole
from prefloop.train.reward_card import write_card
from prefloop.types import PreferencePair, Prompt

NORMALISED_ON = 512
"""Pairs whose scores give reward_mean and reward_std."""


def finish_model(
    config: RewardConfig,
    run: RunDir,
    state: TrainState,
    start: Path,
    rows: Sequence[EncodedPair],
    held_out: Sequence[PreferencePair],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Make the trained model of a run the one that others use, and write it. The run's metrics and outputs."""
    model, chat = state.models["reward"], state.chat
    scores = _reference_scores(config, run, model, chat, start, rows)
    means, spreads = scores.mean(0), scores.std(0).clamp(min=1e-6)
    outputs: dict[str, str] = {}
    if config.odin is not None:
        combination = [1.0, 0.0]
    elif config.heads is not None:
        outputs = _write_heads(config.heads.names, run.path, model, chat, means, spreads)
        combination = (torch.tensor(config.heads.combination()) / spreads).tolist()
    else:
        combination = [1.0]
    if len(combination) > 1:
        join_heads(model, combination)
    joined = (scores @ scores.new_tensor(combination)).tolist()
    model.config.reward_mean, model.config.reward_std = fmean(joined), max(stdev(joined), 1e-6)
    scorer = RewardModel(model, chat, version="in training", token_budget=config.token_budget)
    summary = calibrated_summary(scorer, held_out, seed=config.seed)
    model.config.reward_temperature = None if summary is None else summary["temperature"]
    saved = save_result(state, run.path, lambda directory: write_card(directory, config, run, summary))
    return last_metrics(run), outputs | saved


def calibrated_summary(scorer: Scorer, held_out: Sequence[PreferencePair], *, seed: int) -> dict[str, Any] | None:
    """The answer of `reward eval` on the held-out pairs with the temperature that fits them; None without any.

    The temperature is fitted on the same pairs that it is judged on (and that chose the checkpoint): one number, so
    the log-loss that is told is a little too good, and the accuracy is not touched.
    """
    if len({pair.prompt.prompt_id for pair in held_out}) < 2:
        return None
    pairs = list(held_out)
    margins = margins_of(scorer, pairs, [pair.prompt for pair in pairs])
    temperature, reason = usable_temperature(margins)
    if temperature is None:
        say(f"no calibration temperature: {reason}")
    shuffled = shuffled_margins(scorer, pairs, seed)
    return summarise(pairs, margins, shuffled, num_resamples=2000, seed=seed, temperature=temperature)


def _write_heads(
    names: Sequence[str], root: Path, model: PreTrainedModel, chat: Chat, means: Tensor, spreads: Tensor
) -> dict[str, str]:
    """Write each head as a reward model of its own; name -> directory, relative to `root`."""
    (root / "heads").mkdir(exist_ok=True)
    for number, name in enumerate(names):
        with joined_heads(model, [float(place == number) for place in range(len(names))]):
            model.config.reward_mean, model.config.reward_std = float(means[number]), float(spreads[number])
            write_whole(root / "heads" / name, lambda directory: save_model(model, chat, directory))
    return {name: f"heads/{name}" for name in names}


def _reference_scores(
    config: RewardConfig, run: RunDir, model: PreTrainedModel, chat: Chat, start: Path, rows: Sequence[EncodedPair]
) -> Tensor:
    """[N, K] raw scores that give mean and deviation: of sampled responses, or of those of training pairs."""
    if not config.reference_samples:
        return pair_scores(model, chat, rows[:NORMALISED_ON], token_budget=config.token_budget).flatten(0, 1).cpu()
    sampled = _sampled_rows(config, chat, start, run)
    return _row_scores(model, chat, sampled, token_budget=config.token_budget).cpu()


def _distinct_prompts(config: RewardConfig) -> list[Prompt]:
    train, _ = load_pairs(config)
    return list({pair.prompt.prompt_id: pair.prompt for pair in train}.values())


def _sampled_rows(config: RewardConfig, chat: Chat, start: Path, run: RunDir) -> list[Encoded]:
    """Responses of the starting model to training prompts, as the reward model reads them."""
    policy, policy_chat = load_policy(start)
    prompts = fitting_prompts(policy, policy_chat, _distinct_prompts(config), config.reference_max_new_tokens)
    asked = [prompts[place % len(prompts)] for place in range(config.reference_samples)]
    say(f"{run.path}: sampling {len(asked)} responses of the starting model for the scale of the scores")
    responses = respond(
        policy,
        policy_chat,
        asked,
        max_new_tokens=config.reference_max_new_tokens,
        temperature=1.0,
        seed=config.seed,
    )
    return [
        chat.encode_response(prompt.messages, response.text, finished=response.finish_reason == "stop")
        for prompt, response in zip(asked, responses, strict=True)
    ]


@torch.no_grad()
def _row_scores(model: PreTrainedModel, chat: Chat, rows: Sequence[Encoded], *, token_budget: int) -> Tensor:
    found = [torch.empty(0)] * len(rows)
    for index in micro_batches([len(row.ids) for row in rows], token_budget=token_budget):
        batch = collate([rows[row] for row in index], pad_id=chat.pad_id, device=model.device)
        for row, scores in zip(index, head_scores(model, batch), strict=True):
            found[row] = scores
    return torch.stack(found)
