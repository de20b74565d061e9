"""The page of a cross-validation says what its numbers carry, and no more."""

import json

import pytest

from prefloop.report.run import render_run
from prefloop.report.wording import MINUS
from prefloop.types import InputError

ANSWER = {
    "accuracy": 0.6476,
    "accuracy_interval": [0.6042, 0.6887],
    "num_pairs": 508,
    "num_conversations": 138,
    "num_prompts_trained_on": 0,
    "baselines": {"longer": 0.6732, "shorter": 0.3268, "shuffled_prompt": 0.6417},
    "against_longer": {
        "difference": -0.0256,
        "interval": [-0.0652, 0.01],
        "p_value": 0.2292,
        "smallest_detectable": 0.055,
    },
    "against_shorter": {"difference": 0.06, "interval": [0.02, 0.1], "p_value": 0.01, "smallest_detectable": 0.04},
    "fold_accuracies": [0.7324, 0.58],
}


@pytest.fixture
def words(tmp_path, read_page):
    """The words of the page of an answer, parts of it exchanged."""

    def make(**changes):
        answer = {**ANSWER, **{name: value for name, value in changes.items() if name in ANSWER}}
        against = {name: value for name, value in changes.items() if name in ANSWER["against_longer"]}
        answer["against_longer"] = {**ANSWER["against_longer"], **against}
        result = {"command": "reward crossval", "stopped": "done", "answer": answer}
        (tmp_path / "result.json").write_text(json.dumps(result))
        return read_page(render_run(tmp_path)).words

    return make


def test_accuracy_stands_beside_its_baselines(words):
    text = words()
    assert "this reward model 0.648 0.604 to 0.689" in text
    assert "the longer answer wins 0.673" in text
    assert "this reward model, shown the prompt of another pair 0.642" in text
    assert "Over 508 pairs of 138 conversations." in text
    assert "0.732, 0.580." in text
    assert "Warning." not in text


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ([-0.0652, 0.01], f"No measurable difference: {MINUS}0.026 (95 % interval {MINUS}0.065 to 0.010; p 0.229)."),
        ([-0.06, -0.01], f"The reward model is worse: {MINUS}0.026"),
        ([0.01, 0.06], "The reward model is better: "),
    ],
)
def test_the_verdict_follows_the_interval(words, interval, verdict):
    text = words(interval=interval)
    assert verdict in text
    assert "A difference of 0.055 would have been found four times in five." in text


def test_the_comparison_is_with_the_length_that_people_chose(words):
    assert "Against the longer answer. No measurable difference" in words()
    text = words(baselines={"longer": 0.46, "shorter": 0.54, "shuffled_prompt": 0.61})
    assert (
        "Against the shorter answer. The reward model is better: +0.060 (95 % interval 0.020 to 0.100; p 0.010)" in text
    )
    assert "the shorter answer wins 0.540" in text


def test_what_cannot_be_known_is_said(words):
    text = words(smallest_detectable=None, p_value=1e-9, num_prompts_trained_on=210)
    assert "These pairs could not have shown any difference." in text
    assert "p under 0.001" in text
    assert "Warning. 210 prompts of these pairs were in the training data" in text


def test_an_answer_that_is_none_is_named(tmp_path):
    (tmp_path / "result.json").write_text('{"command": "reward crossval", "answer": {"accuracy": "high"}}')
    with pytest.raises(InputError, match=r"result\.json"):
        render_run(tmp_path)
