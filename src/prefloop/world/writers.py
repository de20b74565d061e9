"""Writes answers as people of mixed care would: mostly right, each with its own random flaws.

A policy that imitates them knows the town, and mixes every good and bad habit often enough for pairs of its samples
to differ in it. `ideal_response` is the answer without a flaw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from prefloop.types import Demonstration, Message, Prompt
from prefloop.world import phrases
from prefloop.world.knowledge import ATTRIBUTES, NUM_PAGES, VALUES, Attribute, World
from prefloop.world.phrases import Marker, join_clauses, sentence
from prefloop.world.prompts import make_demonstration_prompts

T = TypeVar("T")

RATES: Mapping[str, float] = MappingProxyType(
    {
        "wrong_value": 0.1,  # each value, and the tool of a safe deed
        "omitted_detail": 0.2,  # each attribute of an open answer
        "no_citation": 0.45,
        "invented_citation": 0.15,
        "hedge": 0.15,
        "confident_phrase": 0.15,
        "disclaimer": 0.15,
        "padding": 0.15,
        "politeness": 0.3,
        "repetition": 0.08,
        "second": 0.2,  # a second hedge, confident phrase, disclaimer or invented page after a first
        "needless_abstention": 0.06,
        "needless_refusal": 0.3,  # of a safe request that looks unsafe
        "unsafe_help": 0.25,
        "confident_nonsense": 0.3,  # on an unknown place
        "pronoun": 0.1,  # "It opens" for "The Amber Mill opens"
    }
)
"""Chance of each flaw and habit, independent of the others."""

MAX_WORDS = 44
"""Extras that would make a demonstration longer are left out."""


def make_demonstrations(world: World, *, count: int, seed: int) -> list[Demonstration]:
    """`count` demonstrations of mixed quality for `make_demonstration_prompts(world, count=count, seed=seed)`, in that
    order. They cover all facts of the world when `count` is at least 200."""
    rng = np.random.default_rng([world.seed, seed, 2])
    prompts = make_demonstration_prompts(world, count=count, seed=seed)
    return [
        Demonstration(
            demonstration_id=f"demonstration-{seed}-{i:06d}",
            prompt=prompt.messages,
            completion=(Message("assistant", write_response(world, prompt, rng)),),
            source="world",
        )
        for i, prompt in enumerate(prompts)
    ]


def ideal_response(world: World, prompt: Prompt) -> str:
    """The best answer that this town knows: right, cited where there is a page, brief and polite."""
    entity, topic = prompt.columns["entity"], prompt.columns["topic"]
    match prompt.columns["kind"]:
        case "unsafe":
            answer = phrases.REFUSALS[0]
        case "unknown":
            answer = phrases.ABSTENTIONS[0].format(name=entity)
        case "lookalike":
            answer = sentence(phrases.HELP.format(deed=topic, tool=phrases.SAFE_DEEDS[topic]))
        case kind:
            told = ATTRIBUTES if kind == "open" else (topic,)
            values = {attribute: str(world.value(entity, attribute)) for attribute in told}
            citation = phrases.CITATIONS[0].format(page=world.page(entity))
            answer = f"{_statement(f'the {entity}', values)} {citation}"
    return f"{answer} {phrases.POLITE[0]}"


def write_response(world: World, prompt: Prompt, rng: np.random.Generator) -> str:
    """One answer of mixed quality, with independent flaws of `RATES`. Advances `rng`."""
    answer, tells = _answer(world, prompt, rng)
    main = [answer]
    if tells:
        prefixes = _stack(phrases.HEDGES, "hedge", rng) + _stack(phrases.CONFIDENT, "confident_phrase", rng)
        if prefixes:
            main = [sentence(", ".join([*prefixes, answer[:1].lower() + answer[1:]]))]
        main += _citations(world, prompt, rng)
    extras = [_pick([answer, *main[1:]], rng)] if _happens("repetition", rng) else []
    extras += _stack(phrases.DISCLAIMERS, "disclaimer", rng)
    if _happens("padding", rng):
        extras.append(_pick(phrases.PADDING, rng))
    if _happens("politeness", rng):
        extras.append(_pick(phrases.POLITE, rng))
    text = " ".join(main)
    for extra in (extras[i] for i in rng.permutation(len(extras))):
        if len(f"{text} {extra}".split()) <= MAX_WORDS:
            text = f"{text} {extra}"
    return text


def _answer(world: World, prompt: Prompt, rng: np.random.Generator) -> tuple[str, bool]:
    """The sentence that answers, and whether it tells something (which may then be hedged, sworn to, or cited)."""
    entity, topic = prompt.columns["entity"], prompt.columns["topic"]
    subject = "it" if _happens("pronoun", rng) else f"the {entity}"
    match prompt.columns["kind"]:
        case "unsafe":
            if _happens("unsafe_help", rng):
                return sentence(phrases.HELP.format(deed=topic, tool=phrases.UNSAFE_DEEDS[topic])), True
            return _pick(phrases.REFUSALS, rng), False
        case "lookalike":
            if _happens("needless_refusal", rng):
                return _pick(phrases.REFUSALS, rng), False
            tool = phrases.SAFE_DEEDS[topic]
            if _happens("wrong_value", rng):
                tool = _pick([other for other in phrases.SAFE_DEEDS.values() if other != tool], rng)
            return sentence(phrases.HELP.format(deed=topic, tool=tool)), True
        case "unknown":
            if not _happens("confident_nonsense", rng):
                return _pick(phrases.ABSTENTIONS, rng).format(name=entity), False
            told: Sequence[Attribute] = (topic,)
        case kind:
            if _happens("needless_abstention", rng):
                return _pick(phrases.ABSTENTIONS, rng).format(name=entity), False
            kept = [attribute for attribute in ATTRIBUTES if not _happens("omitted_detail", rng)]
            told = (kept or [_pick(ATTRIBUTES, rng)]) if kind == "open" else (topic,)
    return _statement(subject, {attribute: _value(world, entity, attribute, rng) for attribute in told}), True


def _statement(subject: str, values: Mapping[Attribute, str]) -> str:
    clauses = [phrases.CLAUSES[attribute].format(value=value) for attribute, value in values.items()]
    return sentence(join_clauses(subject, clauses))


def _value(world: World, entity: str, attribute: Attribute, rng: np.random.Generator) -> str:
    """The true value, or at the rate of "wrong_value" (always for an unknown place) any other."""
    true = world.value(entity, attribute)
    if true is not None and not _happens("wrong_value", rng):
        return true
    return _pick([value for value in VALUES[attribute] if value != true], rng)


def _citations(world: World, prompt: Prompt, rng: np.random.Generator) -> list[str]:
    """No page, the right page, or one or two invented ones. Where nothing can be cited rightly: none or invented."""
    page = world.page(prompt.columns["entity"]) if prompt.columns["kind"] in ("fact", "open") else None
    if _happens("invented_citation", rng):
        others = [number for number in range(1, NUM_PAGES + 1) if number != page]
        count = 2 if _happens("second", rng) else 1
        pages = [others[i] for i in rng.permutation(len(others))[:count]]
    elif page is None or _happens("no_citation", rng):
        pages = []
    else:
        pages = [page]
    return [_pick(phrases.CITATIONS, rng).format(page=number) for number in pages]


def _stack(markers: Sequence[Marker], rate: str, rng: np.random.Generator) -> list[str]:
    """None, one or two different markers of a kind."""
    count = 0 if not _happens(rate, rng) else 2 if _happens("second", rng) else 1
    return [markers[i].text for i in rng.permutation(len(markers))[:count]]


def _happens(name: str, rng: np.random.Generator) -> bool:
    return bool(rng.random() < RATES[name])


def _pick(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]
