"""The files under examples/ do what the documentation says of them, on tiny data, for real."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefloop.cli import main
from prefloop.functional.advantages import leave_one_out
from prefloop.functional.batch import RolloutBatch
from prefloop.reward.function import FunctionScorer
from prefloop.reward.scoring import Response
from prefloop.rundir import resolve_model
from prefloop.types import Message, Prompt

EXAMPLES = Path(__file__).parent.parent / "examples"
TINY = ["--scratch.hidden-size", "32", "--scratch.num-layers", "1", "--scratch.num-heads", "2"]
TOWNS = ("Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Gorse", "Hazel", "Ivy", "Juniper", "Kauri", "Larch")


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _num_lines(name: str) -> int:
    return len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines())


def _write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def demonstrations(tmp_path: Path) -> str:
    rows: list[dict[str, object]] = [
        {"prompt": f"Where is the {town} library?", "completion": f"In {town} Street {number}."}
        for town in TOWNS
        for number in (1, 2)
    ]
    return _write(tmp_path / "demonstrations.jsonl", rows)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    rows: list[dict[str, object]] = [
        {"prompt": f"When does {town} Hall {number} open?", "chosen": f"At {number} sharp.", "rejected": "No idea"}
        for town in TOWNS
        for number in (8, 9)
    ]
    return _write(tmp_path / "pairs.jsonl", rows)


def test_the_examples_are_as_short_as_the_documentation_says() -> None:
    assert _num_lines("group_mean") < 40
    assert _num_lines("loop") <= 30


def test_the_reward_function_scores_as_computed_by_hand() -> None:
    reward = _module("short_reward").reward
    # A sentence end is worth 1, each word away from the wanted 10 costs 0.1.
    assert reward(["q"] * 4, ["Yes!", "", "a b c d e f g h i j", "a b c d e f g h i j k l."]) == pytest.approx(
        [1 - 0.9, -1.0, 0.0, 1 - 0.2]
    )
    # The column `words` sets the wanted number; what is no whole number leaves it at 10.
    assert reward(["q"] * 4, ["a b c."] * 4, words=[3, 1, None, "3"]) == pytest.approx([1.0, 0.8, 0.3, 0.3])


def test_the_reward_function_gets_the_columns_of_the_prompts() -> None:
    scorer = FunctionScorer(f"{EXAMPLES / 'short_reward.py'}:reward")
    asked = (Message("user", "Name three towns."),)
    prompts = [Prompt("1", asked, columns={"words": 3}), Prompt("2", asked)]
    assert scorer.score(prompts, [Response("Alder, Birch, Cedar."), Response("Alder.")]) == pytest.approx([1.0, 0.1])


def _batch(rewards: torch.Tensor, mask: torch.Tensor, *, group_size: int) -> RolloutBatch:
    zero = torch.zeros_like(rewards)
    return RolloutBatch(
        input_ids=torch.zeros(mask.shape, dtype=torch.int64),
        lengths=torch.full((len(mask),), mask.shape[1]),
        response_mask=mask,
        sampler_logprobs=zero,
        old_logprobs=zero,
        ref_logprobs=zero,
        scores=rewards.sum(1),
        rewards=rewards,
        group=torch.arange(len(mask)) // group_size,
    )


def test_the_custom_algorithm_subtracts_the_mean_of_the_group() -> None:
    algorithm = _module("group_mean").GroupMean(group_size=2)
    mask = torch.tensor([[False, True, True], [False, True, False], [False, True, True], [False, True, True]])
    rewards = torch.tensor([[9.0, -1.0, 2.0], [0.0, 3.0, 9.0], [0.0, 4.0, 1.0], [0.0, 0.0, 7.0]])
    found = algorithm.advantages(_batch(rewards, mask, group_size=2)).advantages
    # Returns 1 and 3, 5 and 7, the masked 9s not counted; each minus the mean of its two.
    assert found.tolist() == [[0, -1, -1], [0, 1, 0], [0, -1, -1], [0, 1, 1]]


def test_the_custom_algorithm_is_rloo_but_for_its_factor() -> None:
    size = 4
    returns = torch.randn(12, 1, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(12, 1, dtype=torch.bool)
    found = _module("group_mean").GroupMean(group_size=size).advantages(_batch(returns, mask, group_size=size))
    torch.testing.assert_close(
        size / (size - 1) * found.advantages.flatten(), leave_one_out(returns.flatten(), group_size=size)
    )


def test_a_policy_is_tuned_by_the_custom_algorithm_and_reward(demonstrations: str, pairs: str, tmp_path: Path) -> None:
    sft, tuned = tmp_path / "sft", tmp_path / "tuned"
    assert main(["train", "sft", "--data", demonstrations, "--out", str(sft), *TINY]) == 0
    words = ["train", "policy", "--model", str(sft), "--prompts", pairs, "--out", str(tuned), "--num-steps", "2"]
    words += ["--algorithm", f"{EXAMPLES / 'group_mean.py'}:GroupMean", "--settings.group-size", "3"]
    words += ["--reward", f"{EXAMPLES / 'short_reward.py'}:reward", "--prompts-per-step", "4", "--max-new-tokens", "8"]
    assert main([*words, "--optimizer.lr", "1e-3"]) == 0

    before = load_file(resolve_model(str(sft), "model") / "model.safetensors")
    after = load_file(resolve_model(str(tuned), "model") / "model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)

    assert yaml.safe_load((tuned / "config.yaml").read_text(encoding="utf-8"))["settings"]["group_size"] == 3
    rollouts = [json.loads(line) for line in (tuned / "rollouts" / "rollouts.jsonl").read_text().splitlines()]
    # 4 prompts with 3 responses each, in 2 steps; the stored score is the function's.
    assert [row["group"] for row in rollouts] == [row // 3 for row in range(12)] * 2
    reward = _module("short_reward").reward
    by_hand = reward([row["prompt"] for row in rollouts], [row["response"] for row in rollouts])
    assert [row["score"] for row in rollouts] == pytest.approx([max(-5.0, min(5.0, score)) for score in by_hand])


def test_the_loop_in_python(
    demonstrations: str, pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = _module("loop").loop
    directory = loop(demonstrations, pairs, tmp_path / "loop", num_steps=1)
    printed = capsys.readouterr()
    assert "already finished" not in printed.err
    accuracy, kl = (float(line.rpartition(":")[2]) for line in printed.out.splitlines())
    assert 0 <= accuracy <= 1
    # Measured on the first round, before the first update: the policy is its own reference there.
    assert kl == pytest.approx(0, abs=1e-4)

    policy = AutoModelForCausalLM.from_pretrained(directory)
    start = AutoModelForCausalLM.from_pretrained(resolve_model(str(tmp_path / "loop" / "sft"), "model"))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = torch.tensor([tokenizer("When does Elm Hall 8 open?")["input_ids"]])
    with torch.no_grad():
        assert not torch.equal(policy(ids).logits, start(ids).logits)

    assert loop(demonstrations, pairs, tmp_path / "loop", num_steps=1) == directory
    said = capsys.readouterr().err
    for stage in ("sft", "reward", "policy"):
        assert f"already finished: {tmp_path}/loop/{stage}/result.json" in said
