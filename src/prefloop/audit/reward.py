"""Is a reward model fit to be optimised against? Every probe, on pairs that are read already. No torch: see `Judge`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from prefloop.audit.config import AuditRewardConfig, Thresholds
from prefloop.audit.contents import language_finding, size_finding
from prefloop.audit.counterfactual import Floats, Judge, insert_probes, probe_findings
from prefloop.audit.judged import (
    accuracy_finding,
    calibration_finding,
    disagreement_finding,
    distance_finding,
    prompt_finding,
    refusal_finding,
    spread_finding,
)
from prefloop.audit.table import Pairs, Table, distinct_pairs, number_of
from prefloop.data.split import conversation_key
from prefloop.signals.reading import language_of, words_of
from prefloop.types import Finding, PreferencePair, Prompt


@dataclass(frozen=True)
class Material:
    """What a model is asked about."""

    pairs: Sequence[PreferencePair]
    other: Sequence[PreferencePair] = ()
    known: Sequence[PreferencePair] = ()
    """Pairs whose responses the model knows; none: `pairs`."""
    samples: Sequence[tuple[Prompt, str]] | None = None


def audit_model(
    judge: Judge, material: Material, config: AuditRewardConfig, *, again: Callable[[str], str]
) -> list[Finding]:
    """Every finding about a model. `again` is the command that trains it again with another setting of `train reward`
    ("length-balance"), or with none (""), for the remedies.

    Raises what the model raises, InputError for a score that is no number among it.
    """
    limits, pairs = config.thresholds, chosen_pairs(judge, material.pairs, config.num_pairs)
    table = Table()
    for line, pair in enumerate(pairs, start=1):
        table.add(line, pair)
    measured = distinct_pairs(table)
    clusters = [conversation_key(pair) for pair in pairs]
    margins, spread = _margins(judge, pairs, [pair.prompt for pair in pairs])
    unit = float(np.sqrt(np.mean(margins**2))) if len(margins) else 0.0
    probed = insert_probes(judge, probe_bases(pairs, measured, config.num_probes), seed=config.seed)
    commands = _remedies(again)
    accuracy = accuracy_finding(margins, clusters, limits)
    skilled = accuracy.severity == "ok"
    probes = probe_findings(probed, measured, margins, limits, skilled=skilled, remedies=commands, seed=config.seed)
    fooled = [finding.name for finding in probes if finding.severity != "ok"]
    shuffled, where = _shuffled(judge, pairs, config.seed)
    samples = material.samples
    texts = None if samples is None else ([prompt for prompt, _ in samples], [text for _, text in samples])
    scores = None if texts is None else judge.score(*texts)[0]
    kept = Thresholds(min_pairs=limits.min_pairs)
    return [
        size_finding(measured, kept),
        language_finding(measured, kept),
        accuracy,
        *probes,
        prompt_finding(
            margins[where],
            shuffled,
            [clusters[place] for place in where],
            limits,
            seed=config.seed,
            remedy=commands["prompt"],
        ),
        refusal_finding(measured, margins, limits),
        calibration_finding(
            "calibration", margins, judge.temperature, clusters, limits, seed=config.seed, remedy=commands["calibrate"]
        ),
        _elsewhere(judge, material, config, commands["elsewhere"]),
        disagreement_finding(probed, spread, fooled, limits),
        _distance(judge, material, pairs, texts, config),
        spread_finding(scores, [prompt.prompt_id for prompt, _ in samples or ()], unit, limits),
    ]


def chosen_pairs(judge: Judge, pairs: Sequence[PreferencePair], most: int) -> list[PreferencePair]:
    """At most so many different pairs that the model can score, by id: no copy or order changes them."""
    distinct = {number_of(pair.pair_id): pair for pair in pairs}
    fitting = (
        distinct[number]
        for number in sorted(distinct)
        if all(
            judge.fits(distinct[number].prompt, side) for side in (distinct[number].chosen, distinct[number].rejected)
        )
    )
    return [pair for pair, _ in zip(fitting, range(most), strict=False)]


def probe_bases(pairs: Sequence[PreferencePair], measured: Pairs, most: int) -> list[tuple[PreferencePair, str]]:
    """The responses that probes are put into: English ones, one of each conversation, then a second of each, and so on.

    Chosen and rejected ones take turns.
    """
    found: dict[str, list[tuple[PreferencePair, str]]] = {}
    for pair, other_language in zip(pairs, measured.other_language, strict=True):
        own = found.setdefault(conversation_key(pair), [])
        side = pair.chosen if (len(found) + len(own)) % 2 else pair.rejected
        if not other_language and language_of(words_of(side), side) != "other":
            own.append((pair, side))
    rounds = zip_longest(*found.values())
    return [base for each in rounds for base in each if base is not None][:most]


def _margins(judge: Judge, pairs: Sequence[PreferencePair], prompts: Sequence[Prompt]) -> tuple[Floats, Floats | None]:
    """Score of chosen less that of rejected, and an ensemble's spread on both."""
    texts = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    scores, spread = judge.score([*prompts, *prompts], texts)
    return scores[: len(pairs)] - scores[len(pairs) :], spread


def _shuffled(judge: Judge, pairs: Sequence[PreferencePair], seed: int) -> tuple[Floats, list[int]]:
    """Margins with the prompt of another conversation, and of which pairs: those that fit it."""
    prompts = {conversation_key(pair): pair.prompt for pair in pairs}
    order = [str(name) for name in np.random.default_rng(seed).permutation(sorted(prompts))]
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    others = [prompts[following[conversation_key(pair)]] for pair in pairs]
    where = [
        place
        for place, (pair, prompt) in enumerate(zip(pairs, others, strict=True))
        if judge.fits(prompt, pair.chosen) and judge.fits(prompt, pair.rejected)
    ]
    return _margins(judge, [pairs[place] for place in where], [others[place] for place in where])[0], where


def _elsewhere(judge: Judge, material: Material, config: AuditRewardConfig, remedy: str) -> Finding:
    name = "calibration_elsewhere"
    if not material.other:
        return Finding(name, None, "ok", "not looked at: name pairs of another kind with --other-data")
    pairs = chosen_pairs(judge, material.other, config.num_pairs)
    margins, _ = _margins(judge, pairs, [pair.prompt for pair in pairs])
    clusters = [conversation_key(pair) for pair in pairs]
    return calibration_finding(
        name, margins, judge.temperature, clusters, config.thresholds, seed=config.seed, remedy=remedy
    )


def _distance(
    judge: Judge,
    material: Material,
    pairs: Sequence[PreferencePair],
    texts: tuple[list[Prompt], list[str]] | None,
    config: AuditRewardConfig,
) -> Finding:
    if texts is not None and judge.states is None:
        return Finding("distance", None, "ok", "no claim: only a reward model of this machine has states to compare")
    known = chosen_pairs(judge, material.known, config.num_pairs) if material.known else pairs
    if texts is None or judge.states is None:
        return distance_finding(np.zeros((0, 1)), [], None, config.thresholds)
    states = judge.states(
        [pair.prompt for pair in known for _ in range(2)],
        [side for pair in known for side in (pair.chosen, pair.rejected)],
    )
    clusters = [conversation_key(pair) for pair in known for _ in range(2)]
    return distance_finding(states, clusters, judge.states(*texts), config.thresholds)


def _remedies(again: Callable[[str], str]) -> dict[str, str]:
    return {
        "people": "the labels ask for it: prefloop audit data on the training file tells, prefloop data balance FILE "
        "--signals {name} takes it out of the file; then train again",
        "model": f"train again with pairs in which the habit loses, and audit again: {again('augment.habits {name}')}",
        "length": again("length-balance"),
        "refusal": "collect harmless prompts that look unsafe, with the refusal rejected, and train again: "
        + again(""),
        "prompt": again("augment.mismatched-fraction 0.5"),
        "calibrate": f"fit the temperature on more held-out pairs: {again('eval-fraction 0.2')}",
        "elsewhere": f"fit the temperature on held-out pairs of this kind: {again('eval-data HELD_OUT')}",
    }
