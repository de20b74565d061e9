"""What a policy is really worth: the truth of the world beside the proxy, on prompts that nothing was trained on.

This is the only module of the recipes that reads the truth. One half of the prompts ("select") chooses the peak of a
run, every reported figure comes from the other ("report").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from prefloop.models.load import load_policy
from prefloop.recipes.response_kl import response_kl
from prefloop.reward.scoring import Response, Scorer
from prefloop.rollout.respond import respond
from prefloop.statistics.intervals import Estimate, mean_estimate, paired_difference
from prefloop.statistics.pairwise import accuracy_with_ties
from prefloop.types import PreferencePair, Prompt
from prefloop.world.knowledge import World
from prefloop.world.scenarios import Scenario
from prefloop.world.truth import utility


@dataclass(frozen=True)
class Measured:
    """One policy on the evaluation prompts."""

    rows: list[dict[str, Any]]
    kl: float
    """Mean exact sequence KL to the reference over the reported half's responses, in nats."""

    def values(self, half: str, key: str = "true_utility") -> list[float]:
        """A column, over one half of the prompts, in prompt order."""
        return [float(row[key]) for row in self.rows if row["half"] == half]

    def reported(self) -> list[dict[str, Any]]:
        """The rows of the half that is reported."""
        return [row for row in self.rows if row["half"] == "report"]

    def utility(self, half: str = "report") -> Estimate:
        """Mean true utility."""
        return mean_estimate(self.values(half))

    def proxy(self, half: str = "report") -> Estimate:
        """Mean score of the reward model that the run was optimised against."""
        return mean_estimate(self.values(half, "proxy"))


def measure(
    world: World,
    policy_directory: Path,
    reference: PreTrainedModel,
    prompts: Sequence[Prompt],
    scorer: Scorer,
    *,
    max_new_tokens: int,
    token_budget: int,
    seed: int,
) -> Measured:
    """Sample one response to each prompt and judge it by the truth and by the proxy."""
    model, chat = load_policy(policy_directory)
    responses = respond(model, chat, prompts, max_new_tokens=max_new_tokens, temperature=1.0, seed=seed)
    answers = [Response(each.text, each.finish_reason == "stop") for each in responses]
    proxies = scorer.score(prompts, answers)
    rows = []
    for index, (prompt, response, proxy) in enumerate(zip(prompts, responses, proxies, strict=True)):
        truth = utility(world, prompt, response.text)
        rows.append(
            {
                "prompt_id": prompt.prompt_id,
                "kind": prompt.columns["kind"],
                "half": "select" if index % 2 == 0 else "report",
                "prompt": prompt.messages[-1].content,
                "response": response.text,
                "true_utility": truth.total,
                "parts": dict(truth.parts),
                "proxy": proxy,
                "words": len(response.text.split()),
            }
        )
    reported = [
        (prompt, each) for prompt, each, row in zip(prompts, answers, rows, strict=True) if row["half"] == "report"
    ]
    asked, given = zip(*reported, strict=True)
    kl = response_kl(model, reference, chat, asked, given, token_budget=token_budget)
    return Measured(rows, fmean(kl))


def noise_ceiling(
    world: World, scenario: Scenario, pairs: Sequence[PreferencePair], prompts: Sequence[Prompt]
) -> float:
    """How often the chosen response of a pair is the one that the scenario's annotators think better on average.

    No reward model can be expected to order more of their noisy votes: this is what a perfect one would score.
    """
    asked = {prompt.messages: prompt for prompt in prompts}
    kinds = {annotator.biases: annotator for annotator in scenario.team}
    shares = [sum(each.biases == biases for each in scenario.team) for biases in kinds]
    margins = []
    for pair in pairs:
        prompt = asked[pair.prompt.messages]
        chosen, rejected = (
            sum(
                share * annotator.worth(world, prompt, response)
                for share, annotator in zip(shares, kinds.values(), strict=True)
            )
            for response in (pair.chosen, pair.rejected)
        )
        margins.append(chosen - rejected)
    return accuracy_with_ties(margins)


def plain(estimate: Estimate) -> dict[str, float]:
    """Mean and standard error, as the answers have them."""
    return {"mean": estimate.mean, "standard_error": estimate.standard_error}


def curve_row(run: str, step: int, measured: Measured) -> dict[str, Any]:
    """One point of a proxy/truth curve, over the reported half."""
    rows = measured.reported()
    return {
        "run": run,
        "step": step,
        "kl": measured.kl,
        "proxy": plain(measured.proxy()),
        "true_utility": plain(measured.utility()),
        "parts": means_of_parts(rows),
        "kinds": {
            kind: float(np.mean([row["true_utility"] for row in rows if row["kind"] == kind]))
            for kind in sorted({row["kind"] for row in rows})
        },
        "words": float(np.mean([row["words"] for row in rows])),
    }


def means_of_parts(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean of every part of utility; a part that a response does not have counts 0."""
    names = sorted({name for row in rows for name in row["parts"]})
    return {name: float(np.mean([row["parts"].get(name, 0.0) for row in rows])) for name in names}


def peak_step(curve: Mapping[int, Measured]) -> int:
    """The step with the highest true utility on the half that is not reported."""
    return max(curve, key=lambda step: curve[step].utility("select").mean)


def difference(a: Measured, b: Measured) -> Estimate:
    """True utility of a minus b on the reported half, paired by prompt."""
    return paired_difference(a.values("report"), b.values("report"))
