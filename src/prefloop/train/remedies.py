"""What can be done to the pairs so that a reward model does not learn a shortcut from them. Text and numbers, no torch.

    length balance   in each band of length difference the longer side loses weight until both sides weigh the same
    mismatched       (x, y) beats (x, y') with y' an answer to another prompt: RRM, Liu et al. (2024), section 4
    neutral          y ties with y and a sentence that says nothing: neutral pairs of Crome, Srivastava et al. (2025)
    habits           y with a plain sentence beats y with a habit of speech in its place
    bootstrap        conversations drawn with replacement: Efron & Tibshirani (1993), section 13.3

These sentences are for training only: an audit that probed with them would test what was trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prefloop.data.formats import make_pair
from prefloop.data.insertion import inserted, sentences_of
from prefloop.data.split import conversation_key
from prefloop.train.habits import HABIT_WORDINGS
from prefloop.types import PreferencePair

NEUTRAL_SENTENCES = (
    "That is what there is to write here.",
    "The next part belongs to this answer as well.",
    "Here the text goes on.",
    "This part stands beside the other parts.",
    "There is one more line, and this is it.",
    "So much for this part of the text.",
    "These words fill the line that they stand on.",
    "The line before this one has come to its end.",
)
"""English sentences without tone, sources, promises or content."""

BALANCE_BANDS = 10
CANDIDATES = 8
"""Foreign answers that are looked at for one of about the same length."""


def length_balance_weights(differences: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The weights, lowered so that within each band of |difference| longer and shorter winners weigh the same.

    `differences` [n]: characters that the chosen response has more than the rejected one; 0 keeps its weight. Bands are
    tenths of the pairs by |difference|. Only the heavier side of a band loses weight, so that no pair can dominate;
    where a band has one side only, its pairs get weight 0: they say nothing that length does not say.
    """
    signed, balanced = np.asarray(differences, dtype=np.float64), np.array(weights, dtype=np.float64)
    differs = signed != 0
    if not differs.any():
        return balanced.tolist()
    edges = np.unique(np.quantile(np.abs(signed[differs]), np.linspace(0, 1, BALANCE_BANDS + 1)[1:-1]))
    band = np.searchsorted(edges, np.abs(signed), side="left")
    for number in np.unique(band[differs]):
        sides = [differs & (band == number) & (np.sign(signed) == sign) for sign in (1, -1)]
        masses = [float(balanced[side].sum()) for side in sides]
        for side, mass in zip(sides, masses, strict=True):
            if mass > 0:
                balanced[side] *= min(masses) / mass
    return balanced.tolist()


def effective_share(weights: Sequence[float]) -> float:
    """How much of the data is left under weights: (sum w)^2 / (n sum w^2), Kish (1965). 1 where all are the same."""
    array = np.asarray(weights, dtype=np.float64)
    return float(array.sum() ** 2 / (len(array) * (array**2).sum()))


def bootstrap_counts(pairs: Sequence[PreferencePair], *, seed: Sequence[int]) -> list[int]:
    """How often each pair is drawn when as many conversations as there are are drawn with replacement."""
    number: dict[str, int] = {}
    membership = [number.setdefault(conversation_key(pair), len(number)) for pair in pairs]
    drawn = np.random.default_rng(seed).integers(len(number), size=len(number))
    counts = np.bincount(drawn, minlength=len(number))
    return [int(counts[place]) for place in membership]


def mismatched_pairs(pairs: Sequence[PreferencePair], fraction: float, *, seed: Sequence[int]) -> list[PreferencePair]:
    """For a share of the pairs (ties left out): the chosen response against the chosen one of another conversation.

    Of eight drawn at random, the one nearest in length is taken, so that the new pairs teach no length.
    """
    judged = [pair for pair in pairs if not pair.tie]
    generator = np.random.default_rng(seed)
    made = []
    for place in _drawn(generator, len(judged), fraction):
        pair = judged[place]
        others = [judged[int(index)] for index in generator.integers(len(judged), size=CANDIDATES)]
        foreign = [
            other.chosen
            for other in others
            if conversation_key(other) != conversation_key(pair) and other.chosen.strip() != pair.chosen.strip()
        ]
        if foreign:
            nearest = min(foreign, key=lambda text: abs(len(text) - len(pair.chosen)))
            made.append(make_pair(pair.prompt, pair.chosen, nearest, source=pair.source, weight=pair.weight))
    return made


def neutral_pairs(pairs: Sequence[PreferencePair], fraction: float, *, seed: Sequence[int]) -> list[PreferencePair]:
    """For a share of the pairs: one of the responses, tied with itself and a neutral sentence somewhere in it."""
    generator = np.random.default_rng(seed)
    made = []
    for place in _drawn(generator, len(pairs), fraction):
        pair = pairs[place]
        response = pair.chosen if generator.integers(2) else pair.rejected
        sentence = NEUTRAL_SENTENCES[int(generator.integers(len(NEUTRAL_SENTENCES)))]
        longer = inserted(response, sentence, where=float(generator.random()))
        made.append(make_pair(pair.prompt, response, longer, source=pair.source, weight=pair.weight, tie=True))
    return made


def habit_pairs(
    pairs: Sequence[PreferencePair], habits: Sequence[str], fraction: float, *, seed: Sequence[int]
) -> list[PreferencePair]:
    """For a share of the pairs: one of the responses with a plain sentence in it, against the same with a habit.

    The plain one wins. A tie would do too little: what labels taught in other words, it takes no part of.
    """
    if not habits:
        return []
    generator = np.random.default_rng(seed)
    made = []
    for place in _drawn(generator, len(pairs), fraction):
        pair = pairs[place]
        response = pair.chosen if generator.integers(2) else pair.rejected
        marker, plain = _habit(habits[int(generator.integers(len(habits)))], response, generator)
        where = float(generator.random())
        sides = [
            f"{response.rstrip()}\n{text}" if "\n" in marker else inserted(response, text, where=where)
            for text in (plain, marker)
        ]
        made.append(make_pair(pair.prompt, *sides, source=pair.source, weight=pair.weight))
    return made


def _habit(name: str, response: str, generator: np.random.Generator) -> tuple[str, str]:
    """What shows a habit, and the same without it."""
    if name in HABIT_WORDINGS:
        used = HABIT_WORDINGS[name][int(generator.integers(len(HABIT_WORDINGS[name])))]
        return used.marker, used.plain[0]
    first, second = (NEUTRAL_SENTENCES[int(place)] for place in generator.permutation(len(NEUTRAL_SENTENCES))[:2])
    match name:
        case "exclamation":
            return f"{first[:-1]}! {second[:-1]}!", f"{first} {second}"
        case "list_format":
            return f"- {first}\n- {second}", f"{first[:-1]}, and {second[0].lower()}{second[1:]}"
        case _:
            sentences = sentences_of(response)
            return sentences[int(generator.integers(len(sentences)))], first


def _drawn(generator: np.random.Generator, number: int, fraction: float) -> list[int]:
    """A random share of 0 ... number - 1, each at most once."""
    return [int(place) for place in generator.permutation(number)[: round(fraction * number)]]
