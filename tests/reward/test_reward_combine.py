"""Ensembles, weighted sums, and what a user names."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prefloop.reward.combine import Ensemble, WeightedSum, combine_members
from prefloop.reward.config import ScoringConfig
from prefloop.reward.model import RewardModel
from prefloop.reward.scorer import finite_scores
from prefloop.reward.scoring import (
    Response,
    Spec,
    first_reward_model,
    load_scorer,
    parse_spec,
    reward_inputs,
)
from prefloop.types import InputError, Message, Prompt

CPU = torch.device("cpu")


def prompts_of(*texts):
    return [Prompt(text, (Message("user", text),)) for text in texts]


PROMPTS, RESPONSES = prompts_of("p", "q"), [Response("one"), Response("two", False)]


class Fixed:
    """A scorer whose answers are known."""

    def __init__(self, scores, spread=None, version="fixed"):
        self.scores, self.spread, self.version = scores, spread, version

    def score(self, prompts, responses):
        return self.scores

    def score_with_spread(self, prompts, responses):
        return self.scores, self.spread


@pytest.fixture
def functions(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(
        "def length(prompts, responses):\n    return [len(text) for text in responses]\n\n\n"
        "def vowels(prompts, responses):\n    return [sum(map(text.count, 'aeiou')) for text in responses]\n"
    )
    return path


def shifted(source, target, amount):
    """A copy of a reward model whose normalised scores are higher by `amount`."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    config["reward_mean"] -= amount * config["reward_std"]
    (target / "config.json").write_text(json.dumps(config))
    return target


def turned(source, target):
    """A copy of a reward model that says the opposite."""
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    weights["score.weight"] = -weights["score.weight"]
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.fixture
def ensemble_directory(reward_run, tmp_path):
    for index, amount in enumerate((0.0, 1.0, 5.0)):
        shifted(reward_run.model, tmp_path / "ensemble" / f"member-{index:02d}", amount)
    return tmp_path / "ensemble"


def test_the_rules_by_hand():
    # Members 1, 4, 7 and 2, 2, 2: means 4 and 2, variances (9 + 0 + 9) / 3 = 6 and 0.
    scores = np.array([[1.0, 2.0], [4.0, 2.0], [7.0, 2.0]])
    assert combine_members(scores, rule="mean", variance_weight=0.5).tolist() == [4, 2]
    assert combine_members(scores, rule="worst", variance_weight=0.5).tolist() == [1, 2]
    assert combine_members(scores, rule="mean_minus_variance", variance_weight=0.5).tolist() == [1, 2]
    assert combine_members(scores, rule="mean_minus_variance", variance_weight=2.0).tolist() == [-8, 2]


def test_the_spread_is_the_deviation_over_the_members():
    members = [Fixed([1.0, 2.0], version="a"), Fixed([4.0, 2.0], version="b"), Fixed([7.0, 2.0], version="c")]
    scores, spread = Ensemble(members, rule="worst").score_with_spread(PROMPTS, RESPONSES)
    assert scores == [1, 2]
    assert spread == pytest.approx([math.sqrt(6), 0])


def test_a_weighted_sum_by_hand():
    parts = [(Fixed([1.0, 2.0]), 2.0), (Fixed([10.0, -10.0]), -0.5)]
    assert WeightedSum(parts).score_with_spread(PROMPTS, RESPONSES) == ([-3.0, 9.0], None)
    # Spreads 3 and 4 with weights 1 and -1 add up to 5, as those of independent errors do.
    parts = [(Fixed([1.0, 1.0], [3.0, 0.0]), 1.0), (Fixed([1.0, 1.0], [4.0, 2.0]), -1.0), (Fixed([5.0, 5.0]), 1.0)]
    scores, spread = WeightedSum(parts).score_with_spread(PROMPTS, RESPONSES)
    assert (scores, spread) == ([5.0, 5.0], pytest.approx([5.0, 2.0]))
    with pytest.raises(InputError, match="returned inf for the prompt 'p'; give smaller weights"):
        WeightedSum([(Fixed([1e308, 1.0]), 1e10)]).score(PROMPTS, RESPONSES)


def test_an_ensemble_of_equals_is_refused():
    with pytest.raises(InputError, match="needs two members"):
        Ensemble([Fixed([1.0], version="a")])
    with pytest.raises(InputError, match="two members of the ensemble are the same model"):
        Ensemble([Fixed([1.0], version="a"), Fixed([2.0], version="b"), Fixed([1.0], version="a")])


def test_a_version_is_that_of_all_parts():
    a, b, c = (Fixed([], version=name) for name in "abc")
    assert Ensemble([a, b]).version == Ensemble([b, a]).version
    different = [
        Ensemble([a, b]),
        Ensemble([a, c]),
        Ensemble([a, b], rule="worst"),
        Ensemble([a, b], rule="mean_minus_variance", variance_weight=1.0),
        Ensemble([a, b], rule="mean_minus_variance", variance_weight=2.0),
        WeightedSum([(a, 1.0), (b, 1.0)]),
        WeightedSum([(a, 1.0), (b, 2.0)]),
    ]
    assert len({each.version for each in different}) == len(different)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([1.0], "returned 1 scores for 2 responses"),
        ({"a": 1, "b": 2}, "returned dict for 2 responses"),
        (None, "returned NoneType for 2 responses"),
        ([1.0, None], "returned None for the prompt 'q'"),
        ([math.nan, 1.0], "returned nan for the prompt 'p'"),
        ([1.0, -math.inf], "returned -inf for the prompt 'q'"),
        ([1.0, "2"], "returned '2' for the prompt 'q'"),
        ([1.0, [2.0]], r"returned \[2.0\] for the prompt 'q'"),
    ],
)
def test_anything_but_one_finite_number_each_is_refused(value, problem):
    with pytest.raises(InputError, match=f"^here: reward: {problem}; do better$"):
        finite_scores(value, PROMPTS, path="here", remedy="do better")
    assert finite_scores((1, True), PROMPTS, path=None, remedy="") == [1.0, 1.0]


def test_specs(tmp_path):
    assert parse_spec("runs/reward") == Spec("runs/reward")
    assert parse_spec("runs/reward@0.5") == Spec("runs/reward", 0.5)
    assert parse_spec("file.py:f@-2") == Spec("file.py:f", -2.0)
    assert parse_spec("http://127.0.0.1:8900/get_reward@1e-1") == Spec("http://127.0.0.1:8900/get_reward", 0.1)
    assert parse_spec("http://me@host/get_reward") == Spec("http://me@host/get_reward")
    whole = tmp_path / "model@2"
    whole.mkdir()
    assert parse_spec(str(whole)) == Spec(str(whole))
    for weight in ("0", "nan", "inf"):
        with pytest.raises(InputError, match=f"the weight '{weight}' is no number other than 0"):
            parse_spec(f"runs/reward@{weight}")
    with pytest.raises(InputError, match="name a reward model, function or server"):
        load_scorer([], device=CPU)


def test_functions_are_added_with_their_weights(functions, capsys):
    specs = [f"{functions}:length", f"{functions}:vowels@-0.5"]
    scorer = load_scorer(specs, device=CPU)
    # "one" has 3 letters and 2 vowels, "two" 3 and 1.
    assert scorer.score_with_spread(PROMPTS, RESPONSES) == ([2.0, 2.5], None)
    assert f"the weighted sum 1 x {functions}:length + -0.5 x {functions}:vowels" in capsys.readouterr().err
    assert load_scorer(f"{functions}:length@2", device=CPU).score(PROMPTS, RESPONSES) == [6, 6]
    first, second = (load_scorer(f"{functions}:{name}", device=CPU).version for name in ("length", "vowels"))
    assert first != second, "two functions of one file are two rewards"
    assert reward_inputs(specs) == {"reward:0": functions, "reward:1": functions}
    assert first_reward_model(specs) is None


def test_a_directory_of_members_is_an_ensemble(reward_run, ensemble_directory):
    alone = load_scorer(str(reward_run.run), device=CPU).score(PROMPTS, RESPONSES)
    members = sorted(ensemble_directory.iterdir())
    # Higher by 0, 1 and 5: mean 2, variance (4 + 1 + 9) / 3.
    wanted = {"mean": 2.0, "worst": 0.0, "mean_minus_variance": 2 - 0.5 * 14 / 3}
    for rule, lead in wanted.items():
        settings = ScoringConfig(ensemble=rule)
        for spec in (str(ensemble_directory), [str(member) for member in members]):
            scorer = load_scorer(spec, device=CPU, settings=settings)
            scores, spread = scorer.score_with_spread(PROMPTS, RESPONSES)
            assert scores == pytest.approx([score + lead for score in alone], abs=1e-4)
            assert spread == pytest.approx([math.sqrt(14 / 3)] * 2, abs=1e-4)
    assert reward_inputs(str(ensemble_directory)) == {"reward": ensemble_directory}
    assert first_reward_model(str(ensemble_directory)) == members[0]


def test_weighted_reward_models_are_a_sum(reward_run, ensemble_directory, tmp_path):
    other = turned(reward_run.model, tmp_path / "turned")
    scorer = load_scorer([f"{reward_run.run}@2", f"{other}@-1", str(ensemble_directory)], device=CPU)
    a, b = (load_scorer(str(each), device=CPU).score(PROMPTS, RESPONSES) for each in (reward_run.run, other))
    scores, spread = scorer.score_with_spread(PROMPTS, RESPONSES)
    assert scores == pytest.approx([2 * x - y + (x + 2) for x, y in zip(a, b, strict=True)], abs=1e-4)
    assert spread == pytest.approx([math.sqrt(14 / 3)] * 2, abs=1e-4)
    assert first_reward_model([f"{other}@-1", str(reward_run.run)]) == reward_run.model


def test_members_that_cannot_be_are_refused(reward_run, tmp_path):
    with pytest.raises(InputError, match="two members of the ensemble are the same model"):
        load_scorer([str(reward_run.run), str(reward_run.model)], device=CPU)
    shutil.copytree(reward_run.model, tmp_path / "one" / "member-0")
    with pytest.raises(InputError, match="needs two members or more"):
        load_scorer(str(tmp_path / "one"), device=CPU)


def test_settings_that_nothing_reads_are_refused(reward_run, functions):
    with pytest.raises(InputError, match=r"^ensemble: has no effect without an ensemble; leave it out$"):
        load_scorer(str(reward_run.run), device=CPU, settings=ScoringConfig(ensemble="worst"))
    settings = ScoringConfig(timeout_seconds=3.0)
    with pytest.raises(InputError, match=r"^timeout_seconds: has no effect without a reward server"):
        load_scorer([str(reward_run.run), f"{functions}:length"], device=CPU, settings=settings)


def test_a_reward_model_with_another_tokenizer_scores_text(prefloop, data, reward_run, tmp_path):
    """Text goes over, so the scores are those of the model on its own tokens, whatever the policy's tokenizer."""
    other = prefloop(
        *("train sft", "--scratch.hidden-size", 32, "--scratch.num-layers", 1, "--scratch.num-heads", 2),
        *("--scratch.vocab-size", 270, "--data", data / "demonstrations.jsonl", "--out", tmp_path / "sft"),
        *("--batch-size", 300),
    )
    words = ("--model", other.run, "--data", data / "pairs.jsonl", "--out", tmp_path / "reward", "--batch-size", 320)
    foreign = load_scorer(str(prefloop("train reward", *words).run), device=CPU)
    own = load_scorer(str(reward_run.run), device=CPU)
    assert isinstance(foreign, RewardModel) and isinstance(own, RewardModel)
    prompt, response = prompts_of("name things"), Response("bee cheese")
    assert not foreign.chat.same_tokens(own.chat)
    ids = foreign.chat.encode_response(prompt[0].messages, response.text).ids
    assert ids != own.chat.encode_response(prompt[0].messages, response.text).ids
    with torch.no_grad():
        raw = float(foreign.model(torch.tensor([ids])).logits[0, 0])
    mean, std = foreign.model.config.reward_mean, foreign.model.config.reward_std
    assert foreign.score(prompt, [response]) == pytest.approx([(raw - mean) / std], abs=1e-5)
    both = load_scorer([str(tmp_path / "reward"), str(reward_run.run)], device=CPU)
    expected = (foreign.score(prompt, [response])[0] + own.score(prompt, [response])[0]) / 2
    assert both.score(prompt, [response]) == pytest.approx([expected])


def test_commands_take_ensembles_and_sums(prefloop, data, reward_run, ensemble_directory, functions, tmp_path):
    rows = [{"prompt": "p", "response": "one"}, {"prompt": "q", "response": "three seeds"}]
    path, out = tmp_path / "responses.jsonl", tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = prefloop("reward score", ensemble_directory, path, "--out", out)
    assert outcome.code == 0, outcome.said
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["score_spread"] for row in scored] == pytest.approx([math.sqrt(14 / 3)] * 2, abs=1e-4)
    assert outcome.answer["mean_score_spread"] == pytest.approx(math.sqrt(14 / 3), abs=1e-4)
    words = (f"{functions}:length", path, "--also", f"{functions}:vowels@-1", "--out", out)
    assert prefloop("reward score", *words).code == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {**rows[0], "score": 1.0},
        {**rows[1], "score": 7.0},
    ]
    members = [str(member) for member in sorted(Path(ensemble_directory).iterdir())]
    words = (members[0], data / "pairs.jsonl", "--also", *members[1:], "--scoring.ensemble", "worst")
    evaluated = prefloop("reward eval", *words)
    assert evaluated.answer["accuracy"] > 0.95
    assert f"--reward {' '.join(members)} " in evaluated.answer["next"]
