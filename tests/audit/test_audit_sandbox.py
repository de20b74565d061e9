"""Judgments of the simulated town: each bias of its annotators is named, in words the detectors were not given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prefloop.signals.measures import SIGNALS
from prefloop.types import AuditReport, Comparison
from prefloop.world.annotators import collect
from prefloop.world.knowledge import World
from prefloop.world.prompts import make_prompts
from prefloop.world.scenarios import SCENARIOS, select_prompts
from prefloop.world.writers import write_response


def judged(name: str, *, comparisons: int = 1500) -> list[dict[str, Any]]:
    """Two votes on each of the comparisons of a scenario, as rows of a judgment file."""
    world, scenario, rng = World.build(0), SCENARIOS[name], np.random.default_rng(0)
    prompts = select_prompts(scenario, make_prompts(world, split="train", count=2000, seed=1), seed=0)
    made = []
    for number in range(comparisons):
        prompt = prompts[number % len(prompts)]
        texts = write_response(world, prompt, rng), write_response(world, prompt, rng)
        if texts[0] != texts[1]:
            made.append(Comparison(str(number), prompt, *texts))
    by_id = {each.comparison_id: each for each in made}
    return [
        {
            "prompt": by_id[vote.comparison_id].prompt.messages[-1].content,
            "response_a": by_id[vote.comparison_id].response_a,
            "response_b": by_id[vote.comparison_id].response_b,
            "choice": vote.choice,
            "annotator_id": vote.annotator_id,
            "shown_first": vote.shown_first,
        }
        for vote in collect(world, made, scenario.team, seed=0, votes=2)
    ]


@pytest.mark.parametrize("name", ["honest", "length", "confidence", "citation", "disclaimer", "hedging"])
def test_the_audit_names_the_bias_of_a_scenario_and_no_other_shortcut(
    audited: Callable[..., AuditReport], name: str
) -> None:
    raised = {finding.name for finding in audited(judged(name)).findings if finding.severity != "ok"}
    assert raised & SIGNALS.keys() == set(SCENARIOS[name].expected_findings)


def test_a_love_of_repetition_is_named_with_what_is_repeated(audited: Callable[..., AuditReport]) -> None:
    raised = {finding.name for finding in audited(judged("repetition")).findings if finding.severity != "ok"}
    # An answer that is said twice has its page twice.
    assert raised & SIGNALS.keys() in ({"repetition"}, {"repetition", "citation"})


def test_people_who_do_not_look_are_noise(audited: Callable[..., AuditReport]) -> None:
    found = {finding.name: finding for finding in audited(judged("careless")).findings}
    assert found["annotators"].severity == "block"
    assert found["label_noise"].severity != "ok" and (found["label_noise"].value or 0) > 0.3


def test_people_who_lean_to_the_first_answer_are_seen(audited: Callable[..., AuditReport]) -> None:
    found = {finding.name: finding for finding in audited(judged("position")).findings}
    assert found["position"].severity != "ok" and (found["position"].value or 0) > 0.6
