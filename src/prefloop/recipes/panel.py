"""The expert panel's word on a candidate: a stated number of comparisons, a win rate, and the gate's decision.

Nobody here sees the truth: the panel's people are noisy and unbiased, and choose as `world.annotators` lets them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from prefloop.evaluate.records import Pairing, now, write_evaluations
from prefloop.evaluate.winrate import JudgedRow, win_rates
from prefloop.gate.config import AuditRequirement, GateLimits, ModelGateConfig, Requirement
from prefloop.models.load import load_policy
from prefloop.recipes.gate import gate
from prefloop.recipes.stages import Bench
from prefloop.registry.config import PromoteConfig, RegisterConfig
from prefloop.registry.register import register
from prefloop.registry.switch import promote
from prefloop.rollout.respond import respond
from prefloop.rundir import resolve_model, sha256_of, write_rows
from prefloop.types import Comparison, Evaluation, Judgment
from prefloop.world.annotators import PANEL, collect
from prefloop.world.prompts import make_prompts

KIND_AT_LEAST = 20.0
"""Win rate in per cent that the interval of no kind of prompt may reach below. With 30 prompts of a kind a candidate as
good as the incumbent has an interval from about 33."""

LIMITS = GateLimits(
    length_controlled_win_rate=Requirement(required=False),
    perplexity=Requirement(required=False),
    repetition=Requirement(required=False),
    suites=Requirement(required=False),
    more={"each_kind": Requirement(evaluations=("win_rate/*",), at_least=KIND_AT_LEAST, min_rows=10)},
    audit=AuditRequirement(required=False),
)
"""The panel decides alone: its people have no bias that length or a suite would have to catch, and an audit that binds
would hold every candidate of a biased scenario before it had been looked at."""


class Desk:
    """The registry of one row, what is live in it, and how many comparisons the panel has judged."""

    def __init__(self, bench: Bench, name: str, *, num_comparisons: int) -> None:
        self.bench, self.name, self.num_comparisons = bench, name, num_comparisons
        self.root = bench.root / "registries" / name
        self.live = "sft"
        self.judged = 0
        self._decisions = 0

    def open(self) -> None:
        """Register the SFT policy and make it live: the incumbent that all begins with."""
        label = self._register("sft")
        why = "the first model, before there is anything to compare it with"
        promote(PromoteConfig(version=label, registry=str(self.root), override=True, why=why, who="sandbox"))

    def decide(self, stage: str, *, go_live: bool) -> dict[str, Any]:
        """Have the panel compare a stage's policy with what is live, and ask the gate; with `go_live` do as it says."""
        label = self._register(stage)
        evaluations, asked = self._evaluate(stage)
        evidence = self.root / f"{stage}.evidence.jsonl"
        write_evaluations(evidence, evaluations)
        told = gate(
            ModelGateConfig(
                candidate=label, evidence=(str(evidence),), registry=str(self.root), who="sandbox", limits=LIMITS
            )
        )
        verdict = told.values["verdict"]
        against = self.live
        if go_live and verdict == "promote":
            promote(PromoteConfig(version=label, registry=str(self.root), who="sandbox"))
            self.live = stage
        overall = evaluations[0]
        assert overall.interval is not None
        return {
            "verdict": verdict,
            "against": against,
            "win_rate": overall.value,
            "interval": list(overall.interval),
            "comparisons": asked,
            "failed": [check["name"] for check in told.values["checks"] if not check["passed"]],
        }

    def _register(self, stage: str) -> str:
        run = str(self.bench.stage(stage))
        made = register(RegisterConfig(model=run, name=stage, registry=str(self.root), who="sandbox"))
        return str(made["version"])

    def _evaluate(self, stage: str) -> tuple[list[Evaluation], int]:
        config = self.bench.config
        self._decisions += 1
        # Other prompts for each decision: a candidate that failed on some is not tried on them again.
        seed = config.seed + 100 * self._decisions
        prompts = make_prompts(self.bench.world, split="validation", count=self.num_comparisons, seed=seed)
        places = [resolve_model(str(self.bench.stage(name)), "model") for name in (stage, self.live)]
        texts = []
        for place in places:
            model, chat = load_policy(place)
            texts.append(
                respond(
                    model,
                    chat,
                    prompts,
                    max_new_tokens=config.max_new_tokens,
                    temperature=1.0,
                    seed=seed,
                )
            )
        comparisons = [
            Comparison(f"{stage}-{index}", prompt, a.text, b.text, stage, self.live)
            for index, (prompt, a, b) in enumerate(zip(prompts, *texts, strict=True))
        ]
        shown = [each for each in comparisons if each.response_a != each.response_b]
        votes = collect(self.bench.world, shown, PANEL, seed=seed)
        self.judged += len(votes)
        path = self.root / f"{stage}.votes.jsonl"
        write_rows(path, [dataclasses.asdict(vote) for vote in votes])
        pairing = Pairing(sha256_of(places[0]), sha256_of(places[1]), now())
        return panel_evaluations(comparisons, votes, pairing, sha256_of(path), seed=seed), len(votes)


def panel_evaluations(
    comparisons: Sequence[Comparison], votes: Sequence[Judgment], pairing: Pairing, data_sha256: str, *, seed: int
) -> list[Evaluation]:
    """Win rates of response A, in per cent, over all prompts and then over each kind ("win_rate/unsafe").

    A tie and two equal responses, which nobody is shown, are half a win; what a judge skipped is left out.
    """
    wins = {vote.comparison_id: {"a": 1.0, "b": 0.0, "skip": None}.get(vote.choice, 0.5) for vote in votes}
    rows: dict[str, list[JudgedRow]] = {}
    for each in comparisons:
        won = wins.get(each.comparison_id, 0.5)
        if won is None:
            continue
        row = JudgedRow(each.prompt.prompt_id, won, float(len(each.response_a) - len(each.response_b)))
        for name in ("win_rate", f"win_rate/{each.prompt.columns['kind']}"):
            rows.setdefault(name, []).append(row)
    found = []
    for name in ("win_rate", *sorted(rows.keys() - {"win_rate"})):
        rate = win_rates(rows[name], num_resamples=2, seed=seed)
        low, high = rate["win_rate_interval"]
        found.append(pairing.evaluation(name, data_sha256, rate["win_rate"], (low, high), rate["num_instructions"]))
    return found
