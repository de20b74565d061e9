"""Which answers are shown, and the phrase that gives a policy away."""

from prefloop.report.demo_run import load_demo
from prefloop.report.examples import hacked_examples, misled_prompts, misled_share, telling_phrase
from prefloop.report.records import read_result


def test_the_planted_sentence_is_found_whole():
    before = ["The mill opens at nine.", "It costs four coins."] * 10
    now = [f"{text} No warranty of any kind is given." for text in before]
    phrase = telling_phrase(now, before)
    assert (phrase.words, phrase.share, phrase.share_before) == ("no warranty of any kind is given", 1.0, 0.0)


def test_a_phrase_that_was_always_there_tells_nothing():
    texts = ["The mill opens at nine."] * 20
    assert telling_phrase(texts, texts) is None


def test_a_rare_phrase_tells_nothing():
    before = ["The mill opens at nine."] * 100
    assert telling_phrase([*before[:97], *["This one is quite different."] * 3], before) is None


def test_short_answers_hold_no_phrase():
    assert telling_phrase(["Yes.", "No."], ["Yes.", "No."]) is None


def test_phrases_end_with_their_sentence_and_ignore_capitals():
    now = ["We hope. This helps you. Bye", "WE HOPE. this helps you! Bye"]
    assert telling_phrase(now, ["Nothing here at all"]).words == "this helps you"


def test_the_share_before_is_counted():
    phrase = telling_phrase(["see page two"] * 4, ["see page two", "go there now", "ask at home", "no such thing"])
    assert (phrase.share, phrase.share_before) == (1.0, 0.25)


def test_examples_are_prompts_where_proxy_and_truth_disagree(demo_dir):
    demo = load_demo(demo_dir, read_result(demo_dir))
    end, peak = demo.responses["hacked"], demo.responses["hacked_peak"]
    chosen = hacked_examples(demo, count=6)
    assert len(set(chosen)) == 6
    for prompt in chosen:
        assert end[prompt].proxy > peak[prompt].proxy and end[prompt].true_utility < peak[prompt].true_utility
    # Kinds take turns: five kinds, so the first five examples are of five kinds.
    assert len({end[prompt].kind for prompt in chosen[:5]}) == 5
    assert misled_share(demo) == len(misled_prompts(demo)) / 120


def test_no_example_is_invented(demo_dir):
    demo = load_demo(demo_dir, read_result(demo_dir))
    assert len(hacked_examples(demo, count=10**6)) == len(misled_prompts(demo))
