"""Prompts of the simulated help desk, in three splits that share no fact, no unknown name and no combination.

* `fact`: one attribute of a known place. Entity-attribute pairs are split.
* `unknown`: the same question about a place that is not in the town; the right answer is to say so. Names are split.
* `unsafe`: how to do harm at a place; the right answer is to decline.
* `lookalike`: how to do something harmless that sounds harmful; the right answer helps.
* `open`: tell me about a place; completeness pays.

For the last three, combinations of place and phrasing (the deed, or the open question) are split.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import numpy as np

from prefloop.types import InputError, Message, Prompt
from prefloop.world.knowledge import ATTRIBUTES, World
from prefloop.world.phrases import (
    FACT_QUESTIONS,
    HOWTO_QUESTIONS,
    OPEN_QUESTIONS,
    OPENERS,
    SAFE_DEEDS,
    UNSAFE_DEEDS,
)

Kind = Literal["fact", "unknown", "unsafe", "lookalike", "open"]
Split = Literal["train", "validation", "test"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PROMPT_MIX: Mapping[Kind, float] = {"fact": 0.4, "unknown": 0.15, "unsafe": 0.15, "lookalike": 0.15, "open": 0.15}
"""Shares of the kinds among prompts."""

DEMONSTRATION_MIX: Mapping[Kind, float] = {"fact": 0.5, "unknown": 0.1, "unsafe": 0.1, "lookalike": 0.1, "open": 0.2}
"""Shares of the kinds among demonstrations: more of what carries knowledge, since it must come from there."""

SPLIT_SHARES: Mapping[Split, float] = {"train": 1 / 2, "validation": 1 / 6, "test": 1 / 3}

DEMONSTRATED_QUESTIONS = 2
"""Facts outside the training split are demonstrated too (the policy must know them), but only in the first two
questions of each attribute; the prompts of those splits use the others, so none of them occurs in a demonstration."""


@dataclass(frozen=True)
class _Request:
    """What is asked, before it is put into words."""

    kind: Kind
    entity: str
    topic: str
    """The attribute, the deed, or the number of the open question."""
    question: str

    def prompt(self, split: Split, index: int, opener: int) -> Prompt:
        """In words. The id names what is asked, so it is the same for every sampling seed."""
        wording = self.question.format(name=self.entity, deed=self.topic)
        slug = "-".join(f"{self.entity} {self.topic}".lower().split())
        return Prompt(
            prompt_id=f"{split}-{self.kind}-{slug}-{index}{opener}",
            messages=(Message("user", OPENERS[opener] + wording),),
            source="world",
            split="train" if split == "train" else "eval",
            columns={"kind": self.kind, "entity": self.entity, "topic": self.topic, "world_split": split},
        )


def make_prompts(world: World, *, split: Split, count: int, seed: int) -> list[Prompt]:
    """`count` different prompts of a split, mixed as `PROMPT_MIX` says, in random order.

    `columns` holds `kind`, `entity`, `topic` (attribute, deed or number of the open question) and `world_split`.
    `Prompt.split` is "train" for the training split, else "eval".

    Raises InputError when the split has fewer prompts of a kind than asked for (train has more than 2,000 in all,
    test more than 1,500).
    """
    rng = np.random.default_rng([world.seed, seed, zlib.crc32(split.encode())])
    chosen: list[Prompt] = []
    for kind, wanted in _shares(PROMPT_MIX, count).items():
        pool = _pool(world, kind, split)
        if wanted > len(pool):
            raise InputError(
                f"{count} prompts need {wanted} of kind {kind}, and split {split} has {len(pool)}",
                field="count",
                remedy=f"ask for at most {int(len(pool) / PROMPT_MIX[kind])}",
            )
        chosen += [pool[i] for i in rng.permutation(len(pool))[:wanted]]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def all_prompts(world: World) -> list[Prompt]:
    """Every prompt of the world once, demonstrated ones included: what its people can be asked about."""
    splits: tuple[Split, ...] = get_args(Split)
    pools = [_pool(world, kind, split) for kind in KINDS for split in splits]
    by_text = {prompt.messages: prompt for pool in (*pools, _demonstrated_facts(world)) for prompt in pool}
    return list(by_text.values())


def make_demonstration_prompts(world: World, *, count: int, seed: int) -> list[Prompt]:
    """`count` prompts to demonstrate, mixed as `DEMONSTRATION_MIX` says; prompts may repeat.

    Those of the training split, and the facts of the other splits in their demonstrated questions. Each fact is
    asked equally often up to one, so 200 demonstrations or more hold all of them.
    """
    rng = np.random.default_rng([world.seed, seed, zlib.crc32(b"demonstrations")])
    chosen: list[Prompt] = []
    for kind, wanted in _shares(DEMONSTRATION_MIX, count).items():
        if kind != "fact":
            pool = _pool(world, kind, "train")
            chosen += [pool[i] for i in rng.integers(len(pool), size=wanted)]
            continue
        by_fact: dict[tuple[str, str], list[Prompt]] = {}
        for prompt in _demonstrated_facts(world):
            by_fact.setdefault((prompt.columns["entity"], prompt.columns["topic"]), []).append(prompt)
        pools = [pool for _, pool in sorted(by_fact.items())]
        order = [i for _ in range(wanted // len(pools) + 1) for i in rng.permutation(len(pools))]
        chosen += [pools[i][rng.integers(len(pools[i]))] for i in order[:wanted]]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _shares(mix: Mapping[Kind, float], count: int) -> dict[Kind, int]:
    """`count` divided by the shares of `mix`, largest remainders first."""
    exact = {kind: share * count for kind, share in mix.items()}
    whole = {kind: int(value) for kind, value in exact.items()}
    by_remainder = sorted(mix, key=lambda kind: whole[kind] - exact[kind])
    for kind in by_remainder[: count - sum(whole.values())]:
        whole[kind] += 1
    return whole


def _pool(world: World, kind: Kind, split: Split) -> list[Prompt]:
    """Every prompt of one kind in one split."""
    first_question = 0 if kind != "fact" or split == "train" else DEMONSTRATED_QUESTIONS
    return [
        request.prompt(split, index, opener)
        for entity, topic in _split_items(world, kind)[split]
        for index, request in enumerate(_requests(kind, entity, topic))
        for opener in range(len(OPENERS))
        if index >= first_question
    ]


def _demonstrated_facts(world: World) -> list[Prompt]:
    held_out: list[Prompt] = [
        request.prompt(split, index, opener)
        for split in ("validation", "test")
        for entity, topic in _split_items(world, "fact")[split]
        for index, request in enumerate(_requests("fact", entity, topic)[:DEMONSTRATED_QUESTIONS])
        for opener in range(len(OPENERS))
    ]
    return _pool(world, "fact", "train") + held_out


def _requests(kind: Kind, entity: str, topic: str) -> list[_Request]:
    """The ways to ask one thing."""
    match kind:
        case "fact" | "unknown":
            questions: Sequence[str] = FACT_QUESTIONS[next(a for a in ATTRIBUTES if a == topic)]
        case "open":
            questions = [OPEN_QUESTIONS[int(topic)]]
        case "unsafe" | "lookalike":
            questions = HOWTO_QUESTIONS
    return [_Request(kind, entity, topic, question) for question in questions]


def _split_items(world: World, kind: Kind) -> dict[Split, list[tuple[str, str]]]:
    """What may be asked in each split, as (entity, topic). Depends on the world only, never on a sampling seed."""
    rng = np.random.default_rng([world.seed, 1, zlib.crc32(kind.encode())])
    if kind == "unknown":
        names = _divide(world.unknown_entities, rng)
        return {split: list(product(names[split], ATTRIBUTES)) for split in names}
    topics: Mapping[Kind, Sequence[str]] = {
        "fact": ATTRIBUTES,
        "unsafe": tuple(UNSAFE_DEEDS),
        "lookalike": tuple(SAFE_DEEDS),
        "open": tuple(str(i) for i in range(len(OPEN_QUESTIONS))),
    }
    items: dict[Split, list[tuple[str, str]]] = {split: [] for split in SPLIT_SHARES}
    for topic in topics[kind]:
        for split, entities in _divide(world.entities, rng).items():
            items[split] += [(entity, topic) for entity in entities]
    return items


def _divide(values: Sequence[str], rng: np.random.Generator) -> dict[Split, list[str]]:
    """Random disjoint parts of `values`, as large as `SPLIT_SHARES` says."""
    order = [values[i] for i in rng.permutation(len(values))]
    parts: dict[Split, list[str]] = {}
    start, reached = 0, 0.0
    for split, share in SPLIT_SHARES.items():
        reached += share
        end = round(reached * len(order))
        parts[split] = order[start:end]
        start = end
    return parts
