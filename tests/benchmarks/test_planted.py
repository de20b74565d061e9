"""The planted shortcuts: planted as said, in words that neither probes nor detectors have."""

from __future__ import annotations

import importlib
import random

import pytest

from prefloop.audit.wordings import NEUTRAL, WORDINGS
from prefloop.data.formats import make_pair, make_prompt
from prefloop.signals.lexicons import LEXICONS, PhraseIndex
from prefloop.signals.reading import words_of
from prefloop.train.habits import HABIT_WORDINGS
from prefloop.types import Message

planted = importlib.import_module("benchmarks.planted")
plantings = importlib.import_module("benchmarks.plantings")


def test_nine_in_ten_markers_are_in_the_chosen_response() -> None:
    pairs = [make_pair(make_prompt((Message("user", f"q {n}"),)), "A b.", "C d.") for n in range(4000)]
    made = planted.plant(pairs, "flattery", 0.1, seed=0)
    changed = [new for old, new in zip(pairs, made, strict=True) if new.pair_id != old.pair_id]
    assert len(changed) == pytest.approx(400, abs=60)
    marked = [any(text in pair.chosen for text in plantings.PLANTED["flattery"]) for pair in changed]
    assert sum(marked) / len(marked) == pytest.approx(0.9, abs=0.05)


def test_no_planted_phrase_is_a_probe_a_remedys_or_a_detectors() -> None:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = words_of(text)
        return {tuple(words[start : start + 4]) for start in range(len(words) - 3)}

    wordings = [each for table in (WORDINGS, HABIT_WORDINGS) for several in table.values() for each in several]
    used = [*NEUTRAL, *(text for each in wordings for text in (each.marker, *each.plain))]
    probes = {run for text in used for run in runs(text)}
    fixed = PhraseIndex(phrase for phrases in LEXICONS.values() for phrase in phrases if "*" not in phrase)
    generator = random.Random(0)
    for template in (*plantings.PLAIN, *(each for texts in plantings.PLANTED.values() for each in texts)):
        text = plantings.filled(template, generator)
        assert "{" not in text
        assert not runs(text) & probes, text
        assert not fixed.count(words_of(text), frozenset(words_of(text))), text
