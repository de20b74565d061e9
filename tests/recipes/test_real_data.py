"""The tutorial's loop on a slice of the real files, through the command line; what comes out loads in transformers.

The numbers of docs/tutorial.md are not reproduced here: models of this size and so little data learn nothing.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from prefloop.data.read import read_pairs
from prefloop.models.batching import collate
from prefloop.models.chat import load_chat
from prefloop.models.forward import response_logits
from prefloop.models.load import load_policy

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FILES = {
    "harmless": ("preferences/hh-harmless.jsonl.gz", 120),
    "ranked": ("preferences/oasst1.jsonl.gz", 60),
    "arithmetic": ("sft/gsm8k.jsonl.gz", 80),
    "seed": ("sft/self-instruct-seed.jsonl.gz", 40),
}
SHAPE = ("--scratch.hidden-size", 32, "--scratch.num-layers", 1, "--scratch.num-heads", 2, "--scratch.vocab-size", 400)


def slice_of(name: str, directory: Path) -> Path:
    """The first rows of a real file, gzipped as the file itself."""
    source, count = FILES[name]
    target = directory / f"{name}.jsonl.gz"
    with gzip.open(REAL / source, "rt", encoding="utf-8") as lines, gzip.open(target, "wt", encoding="utf-8") as file:
        file.writelines(itertools.islice(lines, count))
    return target


@pytest.fixture(scope="module")
def loop(prefloop: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """SFT, two folds of reward models, and two steps of PPO against one of them, each a finished run."""
    if not REAL.is_dir():
        pytest.skip("../shared/data is not here: no real data to run on")
    root = tmp_path_factory.mktemp("real")
    files = {name: slice_of(name, root) for name in FILES}
    demonstrations = (files["ranked"], files["arithmetic"], files["seed"])
    sft = prefloop(
        *("train sft", "--data", *demonstrations, "--skip-bad", *SHAPE, "--optimizer.lr", 3e-3),
        *("--max-length", 700, "--token-budget", 8192, "--out", root / "sft"),
    )
    assert sft.code == 0, sft.said
    crossval = prefloop(
        *("reward crossval", "--model", root / "sft", "--data", files["harmless"], "--skip-bad", "--num-folds", 2),
        *("--optimizer.lr", 1e-3, "--max-length", 700, "--token-budget", 8192, "--out", root / "crossval"),
    )
    assert crossval.code == 0, crossval.said
    # The prompts of fold 1, which the model of fold 1 did not see: fold 0 is what it was trained on.
    ppo = prefloop(
        *("train policy", "--model", root / "sft", "--reward", root / "crossval" / "fold-1"),
        *("--prompts", root / "crossval" / "fold-0.jsonl", "--skip-bad", "--max-prompt-length", 500),
        *("--num-steps", 2, "--prompts-per-step", 8, "--max-new-tokens", 16, "--optimizer.lr", 1e-4),
        *("--out", root / "ppo"),
    )
    assert ppo.code == 0, ppo.said
    yield SimpleNamespace(root=root, files=files, sft=sft, crossval=crossval, ppo=ppo)


def test_what_the_real_files_lack_is_said_by_line(loop: SimpleNamespace) -> None:
    # Known of the files: line 46 of the one has an empty answer, line 35 of the other twice the same.
    harmless, ranked = loop.files["harmless"], loop.files["ranked"]
    assert f"left out 1 of 120 rows that cannot be used: {harmless}:46 (chosen: is empty)\n" in loop.crossval.said
    identical = f"{ranked}:35 (rejected: chosen and rejected are identical)"
    assert f"left out 1 of 180 rows that cannot be used: {identical}\n" in loop.sft.said
    too_long = re.search(
        rf"left out (\d+) of 119 pairs longer than 700 tokens: {harmless}:\d+ \(\d+ tokens\), ", loop.crossval.said
    )
    assert too_long and loop.crossval.answer["num_pairs"] == 119 - int(too_long[1])


def test_over_long_rows_are_named_by_line_and_stop_the_command(
    prefloop: Callable[..., Any], loop: SimpleNamespace
) -> None:
    pairs = loop.root / "pairs.jsonl"
    pairs.write_text(
        "".join(
            json.dumps({"prompt": "How long is this?", "chosen": chosen, "rejected": "Short."}) + "\n"
            for chosen in ("Not long.", "very " * 800 + "long", "Fine.")
        )
    )
    words = ("train reward", "--model", loop.root / "sft", "--data", pairs, "--max-length", 700)
    problem = prefloop(*words, "--out", loop.root / "none").problem
    assert problem.startswith(f"max_length: 1 of 3 pairs are longer than 700 tokens: {pairs}:2 (")
    assert problem.endswith("tokens); raise it, or leave them out with --skip-bad")


def test_every_pair_is_scored_once(loop: SimpleNamespace) -> None:
    rows = [json.loads(line) for line in (loop.root / "crossval" / "margins.jsonl").read_text().splitlines()]
    places = {pair.place for pair in read_pairs([str(loop.files["harmless"])], skip_bad=True).records}
    assert len({row["place"] for row in rows} & places) == len(rows) == loop.crossval.answer["num_pairs"]
    low, high = loop.crossval.answer["accuracy_interval"]
    assert 0 <= low < loop.crossval.answer["accuracy"] < high <= 1
    assert loop.crossval.answer["num_prompts_trained_on"] == 0
    # So few pairs cannot show a small difference, and the answer says so.
    assert loop.crossval.answer["against_longer"]["smallest_detectable"] > 0.1


def test_a_trunk_that_knows_the_chosen_answers_is_reported(prefloop: Callable[..., Any], loop: SimpleNamespace) -> None:
    outcome = prefloop(
        *("reward crossval", "--model", loop.root / "sft", "--data", loop.files["ranked"], "--skip-bad"),
        *("--num-folds", 2, "--max-length", 700, "--batch-size", 64, "--out", loop.root / "known"),
    )
    assert outcome.answer["num_prompts_trained_on"] == outcome.answer["num_prompts"]
    assert f"prompts are also in {loop.files['ranked']}, which {loop.root / 'sft'} was trained on" in outcome.said


def test_the_policy_moved_and_its_kl_is_reported(loop: SimpleNamespace) -> None:
    first, second = loop.ppo.metrics()
    assert first["kl/full"] == pytest.approx(0, abs=1e-6)
    assert second["kl/full"] > 1e-6
    assert loop.ppo.answer["metrics"]["kl/full"] == second["kl/full"]


def test_the_policy_is_the_same_in_plain_transformers(loop: SimpleNamespace) -> None:
    pairs = read_pairs([str(loop.files["harmless"])], skip_bad=True).records[:8]
    model, chat = load_policy(loop.ppo.model)
    rows = [chat.encode_response(pair.prompt.messages, pair.chosen) for pair in pairs]
    batch = collate(rows, pad_id=chat.pad_id)
    with torch.no_grad():
        ours = response_logits(model, batch)
    plain = AutoModelForCausalLM.from_pretrained(loop.ppo.model)
    tokenizer = AutoTokenizer.from_pretrained(loop.ppo.model)
    found = []
    for pair, row in zip(pairs, rows, strict=True):
        ids = dialogue_ids(tokenizer, pair)
        assert ids[0].tolist() == row.ids
        with torch.no_grad():
            logits = plain(input_ids=ids).logits[0]
        found.append(logits[[place - 1 for place, answers in enumerate(row.mask) if answers]])
    assert ours.abs().max() > 0.1
    torch.testing.assert_close(ours, torch.cat(found), atol=1e-5, rtol=1e-5)


def test_the_reward_model_is_the_same_in_plain_transformers(loop: SimpleNamespace) -> None:
    directory = loop.root / "crossval" / "fold-0" / "model"
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert load_chat(directory).tokenizer.chat_template == tokenizer.chat_template
    pairs = {pair.place: pair for pair in read_pairs([str(loop.files["harmless"])], skip_bad=True).records}
    rows = [json.loads(line) for line in (loop.root / "crossval" / "margins.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["fold"] == 0][:8]
    for row in rows:
        pair = pairs[row["place"]]
        with torch.no_grad():
            chosen, rejected = (
                model(input_ids=dialogue_ids(tokenizer, pair, response)).logits.item()
                for response in (pair.chosen, pair.rejected)
            )
        assert row["margin"] * model.config.reward_std == pytest.approx(chosen - rejected, abs=1e-5)
    assert len({row["margin"] for row in rows}) > 1


def dialogue_ids(tokenizer: Any, pair: Any, response: str | None = None) -> torch.Tensor:
    """[1, T] token ids of prompt and answer, written with transformers' own template and no code of ours."""
    asked = [{"role": message.role, "content": message.content} for message in pair.prompt.messages]
    answered = [*asked, {"role": "assistant", "content": pair.chosen if response is None else response}]
    before = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(answered, tokenize=False)
    assert whole.startswith(before)
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in (before, whole[len(before) :])]
    return torch.tensor([ids[0] + ids[1]])
