"""The truth and the proxy of a benchmark's policies, kept on disk so that each policy is measured once."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefloop.models.load import default_device, load_policy
from prefloop.recipes.measure import Measured, measure
from prefloop.recipes.stages import Bench
from prefloop.reward.scorer import Response, Scorer
from prefloop.reward.scoring import load_scorer
from prefloop.rollout import respond as sampling
from prefloop.rundir import resolve_model, write_json
from prefloop.train.checkpoint import checkpoint_name
from prefloop.types import Prompt
from prefloop.world.knowledge import World
from prefloop.world.prompts import make_prompts
from prefloop.world.truth import utility


def unseen_prompts(bench: Bench) -> list[Prompt]:
    """The prompts of the evaluation; every second one, from the second on, is reported."""
    return list(_unseen(bench.config.seed, bench.config.num_eval_prompts))


@functools.cache
def _unseen(seed: int, count: int) -> tuple[Prompt, ...]:
    # Making them costs more than measuring a small policy on a few.
    return tuple(make_prompts(World.build(seed), split="test", count=count, seed=seed))


def proxy_of(bench: Bench, scenario: str) -> Scorer:
    """The reward model of a scenario."""
    path = str(bench.stage(f"reward-{scenario}"))
    return load_scorer(path, device=default_device(), token_budget=bench.config.token_budget)


def measured(bench: Bench, name: str, scenario: str = "honest", *, step: int | None = None) -> Measured:
    """The result of stage `name`, or its checkpoint after `step` steps, on the unseen prompts, against the SFT policy;
    as `recipes/measure.py` does it."""
    at = "" if step is None else f"-step-{step}"
    path = bench.root / "measured" / f"{name}-{scenario}{at}.json"
    if not path.exists():
        config = bench.config
        path.parent.mkdir(exist_ok=True)
        found = measure(
            bench.world,
            resolve_model(str(bench.stage(name)), "model") if step is None else checkpoint(bench, name, step),
            load_policy(resolve_model(str(bench.stage("sft")), "model"))[0],
            unseen_prompts(bench),
            proxy_of(bench, scenario),
            max_new_tokens=config.max_new_tokens,
            token_budget=config.token_budget,
            seed=config.seed,
        )
        write_json(path, dataclasses.asdict(found))
    return Measured(**json.loads(path.read_text(encoding="utf-8")))


def checkpoint(bench: Bench, name: str, step: int) -> Path:
    """The policy that a policy run was after `step` steps."""
    return bench.stage(name) / "checkpoints" / checkpoint_name(step) / "policy"


def best_of(bench: Bench, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Best-of-n sampling of the SFT policy for the reported prompts: {n: rows, generated_tokens, cpu_seconds}.

    A smaller n takes the first n samples of the largest, so one sampling serves all.
    """
    path = bench.root / "measured" / f"best-of-{'-'.join(map(str, numbers))}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_json(path, _best_of(bench, numbers))
    stored: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {int(number): found for number, found in stored.items()}


def _best_of(bench: Bench, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    started, most, config = time.process_time(), max(numbers), bench.config
    model, chat = load_policy(resolve_model(str(bench.stage("sft")), "model"))
    prompts = [prompt for prompt in unseen_prompts(bench)[1::2] for _ in range(most)]
    responses = sampling.respond(
        model, chat, prompts, max_new_tokens=config.max_new_tokens, temperature=1.0, seed=config.seed
    )
    answers = [Response(each.text, each.finish_reason == "stop") for each in responses]
    scores = proxy_of(bench, "honest").score(prompts, answers)
    num_tokens = [
        sum(chat.encode_response(prompt.messages, answer.text, finished=answer.finished).mask)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    seconds = time.process_time() - started
    found = {}
    for number in numbers:
        sampled = [place for place in range(len(prompts)) if place % most < number]
        places = [sampled[best] for best in sampling.best_of([scores[place] for place in sampled], number)]
        rows = [
            {
                "half": "report",
                "true_utility": utility(bench.world, prompts[place], answers[place].text).total,
                "proxy": scores[place],
            }
            for place in places
        ]
        found[number] = {
            "rows": rows,
            "generated_tokens": sum(num_tokens[place] for place in sampled),
            "cpu_seconds": seconds * number / most,
        }
    return found
