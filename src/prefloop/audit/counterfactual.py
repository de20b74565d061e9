"""Does a reward model pay for a habit of speech as such? The same response with a marker and with a plain sentence.

The effect of a probe is the mean of score(marked) - score(neutral), in units of the typical difference between the two
responses of a real pair (root mean square). Each wording is put into other responses, so that the means of the
wordings are independent: the interval and the test are over wordings (Student's t), and what is found holds for the
habit, not for a phrase. The claim must hold over the conversations too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from prefloop.audit.config import RewardThresholds
from prefloop.audit.probes import Variants, make_variants, num_wordings
from prefloop.audit.shortcuts import RIGHT_AT_TIMES
from prefloop.audit.table import Pairs, clipped
from prefloop.data.split import conversation_key
from prefloop.signals.measures import SIGNALS
from prefloop.statistics.clustered import clustered_sign_test, clustered_wilson, holm, permutation_test
from prefloop.types import Finding, PreferencePair, Prompt, Severity

Floats = NDArray[np.float64]
NUM_EXAMPLES = 3
NO_MARGIN = 1e-9
"""Typical differences below this are those of a constant."""


@dataclass(frozen=True)
class Judge:
    """A reward model, as an audit sees it."""

    score: Callable[[Sequence[Prompt], Sequence[str]], tuple[Floats, Floats | None]]
    """Scores of responses, and the spread over an ensemble's members."""
    fits: Callable[[Prompt, str], bool]
    """Whether prompt and response are short enough to be scored."""
    temperature: float | None = None
    """What a difference of scores is divided by before it is a log-odds, if that was fitted."""
    states: Callable[[Sequence[Prompt], Sequence[str]], Floats] | None = None
    """[n, d] what the model makes of responses before it scores them."""


@dataclass(frozen=True)
class Probed:
    """A probe's insertions [n], as scored."""

    pairs: Sequence[PreferencePair]
    variants: Sequence[Variants]
    marked: Floats
    neutral: Floats
    spread: Floats | None
    """Of the marked versions, over an ensemble's members."""


def insert_probes(judge: Judge, bases: Sequence[tuple[PreferencePair, str]], *, seed: int) -> dict[str, Probed]:
    """Put every probe into the responses `bases` (pair and response), and score both versions.

    A version that is too long for the model is left out with its partner.
    """
    texts = [text for _, text in bases]
    made: dict[str, list[tuple[PreferencePair, Variants]]] = {}
    for number, name in enumerate(SIGNALS):
        generator = np.random.default_rng([seed, number])
        order = generator.permutation(len(bases))
        variants = [
            (bases[index][0], make_variants(name, bases[index][1], place % num_wordings(name), generator, others=texts))
            for place, index in enumerate(order)
        ]
        made[name] = [
            (pair, each)
            for pair, each in variants
            if judge.fits(pair.prompt, each.marked) and judge.fits(pair.prompt, each.neutral)
        ]
    flat = [
        (pair.prompt, text) for rows in made.values() for pair, each in rows for text in (each.marked, each.neutral)
    ]
    scores, spread = judge.score([prompt for prompt, _ in flat], [text for _, text in flat])
    found, start = {}, 0
    for name, rows in made.items():
        part = slice(start, start + 2 * len(rows))
        start += 2 * len(rows)
        found[name] = Probed(
            [pair for pair, _ in rows],
            [each for _, each in rows],
            scores[part][::2],
            scores[part][1::2],
            None if spread is None else spread[part][::2],
        )
    return found


@dataclass(frozen=True)
class Effect:
    """What a habit adds to a score, in units of the typical difference between two responses."""

    value: float
    interval: tuple[float, float]
    p_value: float
    won: float
    """Share of the insertions in which the marked version has the higher score."""


def measure_effect(differences: Floats, wordings: Sequence[int], conversations: Sequence[str], *, seed: int) -> Effect:
    """The effect of n insertions of at least two wordings into conversations; differences are in the unit wanted.

    The mean over wordings of their means, with Student's interval over wordings. p is the larger of that of the t test
    over wordings and that of a sign-flip test over conversations.
    """
    groups = np.asarray(wordings)
    means = np.array([differences[groups == wording].mean() for wording in np.unique(groups)])
    value, error = float(means.mean()), float(means.std(ddof=1)) / math.sqrt(len(means))
    reach = float(stats.t.ppf(0.975, len(means) - 1)) * error
    over_wordings = 2 * float(stats.t.sf(abs(value) / error, len(means) - 1)) if error else float(value == 0)
    _, place = np.unique(np.asarray(conversations), return_inverse=True)
    sums = np.bincount(place, weights=differences)
    over_conversations = permutation_test(sums, seed=seed) if sums.any() else 1.0
    won = float(np.mean((np.sign(differences) + 1) / 2))
    return Effect(value, (value - reach, value + reach), max(over_wordings, over_conversations), won)


@dataclass(frozen=True)
class Rates:
    """How often people and the model prefer the response with more of something, on the pairs that differ in it."""

    num_pairs: int
    human: float
    human_interval: tuple[float, float]
    model: float
    difference_p: float
    """Exact, clustered: that people and model prefer it equally often."""


def measure_rates(pairs: Pairs, name: str, margins: Floats, *, min_pairs: int) -> Rates | None:
    """The rates of a signal on the pairs that differ in it; None where fewer than `min_pairs` conversations do."""
    signs = pairs.signs[name].astype(np.int64)
    told = (np.abs(signs) == 1) & (margins != 0)
    clusters = pairs.clusters[told]
    if len(np.unique(clusters)) < min_pairs:
        return None
    human = signs[told]
    model = human * np.sign(margins[told]).astype(np.int64)
    _, number = np.unique(clusters, return_inverse=True)
    count = int(number.max()) + 1
    sizes = np.bincount(number, minlength=count)
    gains = np.bincount(number[model > human], minlength=count)
    losses = np.bincount(number[model < human], minlength=count)
    return Rates(
        num_pairs=int(told.sum()),
        human=float((human == 1).mean()),
        human_interval=clustered_wilson(np.bincount(number[human == 1], minlength=count), sizes),
        model=float((model == 1).mean()),
        difference_p=clustered_sign_test(gains, losses),
    )


def probe_findings(
    probed: Mapping[str, Probed],
    pairs: Pairs,
    margins: Floats,
    limits: RewardThresholds,
    *,
    skilled: bool,
    remedies: Mapping[str, str],
    seed: int,
) -> list[Finding]:
    """One finding for each probe, corrected together: those that warn first, then by the lower end of the interval.

    `margins` are those of `pairs`. Of a model that is not `skilled`, no better than a coin on them, only what would
    block is claimed: whatever it was trained on, it has some habits, and they are as much noise as its scores.
    `remedies` has a command for what the people's labels reward ("people"), for what the model added ("model"), and
    for single probes by name.
    """
    unit = float(np.sqrt(np.mean(margins**2))) if len(margins) else 0.0
    homes = {name: [conversation_key(pair) for pair in each.pairs] for name, each in probed.items()}
    told = {
        name: each
        for name, each in probed.items()
        if len(set(homes[name])) >= limits.min_pairs and len(_wordings(each)) > 1 and unit > NO_MARGIN
    }
    effects = {
        name: measure_effect(
            (each.marked - each.neutral) / unit, [one.wording for one in each.variants], homes[name], seed=seed
        )
        for name, each in told.items()
    }
    adjusted = dict(zip(effects, holm([effect.p_value for effect in effects.values()]), strict=True))
    findings = []
    for name, each in probed.items():
        rates = measure_rates(pairs, name, margins, min_pairs=limits.min_pairs)
        if name in effects:
            findings.append(_finding(name, each, effects[name], adjusted[name], rates, limits, skilled, remedies))
        else:
            findings.append(_silent(name, len(set(homes[name])), unit, rates, limits))
    return sorted(
        findings,
        key=lambda finding: (finding.severity != "ok", -math.inf if finding.interval is None else finding.interval[0]),
        reverse=True,
    )


def _wordings(probed: Probed) -> set[int]:
    return {each.wording for each in probed.variants}


def _finding(
    name: str,
    probed: Probed,
    effect: Effect,
    p_value: float,
    rates: Rates | None,
    limits: RewardThresholds,
    skilled: bool,
    remedies: Mapping[str, str],
) -> Finding:
    low, _ = effect.interval
    threshold, least = (limits.effect_warn, effect.value) if skilled else (limits.effect_block, low)
    severity: Severity = "ok"
    if p_value < limits.significance and least >= threshold:
        severity = "block" if low >= limits.effect_block and name not in RIGHT_AT_TIMES else "warn"
    source, said = _whose(rates, limits)
    remedy = remedies.get(name, remedies[source]).format(name=name)
    return Finding(
        name=name,
        value=effect.value,
        interval=effect.interval,
        p_value=p_value,
        threshold=threshold,
        severity=severity,
        num_pairs=len(probed.pairs),
        human_rate=None if rates is None else rates.human,
        model_rate=None if rates is None else rates.model,
        message=_message(name, effect, len(probed.pairs)) + f"; {said}",
        remedy=remedy if severity != "ok" else "",
        examples=_examples(name, probed) if effect.value > 0 else (),
    )


def _whose(rates: Rates | None, limits: RewardThresholds) -> tuple[str, str]:
    """Whether people want it too ("people") or the model added it ("model"), and in words."""
    if rates is None:
        return "model", "too few pairs of the file differ in it to say what people want"
    told = f"of {rates.num_pairs} pairs that differ in it people chose more in {rates.human:.0%}, the model in "
    told += f"{rates.model:.0%}"
    more = rates.difference_p < limits.significance and rates.model > rates.human
    if rates.human_interval[0] > 0.5:
        return "people", told + (": the people's preference, and the model exaggerates it" if more else "")
    return "model", told + (": the model added it" if more else "")


def _message(name: str, effect: Effect, num: int) -> str:
    low, high = effect.interval
    what = "neutral text" if name == "length" else "it in place of a plain sentence"
    return (
        f"{what} changes the score by {effect.value:+.2f} ({low:+.2f} to {high:+.2f}) typical differences between two "
        f"responses, and raises it in {effect.won:.0%} of {num} insertions"
    )


def _examples(name: str, probed: Probed) -> tuple[Mapping[str, object], ...]:
    """The insertions whose gain is the middle one, and the largest ones; what paid stands first."""
    gains = probed.marked - probed.neutral
    shown = [int(place) for place in np.argsort(-gains, kind="stable")[:NUM_EXAMPLES] if gains[place] > 0]
    return tuple(
        {
            "place": probed.pairs[place].place,
            "prompt": clipped(probed.pairs[place].prompt.messages[-1].content),
            "chosen": clipped(probed.variants[place].marked),
            "rejected": clipped(probed.variants[place].neutral),
            "said_chosen": "scored higher",
            "said_rejected": "without" if name == "length" else "with a plain sentence",
            "value_chosen": round(float(probed.marked[place]), 4),
            "value_rejected": round(float(probed.neutral[place]), 4),
        }
        for place in shown
    )


def _silent(name: str, num: int, unit: float, rates: Rates | None, limits: RewardThresholds) -> Finding:
    if num >= limits.min_pairs and unit <= NO_MARGIN:
        message = "no claim: the model gives both responses of every pair the same score"
    elif num >= limits.min_pairs:
        message = "no claim: one wording is short enough for the model, which tells nothing of a habit"
    else:
        message = f"too few to tell: {num} conversations in English to put it into, {limits.min_pairs} are needed"
    return Finding(
        name,
        None,
        "ok",
        message,
        num_pairs=num,
        threshold=limits.effect_warn,
        human_rate=None if rates is None else rates.human,
        model_rate=None if rates is None else rates.model,
    )
