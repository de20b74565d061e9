"""Reading: slots, subjects, repetition, readability."""

from __future__ import annotations

from prefloop.world.language import Statement, read, shape


def test_names_values_and_pages_are_recognised_in_their_context() -> None:
    assert shape("The Amber Mill opens at six.") == "the <name> opens at <hours>"
    assert shape("It costs six coins") == "it costs <price> coins"
    assert shape("six") == "six"
    assert shape("is on River Street, by Anna; page 12") == "is on <street> street by <keeper> page <page>"


def test_a_statement_is_about_the_place_named_last() -> None:
    text = "It opens at six. The Jade Zoo is run by Anna. It costs two coins. The Red Inn opens at one."
    assert read(text).statements() == [
        Statement(None, "hours", "six", True),
        Statement("Jade Zoo", "keeper", "Anna", True),
        Statement("Jade Zoo", "price", "two", True),
        Statement("Red Inn", "hours", "one", True),
    ]


def test_phrases_are_counted_also_side_by_side() -> None:
    assert read("no liability no liability, no liability").count(["no liability"]) == 3
    assert read("casino liability").count(["no liability"]) == 0


def test_repeated_words() -> None:
    assert read("one two three four").repeated_words() == 0
    assert read("one two three four. One two three four!").repeated_words() == 4
    # The grams at 1 and 2 have stood at 0: five of the six words are covered.
    assert read("ha ha ha ha ha ha").repeated_words() == 5
    assert read("The Amber Mill opens at six. The Amber Mill costs six coins.").repeated_words() == 0


def test_a_third_of_foreign_neighbours_is_the_limit() -> None:
    assert [s.foreign for s in read("It opens at nine o'clock").segments] == [2]
    assert read("It opens at nine o'clock").segments[0].readable
    assert not read("It opens at nine fifteen sharp").segments[0].readable
    assert read("It opens at nine. Blah blah blah blah blah").gibberish
    assert not read("It opens at nine. Blah blah").gibberish
    assert not read("").gibberish
