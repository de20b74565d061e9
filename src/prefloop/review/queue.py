"""The queue: what a person is to read, the suspicious first by rank and a slice by lot, mixed.

The slice is drawn from all responses of the log, suspicious or not, so that it says how often the policy hacks, and
what the detectors miss. Nothing in the order of the file tells which item was drawn and which was suspected.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prefloop.data.dialogue import short_hash
from prefloop.review.detectors import RANDOM, Logged, Suspicion

TASK = "review"
SIGNALS = ("kl", "score_spread", "held_out_score", "out_of_distribution", "finish_reason")


@dataclass(frozen=True)
class Ranked:
    """A suspicious response, once for all responses of the same words."""

    place: int
    """Its row in the log."""
    rank: int
    suspicion: Suspicion


@dataclass(frozen=True)
class Item:
    """One row of the queue."""

    item_id: str
    """Hash of prompt and response: the same in every export."""
    prompt: str
    response: str
    score: float
    step: int
    reasons: tuple[str, ...]
    rank: int | None
    """Place among the suspicious, from 1; None where only the lot chose it."""
    draws: int
    """How many rows of the random slice it stands for; 0 where the lot did not choose it."""
    copies: int
    """Rows of the log with this response to this prompt."""
    num_rows: int
    """Rows of the log that the slice was drawn from."""
    run: str
    prompt_id: str
    policy_version: str = ""
    signals: Mapping[str, Any] = field(default_factory=dict)
    task: str = TASK


def ranked(rows: Sequence[Logged], found: Sequence[Suspicion], *, per_prompt: int) -> list[Ranked]:
    """The suspicious rows in their order: what an alarm shows, then the highest suspicion, then the highest score.

    Of responses with the same words the first counts; of one prompt at most `per_prompt` do.
    """
    places = [place for place, each in enumerate(found) if each.reasons]
    places.sort(key=lambda place: (not found[place].alarms, -found[place].value, -rows[place].score, place))
    texts: set[str] = set()
    prompts: Counter[str] = Counter()
    kept: list[Ranked] = []
    for place in places:
        words = " ".join(rows[place].response.split())
        if words in texts or prompts[rows[place].prompt_id] >= per_prompt:
            continue
        texts.add(words)
        prompts[rows[place].prompt_id] += 1
        kept.append(Ranked(place, len(kept) + 1, found[place]))
    return kept


def make_queue(
    rows: Sequence[Logged],
    found: Sequence[Suspicion],
    *,
    size: int,
    random_fraction: float,
    per_prompt: int,
    seed: int,
    run: str,
) -> list[Item]:
    """About `size` items. Where there are fewer suspicious ones than there is room for, the slice by lot is larger."""
    order = ranked(rows, found, per_prompt=per_prompt)
    chosen = order[: size - math.ceil(random_fraction * size)]
    generator = np.random.default_rng(seed)
    drawn = generator.choice(len(rows), size=min(size - len(chosen), len(rows)), replace=False)
    ids = [short_hash(row.prompt, row.response) for row in rows]
    copies, draws = Counter(ids), Counter(ids[place] for place in drawn)
    items: dict[str, Item] = {}
    for place, rank in [(each.place, each.rank) for each in chosen] + [(int(place), None) for place in drawn]:
        row, name = rows[place], ids[place]
        reasons = (*found[place].reasons, RANDOM) if draws[name] else found[place].reasons
        made = Item(
            *(name, row.prompt, row.response, row.score, row.step, reasons, rank, draws[name], copies[name]),
            num_rows=len(rows),
            run=run,
            prompt_id=row.prompt_id,
            policy_version=row.policy_version,
            signals={key: value for key in SIGNALS if (value := getattr(row, key)) is not None},
        )
        items.setdefault(name, made)
    mixed = list(items.values())
    return [mixed[place] for place in generator.permutation(len(mixed))]


def as_row(item: Item) -> dict[str, Any]:
    """As a file has it."""
    values = dataclasses.asdict(item)
    return {"task": values.pop("task"), **values}
