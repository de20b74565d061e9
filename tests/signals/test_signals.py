"""Signals against texts counted by hand, in several languages, and against what the simulated town plants."""

from __future__ import annotations

import math

import pytest

from prefloop.signals.lexicons import ANY, LEXICONS, PhraseIndex, expanded
from prefloop.signals.measures import SIGNALS
from prefloop.signals.reading import Reading, words_of
from prefloop.world import phrases

TONE = ("hedging", "confidence", "citation", "disclaimer", "flattery", "refusal")
GERMAN = "Das Brot soll im Ofen bei hoher Hitze gebacken werden, bis die Kruste braun und knusprig ist."
FRENCH = "Le pain doit cuire au four à haute température jusqu'à ce que la croûte soit dorée et croustillante."
SPANISH = "El pan debe hornearse a alta temperatura hasta que la corteza esté dorada y muy crujiente por fuera."
CHINESE = "面包应该在高温下烘烤直到外皮变成金黄色。"
ENGLISH = "The bread should bake in a hot oven until the crust is brown and it sounds hollow."


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("length", "  four  ", 4),
        ("length", "", 0),
        ("hedging", "Perhaps it is so. I think it might be later, but I could be wrong.", 4),
        ("hedging", "It is at nine.", 0),
        ("confidence", "It is definitely at nine, without a doubt.", 2),
        ("confidence", "Say it with utter confidence.", 1),
        ("citation", "According to the survey (Miller, 2019) it is so [3], see https://example.org/a and p. 12.", 5),
        ("citation", "It is so (I was there in 2019).", 0),
        ("disclaimer", "As an AI I am not a doctor. Please consult a physician.", 3),
        ("flattery", "What a great question! You're absolutely right.", 2),
        ("list_format", "Do this:\n1. mix\n2. bake\n- cool\n# Notes\nnot - this", 4),
        ("list_format", "- see\n```py\n# a comment\n- 1\n```\n- done\n```\n# never closed", 2),
        ("list_format", "-5 degrees and 3.5 litres", 0),
        ("exclamation", "Yes! No!!", 3),
        ("exclamation", "\u597d\uff01", 1),
        ("refusal", "I'm sorry, but I can\u2019t help you to do that.", 1),
        ("refusal", "Put the lock on the bench and turn the key.", 0),
        # Runs: abc bca cab abc bca -> three distinct of five.
        ("repetition", "a b c a b c a", 0.4),
        ("repetition", "one two three", 0),
    ],
)
def test_a_signal_counts_what_a_person_counts(name: str, text: str, expected: float) -> None:
    value = SIGNALS[name](text)
    assert value is not None and math.isclose(value, expected)


def test_a_refusal_late_in_a_text_is_about_something_else() -> None:
    assert SIGNALS["refusal"]("the word " * 40 + "I refuse") == 0


@pytest.mark.parametrize("text", [GERMAN, FRENCH, SPANISH, CHINESE, "面包很好"])
def test_tone_does_not_apply_to_other_languages(text: str) -> None:
    assert {name for name, signal in SIGNALS.items() if signal(text) is None} == set(TONE)
    assert {name for name, signal in SIGNALS.items() if signal.language == "en"} == set(TONE)


@pytest.mark.parametrize("text", [ENGLISH, "Great question!", "", "Oak Street."])
def test_every_signal_applies_to_english_and_to_what_is_too_short_to_tell(text: str) -> None:
    assert all(signal(text) is not None for signal in SIGNALS.values())


def test_the_language_of_a_text() -> None:
    texts = [ENGLISH, GERMAN, FRENCH, SPANISH, CHINESE, "Bonjour !"]
    assert [Reading(text).language for text in texts] == ["en", "other", "other", "other", "other", "unknown"]


def test_a_longer_phrase_is_counted_once_and_not_as_its_beginning() -> None:
    index = PhraseIndex(["not sure", "not sure at all", "at all"])
    words = words_of("Not sure at all, not sure.")
    assert index.count(words, frozenset(words)) == 2


def test_the_wildcard_stands_for_exactly_one_word() -> None:
    index = PhraseIndex(["as * as"])
    for text, count in (("as good as", 1), ("as as", 0), ("as very good as", 0)):
        words = words_of(text)
        assert index.count(words, frozenset(words)) == count, text


def test_typographic_apostrophes_are_apostrophes() -> None:
    assert words_of("I can\u2019t, \u2018really\u2019") == words_of("I can't, 'really'") == ["i", "can't", "really"]


def planted_texts() -> list[str]:
    """What the town says beside facts: the markers whole and as they are recognised, and the fixed sentences."""
    fixed = (*phrases.REFUSALS, *phrases.ABSTENTIONS, *phrases.CITATIONS, *phrases.PADDING, *phrases.POLITE)
    markers = (*phrases.HEDGES, *phrases.CONFIDENT, *phrases.DISCLAIMERS)
    marked = [text for marker in markers for text in (marker.text, marker.core)]
    return [*(text.format(page=7, name="Amber Mill") for text in fixed), *marked]


def test_no_phrase_of_a_detector_is_one_that_the_world_plants() -> None:
    planted = [f" {' '.join(words_of(text))} " for text in planted_texts()]
    assert len(planted) > 20
    shared = [
        (name, words, text)
        for name, lexicon in LEXICONS.items()
        for phrase in lexicon
        for words in expanded(phrase)
        for text in planted
        if ANY not in words and (f" {' '.join(words)} " in text or text.strip() in " ".join(words))
    ]
    assert shared == []


def test_the_check_above_can_fail() -> None:
    assert any(" slightest doubt " in f" {' '.join(words_of(text))} " for text in planted_texts())
