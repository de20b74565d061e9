"""One whole round: it waits for votes, measures the shift, learns what the votes say, and goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prefloop.recipes.round_config import round_config
from prefloop.types import Comparison, Message, Prompt
from prefloop.world.knowledge import World
from prefloop.world.prompts import make_prompts

AFTER_VOTES = ("audit", "shift", "reward", "audit_reward", "policy")
FILES = ("comparisons.jsonl", "judgments.jsonl", "new-train.jsonl", "new-held-out.jsonl")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judged(rows: list[dict[str, Any]], better: Callable[[str, str], float]) -> list[dict[str, Any]]:
    """The votes of somebody who likes the response that is `better`, and finds equals equal; no texts."""
    votes = []
    for row in rows:
        margin = better(row["prompt"], row["response_a"]) - better(row["prompt"], row["response_b"])
        choice = "a" if margin > 0 else "b" if margin < 0 else "tie"
        votes.append({"comparison_id": row["comparison_id"], "choice": choice, "annotator_id": "pat"})
    return votes


def few_e(_: str, text: str) -> float:
    return -float(text.count("e"))


def against(reward: Path) -> Callable[[str, str], float]:
    """The opposite of what a reward model says."""
    from prefloop.models.load import default_device
    from prefloop.reward.scoring import Response, load_scorer

    scorer = load_scorer(str(reward), device=default_device())
    return lambda prompt, text: -scorer.score([_read_prompt(prompt)], [Response(text)])[0]


@pytest.fixture
def go(
    prefloop: Callable[..., Any], data: Path, sft_run: Any, reward_run: Any, tmp_path: Path, monkeypatch: Any
) -> Callable[..., Any]:
    """`round run` with tiny settings, on the policy that is also the incumbent; others on top of them."""
    monkeypatch.chdir(tmp_path)

    def call(*settings: object, prompts: Path | None = None) -> Any:
        return prefloop(
            *("round run", "--policy", sft_run.run, "--incumbent", sft_run.run, "--reward", reward_run.run),
            *("--pairs", data / "pairs.jsonl", "--prompts", prompts or data / "prompts.jsonl", "--algorithm", "rloo"),
            *("--num-comparisons", 120, "--max-new-tokens", 12, "--num-resamples", 200, "--held-out-fraction", 0.3),
            *("--retrain.optimizer.lr", 3e-3, "--retrain.num-epochs", 4, "--tune.optimizer.lr", 2e-3),
            *("--tune.num-steps", 2, "--tune.prompts-per-step", 8, "--tune.max-new-tokens", 12),
            *("--tune.monitor.enabled", "false", "--out", "round", *settings),
        )

    return call


def test_a_share_of_the_pairs_has_a_response_of_the_incumbent(
    go: Any, data: Path, sft_run: Any, tmp_path: Path
) -> None:
    """The incumbent here says every token as likely as any other."""
    shutil.copytree(sft_run.run, tmp_path / "other")
    for weights in (tmp_path / "other").rglob("model.safetensors"):
        tensors = load_file(weights)
        tensors["model.norm.weight"] = torch.zeros_like(tensors["model.norm.weight"])
        save_file(tensors, weights, metadata={"format": "pt"})
    waiting = go("--incumbent", "other", "--against-incumbent", 0.25)
    assert waiting.code == 3, waiting.said
    rows = read(tmp_path / "round" / "comparisons.jsonl")
    mixed = [row for row in rows if row["model_b"] == "other"]
    assert all(row["model_a"] == str(sft_run.run) for row in rows)
    # A quarter of the 120; pairs that are empty, identical or repeated are left out.
    assert 20 <= len(mixed) <= 30
    known = {word for row in read(data / "demonstrations.jsonl") for word in row["completion"].split()}
    assert all(set(row["response_a"].split()) <= known for row in rows)
    assert not any(set(row["response_b"].split()) <= known for row in mixed)


def test_a_round_waits_for_votes_then_learns_what_they_say(
    go: Any, prefloop: Any, reward_run: Any, tmp_path: Path
) -> None:
    """People now vote against the reward model in use every time, and only these votes are trained on."""
    alone = ("--no-keep-old",)
    waiting = go(*alone)
    assert waiting.code == 3, waiting.said
    assert "waits for judgments of" in waiting.said and "--judgments FILE" in waiting.said
    comparisons = read(tmp_path / "round" / "comparisons.jsonl")
    assert all(row["kl_a"] == row["kl_b"] == 0 for row in comparisons), "the policy is the incumbent"
    told = prefloop("round status", "round").answer
    assert "waits for judgments" in told["state"] and told["next"][0].endswith("--judgments JUDGMENTS.jsonl")
    assert [stage["done"] for stage in told["stages"]] == [True] + 6 * [False]

    votes = write(tmp_path / "votes.jsonl", judged(comparisons, against(reward_run.run)))
    done = go(*alone, "--judgments", votes, "--accept-findings", "length,repetition,accuracy")
    assert done.code == 0, done.said
    answer = done.answer
    ties = sum(vote["choice"] == "tie" for vote in read(votes))
    assert answer["label"]["without_pair"].get("ties", 0) == ties
    assert answer["label"]["num_pairs"] == len(comparisons) - ties
    assert answer["shift"]["old_pairs_were"] == "held out" and answer["shift"]["old"]["accuracy"] > 0.9
    assert answer["shift"]["new"]["accuracy"] == 0.0
    assert (answer["shift"]["old"]["accuracy"] == 1.0) == ("the held-out pairs hold no error" in reward_run.said)
    low, high = answer["shift"]["difference"]["accuracy_interval"]
    assert low <= answer["shift"]["difference"]["accuracy"] <= high < -0.5
    assert answer["reward"]["in_use"]["accuracy"] == 0.0
    assert answer["reward"]["gain"]["difference"] == answer["reward"]["retrained"]["accuracy"] > 0.6
    report = json.loads(Path(answer["audit_reward"]["audit"]).read_text())
    remedy = next(each["remedy"] for each in report["findings"] if each["name"] == "prompt_ignored")
    assert "--out ANOTHER --judgments round/judgments.jsonl --retrain.augment" in remedy
    train, held_out = (read(tmp_path / "round" / name) for name in FILES[2:])
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in held_out}
    inputs = json.loads((tmp_path / "round" / "policy" / "inputs.json").read_text())["inputs"]
    assert inputs["model"] == inputs["reference"] and "round/reward" in inputs["reward"]["path"]
    assert prefloop("round status", "round").answer["state"] == "done"

    # Once more: everything after the votes is gone, as after a kill; the votes need not be given again.
    before = {name: (tmp_path / "round" / name).read_bytes() for name in FILES}
    for name in ("reward", "policy", "result.json", *(f"stages/{name}.json" for name in AFTER_VOTES)):
        place = tmp_path / "round" / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    again = go(*alone, "--accept-findings", "length,repetition,accuracy")
    assert again.code == 0, again.said
    assert {name: (tmp_path / "round" / name).read_bytes() for name in FILES} == before
    assert again.answer["shift"] == answer["shift"] and again.answer["reward"] == answer["reward"]
    assert again.answer["policy"] == answer["policy"] and again.answer["audit_reward"] == answer["audit_reward"]

    others = write(tmp_path / "others.jsonl", judged(comparisons, few_e))
    (tmp_path / "round" / "result.json").unlink()
    assert "this round has gone on with other votes" in go(*alone, "--judgments", others).problem


def test_an_audit_of_the_new_pairs_binds(go: Any, tmp_path: Path) -> None:
    assert go().code == 3
    rows = read(tmp_path / "round" / "comparisons.jsonl")
    votes = write(tmp_path / "votes.jsonl", judged(rows, lambda _, text: float(len(text))))
    refused = go("--judgments", votes)
    assert refused.code == 1 and "length" in refused.said and "--accept-findings" in refused.said
    assert (tmp_path / "round" / "stages" / "shift.json").exists(), "the shift is told all the same"
    assert not (tmp_path / "round" / "policy").exists()


@pytest.fixture
def sampled(go: Any, tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    assert go().code == 3
    return tmp_path, read(tmp_path / "round" / "comparisons.jsonl")


def test_what_the_votes_may_get_wrong(go: Any, sampled: tuple[Path, list[dict[str, Any]]]) -> None:
    root, rows = sampled
    votes = judged(rows, few_e)
    foreign = {"prompt": rows[0]["prompt"], "response_a": "yes", "response_b": "no", "choice": "a"}
    problem = go("--judgments", write(root / "foreign.jsonl", [votes[0], foreign])).problem
    assert "foreign.jsonl:2: response_a: is no vote on a comparison of this round" in problem
    contradicting = {**votes[0], "response_a": rows[1]["response_a"], "response_b": rows[1]["response_b"]}
    assert "wrong.jsonl:1" in go("--judgments", write(root / "wrong.jsonl", [contradicting])).problem
    problem = go("--judgments", write(root / "bad.jsonl", [{**votes[0], "choice": "A"}])).problem
    assert "bad.jsonl:1: choice: unknown choice 'A'" in problem
    ties = [{**vote, "choice": "tie"} for vote in votes]
    problem = go("--judgments", write(root / "ties.jsonl", ties)).problem
    assert f"no comparison has a winner ({len(rows)} ties)" in problem
    assert "no such file" in go("--judgments", root / "nothing.jsonl").problem


def test_votes_are_matched_by_id_or_by_texts_in_either_order(tmp_path: Path) -> None:
    from prefloop.data.stream import Tally
    from prefloop.recipes.judging import imported_votes

    comparison = Comparison("c1", Prompt("p", (Message("user", "why?"),)), "because", "who knows")
    texts = {"prompt": "why?", "response_a": "because", "response_b": "who knows"}
    swapped = {"prompt": "why?", "response_a": "who knows", "response_b": "because"}
    rows = [
        {"comparison_id": "ours", "choice": "a", "annotator_id": "1"},
        {**texts, "choice": "a", "annotator_id": "2"},
        {**swapped, "choice": "b", "annotator_id": "3", "shown_first": "b"},
        {**swapped, "response_a": "no idea", "choice": "b", "annotator_id": "4"},
    ]
    from prefloop.recipes.comparisons import comparison_key, read_comparisons

    key = comparison_key(_read_prompt("why?"), "because", "who knows")
    stored = write(tmp_path / "c.jsonl", [{**texts, "comparison_id": key, "kl_a": 1.0, "kl_b": 2.0}])
    (comparison,), kl = read_comparisons(stored)
    assert kl == {key: 1.5}
    rows[0]["comparison_id"] = key
    tally = Tally(skip_bad=True)
    votes = imported_votes(str(write(tmp_path / "v.jsonl", rows)), [comparison], tally)
    assert [(vote.annotator_id, vote.choice, vote.comparison_id) for vote in votes] == [
        (name, "a", key) for name in ("1", "2", "3")
    ]
    assert votes[2].shown_first == "a", "the swapped row showed our A first"
    assert [(bad.line, bad.field) for bad in tally.bad] == [(4, "response_a")]


def _read_prompt(text: str) -> Prompt:
    from prefloop.data.formats import prompt_of

    return prompt_of({"prompt": text})


def test_imported_votes_make_the_files_that_simulated_ones_make(tmp_path: Path) -> None:
    from prefloop.recipes.comparisons import comparison_key, comparison_row, read_comparisons
    from prefloop.recipes.judging import judge

    prompts = make_prompts(World.build(3), split="train", count=60, seed=0)
    rows = []
    for prompt in prompts:
        own = _read_prompt(prompt.messages[0].content)
        a, b = "I do not know.", f"It is blue, certainly. See page {len(rows)}."
        rows.append({**comparison_row(Comparison(comparison_key(own, a, b), own, a, b)), "kl_a": 0.5, "kl_b": 0.5})
    stored = write(tmp_path / "comparisons.jsonl", rows)
    settings = {"policy": "p", "incumbent": "p", "reward": "r", "pairs": ("x",), "prompts": ("y",)}
    simulated = round_config("rloo").model_validate({**settings, "simulate": "honest", "world_seed": 3, "votes": 3})
    found = []
    for name, config in (
        ("simulated", simulated),
        ("imported", simulated.model_copy(update={"simulate": None, "judgments": str(tmp_path / "shuffled.jsonl")})),
    ):
        (tmp_path / name).mkdir()
        found.append(judge(config, tmp_path / name, stored))
        write(
            tmp_path / "shuffled.jsonl", sorted(read(tmp_path / name / "judgments.jsonl"), key=lambda r: r["seconds"])
        )
    assert len(read_comparisons(stored)[0]) == found[0]["num_judged"] == 60 and found[0]["num_votes"] == 180
    for numbers in found:
        del numbers["by"], numbers["votes_sha256"]
    assert found[0] == found[1] and found[0]["num_pairs"] > 30
    for name in FILES[1:]:
        mine, its = (sorted(map(json.dumps, read(tmp_path / side / name))) for side in ("simulated", "imported"))
        assert mine == its


def test_simulated_people_judge_their_own_world_only(go: Any, data: Path) -> None:
    problem = go("--simulate", "honest").problem
    assert f"{data / 'prompts.jsonl'}:1: prompt: is no prompt of the world of seed 0" in problem
    assert "did you mean honest?" in go("--simulate", "honst").problem


def test_policies_that_read_different_tokens(go: Any, sft_run: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    other = shutil.copytree(sft_run.model, tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["moonlamp"])
    tokenizer.save_pretrained(other)
    assert f"{other}: policy: policy and incumbent have different tokenizers" in go("--policy", other).problem


def test_settings_that_cannot_be_meant(go: Any, prefloop: Any, data: Path) -> None:
    assert "no such file" in go(prompts=data / "nothing.jsonl").problem
    assert "no signal is called 'lenght'" in go("--balance", "lenght").problem
    assert "keep_old leaves out" in go("--balance", "length", "--no-keep-old").problem
    assert "is not inside kl_budget" in go("--tune.kl-target", 3, "--tune.kl-budget", 2).problem
    assert "--tune.num-step" in go("--tune.num-step", 3).problem
    assert "is no directory of a round" in prefloop("round status", data).problem


def test_the_kl_of_a_response_is_that_of_plain_forward_passes(sft_run: Any) -> None:
    import torch

    from prefloop.models.load import load_policy
    from prefloop.recipes.response_kl import response_kl
    from prefloop.reward.scoring import Response

    (policy, chat), (reference, _) = load_policy(sft_run.model), load_policy(sft_run.model)
    with torch.no_grad():
        torch.manual_seed(0)
        for weight in policy.parameters():
            weight += 0.05 * torch.randn_like(weight)
    prompts = [_read_prompt(text) for text in ("name things like the moon or the tree", "sun?", "sun?")]
    texts = ["tree bee", "fog fog fog road", ""]
    wanted = []
    for prompt, text in zip(prompts, texts, strict=True):
        row = chat.encode_response(prompt.messages, text, finished=True)
        with torch.no_grad():
            p, q = (model(torch.tensor([row.ids])).logits[0].double().log_softmax(-1) for model in (policy, reference))
        kl = (p.exp() * (p - q)).sum(-1)
        wanted.append(sum(float(kl[place - 1]) for place, inside in enumerate(row.mask) if inside))
    found = response_kl(policy, reference, chat, prompts, [Response(text) for text in texts], token_budget=64)
    assert found == pytest.approx(wanted, rel=1e-4) and min(wanted[:2]) > 0.1
