"""`reward eval` and `reward score`, and what a scorer promises."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
import torch

from prefloop.models.load import load_reward_model
from prefloop.reward.evaluate import shuffled_margins, shuffled_prompts
from prefloop.reward.function import FunctionScorer
from prefloop.reward.measures import summarise
from prefloop.reward.model import RewardModel
from prefloop.reward.scoring import Response, load_scorer
from prefloop.types import EnvironmentStop, InputError, Message, PreferencePair, Prompt


def prompts_of(*texts, **columns):
    return [
        Prompt(text, (Message("user", text),), columns={name: values[place] for name, values in columns.items()})
        for place, text in enumerate(texts)
    ]


def pair(text, chosen, rejected):
    return PreferencePair(f"{text}-{chosen}", prompts_of(text)[0], chosen, rejected)


def test_eval_tells_accuracy_beside_its_baselines(prefloop, data, reward_run):
    outcome = prefloop("reward eval", reward_run.run, data / "pairs.jsonl")
    assert outcome.code == 0, outcome.said
    answer = outcome.answer
    assert answer["accuracy"] > 0.95 and answer["num_pairs"] == 320
    # The model was trained on these very pairs, which is said.
    assert answer["num_prompts_trained_on"] == answer["num_prompts"]
    assert f"prompts are also in {data / 'pairs.jsonl'}, which {reward_run.run} was trained on" in outcome.said
    low, high = answer["accuracy_interval"]
    assert 0.9 < low <= answer["accuracy"] <= high <= 1
    # Length was drawn alike for both sides, and the prompt has nothing to do with the preference.
    assert 0.4 < answer["baselines"]["longer"] < 0.65
    assert answer["baselines"]["shuffled_prompt"] > 0.9
    assert answer["against_longer"]["difference"] == pytest.approx(
        answer["accuracy"] - answer["baselines"]["longer"], abs=0.15
    )
    assert answer["against_longer"]["p_value"] < 1e-6
    assert answer["log_loss"] < math.log(2)
    rows = [json.loads(line) for line in (data / "pairs.jsonl").read_text().splitlines()]
    longer = [
        (len(row["chosen"]) > len(row["rejected"])) + 0.5 * (len(row["chosen"]) == len(row["rejected"])) for row in rows
    ]
    assert answer["baselines"]["longer"] == pytest.approx(sum(longer) / len(longer))


def test_eval_of_a_function(prefloop, data, tmp_path):
    outcome = prefloop("reward eval", f"{data / 'rewards.py'}:count_e", data / "pairs.jsonl")
    assert outcome.answer["accuracy"] == 1.0
    assert outcome.answer["accuracy_interval"] == [1.0, 1.0]
    assert outcome.answer["num_prompts_trained_on"] == 0


def test_a_summary_by_hand():
    pairs = [pair("p", "long one", "no"), pair("p", "a", "bbb"), pair("q", "same", "size"), pair("q", "xx", "y")]
    found = summarise(pairs, [1.0, 2.0, -1.0, 0.0], [1.0, -1.0, -1.0, -1.0], num_resamples=50, seed=0)
    assert found["accuracy"] == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    # A tie is half right on either side, so that the difference is that of the two accuracies.
    assert found["against_longer"]["difference"] == pytest.approx(found["accuracy"] - found["baselines"]["longer"])
    assert found["baselines"] == {
        **{"longer": 2.5 / 4, "shorter": 1.5 / 4, "majority": 2.5 / 4, "shuffled_prompt": 0.25}
    }
    assert found["against_shorter"]["difference"] == pytest.approx((2.5 - 1.5) / 4)
    losses = [math.log(1 + math.exp(-margin)) for margin in (1.0, 2.0, -1.0, 0.0)]
    assert found["log_loss"] == pytest.approx(sum(losses) / 4)
    assert (found["num_pairs"], found["num_prompts"]) == (4, 2)


def test_without_discordant_pairs_no_difference_can_be_seen():
    pairs = [pair("p", "long one", "no"), pair("q", "longer", "no")]
    found = summarise(pairs, [1.0, 2.0], [1.0, 2.0], num_resamples=20, seed=0)
    seen = {"difference": 0.0, "interval": [0.0, 0.0], "p_value": 1.0, "smallest_detectable": None}
    assert found["against_longer"] == seen


def test_pairs_of_one_prompt_count_as_what_they_know():
    pairs = [pair(text, "long one", "no") for text in "pqrstuvw"]
    margins = [1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0]
    once = summarise(pairs, margins, margins, num_resamples=200, seed=0)
    many = summarise(pairs * 20, margins * 20, margins * 20, num_resamples=200, seed=0)
    # Seven of eight prompts go to the ruler, none to the model: p = 2 (1/2)^7.
    assert once["against_longer"]["p_value"] == pytest.approx(2 / 2**7)
    assert many["against_longer"].pop("interval") == once["against_longer"].pop("interval")
    assert many["against_longer"] == pytest.approx(once["against_longer"])


def test_a_shuffled_prompt_is_another_one_and_each_serves_once():
    pairs = [pair(text, "a", "b") for text in "ppqrs"]
    shuffled = shuffled_prompts(pairs, seed=3)
    own = [each.prompt.prompt_id for each in pairs]
    other = [prompt.prompt_id for prompt in shuffled]
    assert all(mine != theirs for mine, theirs in zip(own, other, strict=True))
    assert sorted(set(other)) == ["p", "q", "r", "s"]
    assert other[0] == other[1], "one prompt is always exchanged for the same other"


def test_scores_are_added_to_the_rows(prefloop, reward_run, tmp_path):
    dialogue = [
        {"role": "user", "content": "name a tree"},
        {"role": "assistant", "content": "bee"},
        {"role": "user", "content": "name things"},
    ]
    rows = [
        {"prompt": "name things", "response": "bee cheese", "finish_reason": "stop", "note": "é\u2028"},
        {"prompt": "name things", "response": "bee cheese", "finish_reason": "length"},
        {"prompt": dialogue, "completion": "moon"},
    ]
    path, out = tmp_path / "responses.jsonl", tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = prefloop("reward score", reward_run.run, path, "--out", out)
    assert outcome.code == 0, outcome.said
    scored = [json.loads(line) for line in out.read_bytes().decode().strip().split("\n")]
    assert [{key: value for key, value in row.items() if key != "score"} for row in scored] == rows
    assert scored[0]["score"] != pytest.approx(scored[1]["score"], abs=1e-4), "a response cut off has no stop token"
    model, chat = load_reward_model(reward_run.model)
    turns = tuple(Message(turn["role"], turn["content"]) for turn in dialogue)
    ids = chat.encode_response(turns, "moon").ids
    with torch.no_grad():
        raw = float(model(torch.tensor([ids])).logits[0, 0])
    expected = (raw - model.config.reward_mean) / model.config.reward_std
    assert scored[2]["score"] == pytest.approx(expected, abs=1e-4)
    assert outcome.answer["mean_score"] == pytest.approx(np.mean([row["score"] for row in scored]))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "a"}, "response: needs a text `response` or `completion`"),
        ({"prompt": "a", "response": 3}, "response: needs a text `response` or `completion`"),
        ({"response": "a"}, "prompt: "),
        ({"prompt": 3, "response": "a"}, "prompt: "),
    ],
)
def test_rows_that_cannot_be_scored_are_named(prefloop, data, tmp_path, row, problem):
    path, out = tmp_path / "responses.jsonl", tmp_path / "scores.jsonl"
    path.write_text(json.dumps({"prompt": "a", "response": "b"}) + "\n" + json.dumps(row) + "\n")
    refused = prefloop("reward score", f"{data / 'rewards.py'}:short", path, "--out", out)
    assert refused.problem.startswith(f"{path}:2: {problem}")
    assert not out.exists()


def test_scores_depend_neither_on_the_batch_nor_on_its_order(reward_run):
    model, chat = load_reward_model(reward_run.model)
    generator = random.Random(1)
    words = ("tree", "moon", "cheese", "fog", "sun", "seed")
    responses = [Response(" ".join(generator.choices(words, k=generator.randint(1, 9)))) for _ in range(24)]
    prompts = prompts_of(*["name things"] * 24)
    whole = RewardModel(model, chat, version="").score(prompts, responses)
    split = RewardModel(model, chat, version="", token_budget=40).score(prompts, responses)
    turned = RewardModel(model, chat, version="").score(prompts, responses[::-1])[::-1]
    assert split == pytest.approx(whole, abs=1e-5)
    assert turned == pytest.approx(whole, abs=1e-5)


def test_a_scorers_version_follows_its_content(reward_run, data, tmp_path):
    path = tmp_path / "rewards.py"
    versions = []
    for body in ("return [0.0]", "return [1.0]"):
        path.write_text(f"def f(prompts, responses):\n    {body}\n")
        versions.append(load_scorer(f"{path}:f", device=torch.device("cpu")).version)
    assert versions[0] != versions[1]
    of_run, of_directory = (
        load_scorer(str(path), device=torch.device("cpu")).version for path in (reward_run.run, reward_run.model)
    )
    assert of_run == of_directory


def test_a_function_gets_the_columns_it_asks_for(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(
        "import numpy as np\n\n\n"
        "def wants_words(prompts, responses, words):\n    return [count or 0 for count in words]\n\n\n"
        "def wants_all(prompts, responses, **columns):\n    return [len(columns)] * len(prompts)\n\n\n"
        "def wants_none(prompts, responses):\n    return tuple(np.float32(len(text)) for text in responses)\n\n\n"
        "def away(prompts, responses):\n"
        "    from prefloop.types import EnvironmentStop\n    raise EnvironmentStop('the reward server is away')\n\n\n"
        "THREE = 3\n"
    )
    prompts = prompts_of("a", "b", words=[4, None], other=["x", "y"])
    answers = [Response("one"), Response("three")]
    assert FunctionScorer(f"{path}:wants_words").score(prompts, answers) == [4.0, 0.0]
    assert FunctionScorer(f"{path}:wants_all").score(prompts, answers) == [2.0, 2.0]
    assert FunctionScorer(f"{path}:wants_none").score(prompts, answers) == [3.0, 5.0]
    with pytest.raises(EnvironmentStop, match="server is away"):
        FunctionScorer(f"{path}:away").score(prompts, answers)
    with pytest.raises(InputError, match="is no function; name a function of this file"):
        FunctionScorer(f"{path}:THREE")
    with pytest.raises(InputError, match=r"raised TypeError: .*missing 1 required positional argument: 'words'"):
        FunctionScorer(f"{path}:wants_words").score(prompts_of("a"), [Response("b")])


def test_a_file_that_does_not_run_is_named_with_its_line(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text("import math\n\nmath.sqrt(-1)\n")
    with pytest.raises(InputError) as caught:
        FunctionScorer(f"{path}:f")
    # Later versions of Python word it differently.
    assert str(caught.value).startswith(f"{path}:3: reward: raised ValueError: ")


def test_pairs_beyond_the_positions_are_named_or_left_out(prefloop, reward_run, data, tmp_path):
    """The tiny reward model has 128 positions."""
    rows = [json.loads(line) for line in (data / "pairs.jsonl").read_text().splitlines()[:12]]
    rows[4]["chosen"] = "bee cheese " * 120
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = prefloop("reward eval", reward_run.run, file)
    assert refused.problem == (
        f"data: 1 of 12 pairs are longer than the reward model's positions: {file}:5; "
        "leave them out with --skip-bad, or take another reward model"
    )
    kept = prefloop("reward eval", reward_run.run, file, "--skip-bad")
    assert kept.code == 0 and kept.answer["num_pairs"] == 11
    assert f"left out: 1 of 12 pairs are longer than the reward model's positions: {file}:5" in kept.said
    file.write_text(json.dumps(rows[4]) + "\n")
    assert "1 of 1 pairs are longer" in prefloop("reward eval", reward_run.run, file, "--skip-bad").problem
    response = {"prompt": "name", "response": rows[4]["chosen"]}
    file.write_text(json.dumps(response) + "\n")
    problem = prefloop("reward score", reward_run.run, file, "--out", tmp_path / "scores.jsonl").problem
    assert "and its response have" in problem and "more than the reward model's 128 positions" in problem


def test_a_prompt_too_long_for_these_responses_is_no_shuffled_prompt(reward_run):
    scorer = load_scorer(str(reward_run.run), device=torch.device("cpu"))
    long, short = (Prompt(name, (Message("user", text),)) for name, text in (("l", "bee " * 70), ("s", "bee")))
    pairs = [PreferencePair("1", long, "bee", "moon"), PreferencePair("2", short, "bee " * 60, "moon")]
    margins = shuffled_margins(scorer, pairs, seed=0)
    # The short prompt serves the first pair; the long one does not serve the second.
    assert margins[0] is not None and margins[1] is None
