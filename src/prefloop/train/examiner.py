"""What the stored responses of a round are beside their scores: three columns of the rollout log, for the monitor.

    held_out_score        what `eval_reward` says of them, which nothing is optimised against
    shuffled_score        what the reward says of each under another prompt: paid for whatever was asked
    out_of_distribution   whether the state that the reward model scores lies farther from those of pairs that it knows
                          than nearly all of the held-out known ones do

Models are frozen and nothing is drawn at random in a round, so a run that goes on measures what it would have.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from prefloop.console import say
from prefloop.data.lineage import training_files_of_run
from prefloop.data.read import iter_pairs
from prefloop.data.split import conversation_key
from prefloop.reward.model import RewardModel
from prefloop.reward.remote import is_server
from prefloop.reward.scorer import Response, Scorer
from prefloop.reward.scoring import first_reward_model, parse_spec, reward_models
from prefloop.reward.user_code import is_user_code
from prefloop.statistics.distance import FEWEST, Cloud, distances, far_limit
from prefloop.train.config import PolicyConfig
from prefloop.types import InputError, PreferencePair, Prompt


@dataclass(frozen=True)
class Examined:
    """Columns of the rollout log, one value a stored response; None where it was not measured."""

    held_out: Sequence[float | None]
    shuffled: Sequence[float | None]
    far: Sequence[bool | None]

    @property
    def metrics(self) -> dict[str, float]:
        """Of the held-out score; the rest is the monitor's."""
        known = [score for score in self.held_out if score is not None]
        return {"held_out/score": float(np.mean(known))} if known else {}


class Examiner:
    """The models that are asked, and how far from known responses is far.

    Raises InputError for `known_data` without a reward model.
    """

    def __init__(self, config: PolicyConfig, scorer: Scorer, held_out: Scorer | None) -> None:
        self.scorer, self.models = scorer, reward_models(scorer)
        directory = first_reward_model(config.reward)
        self.model = next((model for model in self.models if directory is not None and model.path == directory), None)
        self.held_out = held_out if config.examine.held_out else None
        names = [parse_spec(each).name for each in config.reward]
        asks_others = any(is_server(name) or is_user_code(name) for name in names)
        self.shuffles = {"always": True, "never": False, "models": not asks_others}[config.examine.shuffled_prompts]
        self.config = config
        if self.model is None and config.examine.known_data:
            problem = "has no effect without a reward model on this machine"
            raise InputError(problem, field="examine.known_data", remedy="leave it out")

    @cached_property
    def known(self) -> tuple[float, Cloud] | None:
        """The limit of the distance, and the cloud that it is measured from; None where none is measured."""
        config, settings = self.config, self.config.examine
        if self.model is None or not settings.known_pairs:
            return None
        sources = settings.known_data or [str(path) for path in known_files(config)]
        if not sources:
            say("the reward model's pairs were not found: no out_of_distribution (--examine.known-data names some)")
            return None
        pairs = [pair for pair in _drawn(sources, settings.known_pairs, config.seed) if _fits(self.model, pair)]
        clusters = [conversation_key(pair) for pair in pairs for _ in range(2)]
        if len(clusters) < FEWEST or len(set(clusters)) < 2:
            problem = f"{len(pairs)} known pairs are too few to say what is far from them"
            if settings.known_data:
                raise InputError(problem, field="examine.known_data", remedy=f"give {FEWEST // 2} pairs or more")
            say(f"{problem}: no out_of_distribution")
            return None
        states = self.model.states(
            [pair.prompt for pair in pairs for _ in range(2)],
            [Response(side) for pair in pairs for side in (pair.chosen, pair.rejected)],
        )
        return far_limit(states.numpy(), clusters, share=settings.far_share)

    def examine(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Examined:
        """Measure the stored responses of a round. Raises what the scorers raise, and InputError for `known_data` that
        cannot be used."""
        nothing: list[None] = [None] * len(prompts)
        if not prompts:
            return Examined(nothing, nothing, nothing)
        return Examined(
            nothing if self.held_out is None else self.held_out.score(prompts, responses),
            self._shuffled(prompts, responses) if self.shuffles else nothing,
            nothing if self.known is None else self._far(prompts, responses),
        )

    def _shuffled(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float | None]:
        """Scores under the next other prompt of the round, which is in random order; None where that does not fit."""
        others = other_prompts(prompts)
        where = [
            place
            for place, (other, response) in enumerate(zip(others, responses, strict=True))
            if other is not None and all(model.fits(other, response) for model in self.models)
        ]
        asked = [other for place in where if (other := others[place]) is not None]
        found: list[float | None] = [None] * len(prompts)
        scores = self.scorer.score(asked, [responses[place] for place in where]) if where else []
        for place, score in zip(where, scores, strict=True):
            found[place] = score
        return found

    def _far(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[bool | None]:
        assert self.model is not None and self.known is not None
        limit, cloud = self.known
        states = self.model.states(prompts, responses).numpy()
        return [bool(distance > limit) for distance in distances(states, cloud)]


def other_prompts(prompts: Sequence[Prompt]) -> list[Prompt | None]:
    """For each the next different prompt, in a ring; responses to one prompt get the same other one. None where there
    is no other."""
    different = list({prompt.prompt_id: prompt for prompt in prompts}.values())
    if len(different) < 2:
        return [None] * len(prompts)
    following = {
        prompt.prompt_id: other for prompt, other in zip(different, different[1:] + different[:1], strict=True)
    }
    return [following[prompt.prompt_id] for prompt in prompts]


def known_files(config: PolicyConfig) -> list[Path]:
    """The files with the pairs that the first reward model was trained on, as far as they are what they were then."""
    if not config.save_rollouts or not config.examine.known_pairs or config.examine.known_data:
        return []
    model = first_reward_model(config.reward)
    return [] if model is None else training_files_of_run(model)


def _drawn(sources: Sequence[str], number: int, seed: int) -> list[PreferencePair]:
    """So many pairs, all alike likely (Vitter 1985, algorithm R): one pass, whatever the size of the files."""
    generator, drawn = random.Random(seed), list[PreferencePair]()
    for place, pair in enumerate(iter_pairs(sources, skip_bad=True)):
        if place < number:
            drawn.append(pair)
        elif (taken := generator.randrange(place + 1)) < number:
            drawn[taken] = pair
    return drawn


def _fits(model: RewardModel, pair: PreferencePair) -> bool:
    return all(model.fits(pair.prompt, Response(side)) for side in (pair.chosen, pair.rejected))
