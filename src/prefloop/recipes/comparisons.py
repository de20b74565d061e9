"""The comparisons of a round: two responses of the newest policy to a prompt (or one, beside one of the incumbent),
each with its KL to the incumbent.

`comparisons.jsonl` has a row for each: comparison_id, prompt, response_a, response_b, model_a, model_b, kl_a, kl_b. A
vote on one is such a row with `choice` and `annotator_id`, which is how judgments are read everywhere.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from prefloop.data.dialogue import short_hash
from prefloop.data.formats import judged_of
from prefloop.data.read import read_prompts
from prefloop.data.rows import stream_rows
from prefloop.data.write import needs_messages, row_of
from prefloop.models.chat import Chat
from prefloop.models.load import load_policy
from prefloop.recipes.response_kl import response_kl
from prefloop.recipes.round_config import RoundConfig
from prefloop.recipes.world_votes import world_prompts
from prefloop.reward.scorer import Response
from prefloop.rollout.respond import TextResponse, fitting_prompts, respond
from prefloop.rundir import resolve_model, write_rows
from prefloop.types import Comparison, InputError, PreferencePair, Prompt


@dataclass(frozen=True)
class Policies:
    """The newest policy beside the last good one; both read the same tokens."""

    newest: PreTrainedModel
    incumbent: PreTrainedModel
    chat: Chat

    @classmethod
    def load(cls, config: RoundConfig) -> Policies:
        """Raises InputError where their tokenizers differ: there is no KL between them then."""
        place = resolve_model(config.policy, "policy")
        newest, chat = load_policy(place, field="policy")
        incumbent, incumbent_chat = load_policy(resolve_model(config.incumbent, "incumbent"), field="incumbent")
        if not chat.same_tokens(incumbent_chat):
            problem = "policy and incumbent have different tokenizers"
            raise InputError(problem, path=place, field="policy", remedy="give a policy tuned from the incumbent")
        return cls(newest, incumbent, chat)

    def kl(self, prompts: Sequence[Prompt], responses: Sequence[Response], *, token_budget: int) -> list[float]:
        """The KL of each response."""
        return response_kl(self.newest, self.incumbent, self.chat, prompts, responses, token_budget=token_budget)


@dataclass(frozen=True)
class Sampled:
    """A comparison, and its responses as the policy ended them: one that was cut off has no end token to part over."""

    comparison: Comparison
    a: Response
    b: Response


def sample_comparisons(config: RoundConfig, path: Path) -> dict[str, Any]:
    """Write `comparisons.jsonl`; what was left out (empty and identical responses, repeated comparisons) is counted.

    Raises InputError, before a model is loaded, for prompts that simulated people do not know.
    """
    prompts = read_prompts(config.prompts, skip_bad=config.skip_bad).records
    if config.simulate is not None:
        world_prompts(config, prompts)
    policies = Policies.load(config)
    if config.skip_bad:
        prompts = fitting_prompts(policies.newest, policies.chat, prompts, config.max_new_tokens)
    order = np.random.default_rng(config.seed).permutation(len(prompts))
    asked = [prompts[order[index % len(prompts)]] for index in range(config.num_comparisons)]
    # Evenly spread, so that any share of a long list has as many.
    mixed = np.diff(np.floor(np.arange(len(asked) + 1) * config.against_incumbent)).astype(bool)
    first = _responses(config, policies, asked, np.zeros(len(asked), bool), offset=1)
    second = _responses(config, policies, asked, mixed, offset=2)
    names = [config.incumbent if each else config.policy for each in mixed]
    sampled, counts = _comparisons(config.policy, names, asked, first, second)
    if not sampled:
        raise InputError(
            f"no two responses to a prompt differ ({_told(counts)})",
            path=config.policy,
            field="policy",
            remedy="raise the temperature, or give a policy that still varies",
        )
    kl_a, kl_b = (
        policies.kl([each.comparison.prompt for each in sampled], side, token_budget=config.token_budget)
        for side in ([each.a for each in sampled], [each.b for each in sampled])
    )
    write_rows(
        path,
        [
            {**comparison_row(each.comparison), "kl_a": a, "kl_b": b}
            for each, a, b in zip(sampled, kl_a, kl_b, strict=True)
        ],
    )
    truncated = sum(each.finish_reason == "length" for each in (*first, *second)) / (2 * len(asked))
    return {
        "num_comparisons": len(sampled),
        "num_prompts": len({each.comparison.prompt.prompt_id for each in sampled}),
        "left_out": dict(counts),
        "mean_kl": float(np.mean([kl_a, kl_b])),
        "truncated_fraction": truncated,
    }


def _responses(
    config: RoundConfig, policies: Policies, asked: Sequence[Prompt], mixed: NDArray[np.bool_], *, offset: int
) -> list[TextResponse]:
    """A response to each prompt, of the incumbent where `mixed`."""
    found: dict[int, TextResponse] = {}
    for model, chosen in ((policies.newest, ~mixed), (policies.incumbent, mixed)):
        places = np.flatnonzero(chosen).tolist()
        if not places:
            continue
        responses = respond(
            model,
            policies.chat,
            [asked[place] for place in places],
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=config.seed * 1000 + offset,
        )
        found.update(zip(places, responses, strict=True))
    return [found[place] for place in range(len(asked))]


def _comparisons(
    name: str,
    others: Sequence[str],
    asked: Sequence[Prompt],
    first: Sequence[TextResponse],
    second: Sequence[TextResponse],
) -> tuple[list[Sampled], Counter[str]]:
    """The usable ones; the second response to each prompt is by a policy in `others`."""
    found: dict[str, Sampled] = {}
    counts: Counter[str] = Counter()
    for prompt, other, a, b in zip(asked, others, first, second, strict=True):
        if not a.text.strip() or not b.text.strip():
            counts["empty"] += 1
        elif a.text.strip() == b.text.strip():
            counts["identical"] += 1
        elif (key := comparison_key(prompt, a.text, b.text)) in found:
            counts["repeated"] += 1
        else:
            ends = [Response(each.text, each.finish_reason == "stop") for each in (a, b)]
            found[key] = Sampled(Comparison(key, prompt, a.text, b.text, name, other), *ends)
    return list(found.values()), counts


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def comparison_key(prompt: Prompt, response: str, other: str) -> str:
    """The id of two responses to a prompt, in whichever order they stand."""
    return short_hash(prompt.prompt_id, *sorted((response, other)))


def comparison_row(comparison: Comparison) -> dict[str, Any]:
    """A comparison as a row, in words that read back as the same texts."""
    pair = PreferencePair("", comparison.prompt, comparison.response_a, comparison.response_b)
    told = row_of(pair, as_messages=needs_messages(pair))
    return {
        "comparison_id": comparison.comparison_id,
        "prompt": told["prompt"],
        "response_a": told["chosen"],
        "response_b": told["rejected"],
        "model_a": comparison.model_a,
        "model_b": comparison.model_b,
    }


def read_comparisons(path: Path) -> tuple[list[Comparison], dict[str, float]]:
    """The comparisons of a round, and the mean KL of the two responses by `comparison_key`."""
    comparisons, kl = [], {}
    for row in stream_rows(path):
        # A comparison is read as the vote of one who looked away.
        values = {name: value for name, value in row.values.items() if name not in ("kl_a", "kl_b")}
        read, _ = judged_of({**values, "choice": "skip"})
        comparison = dataclasses.replace(read, comparison_id=str(row.values["comparison_id"]))
        comparisons.append(comparison)
        kl[comparison.comparison_id] = (float(row.values["kl_a"]) + float(row.values["kl_b"])) / 2
    return comparisons, kl
