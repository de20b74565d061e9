"""The test bed: lengths of the geometric regime, texts that tokenise alike together and apart, what is counted."""

from __future__ import annotations

import random
import textwrap
from pathlib import Path

import pytest
import torch
from benchmarks.peers.ours import count_round, count_tokens, encode

from benchmarks import testbed
from prefloop.functional.batch import RolloutBatch
from prefloop.models.chat import Encoded, load_chat


def test_geometric_lengths_are_between_16_and_20() -> None:
    draw, chance = random.Random(1), testbed.NUM_STOPS / testbed.VOCAB
    lengths = []
    for _ in range(20_000):
        length = 1
        while length < testbed.NEW_TOKENS and draw.random() >= chance:
            length += 1
        lengths.append(length)
    assert 16 < testbed.expected_length() < 20
    # The standard error of this mean is about 0.11.
    assert sum(lengths) / len(lengths) == pytest.approx(testbed.expected_length(), abs=0.5)


def test_stop_ids_are_as_many_as_they_are_said_to_be() -> None:
    ids = testbed.stop_ids("geometric")
    assert len(set(ids)) == len(ids) == testbed.NUM_STOPS
    assert testbed.EOS_ID in ids and testbed.PAD_ID not in ids and max(ids) < testbed.VOCAB
    assert testbed.stop_ids("fixed") == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizer and a few pairs."""
    root = tmp_path_factory.mktemp("testbed")
    texts = Path(textwrap.__file__).read_text(encoding="utf-8").split("\n\n")
    testbed._tokenizer(texts).save_pretrained(root / "tokenizer")
    testbed.write_rows(root / "pairs.jsonl", testbed.pairs(root, texts, 40))
    return root


def test_prompt_and_response_are_the_same_tokens_together_and_apart(folder: Path) -> None:
    chat = load_chat(folder / "tokenizer")
    for row in testbed.read_rows(folder / "pairs.jsonl"):
        for response in (row["chosen"], row["rejected"]):
            apart = encode(chat, {"prompt": row["prompt"], "completion": response})
            # As a peer without chat template has them.
            together = chat.tokenizer(row["prompt"] + response)["input_ids"] + [testbed.EOS_ID]
            assert [each.ids for each in apart] == [together]


@pytest.mark.parametrize(
    ("text", "prompt", "response"),
    [("  a b. ", "a b.", "a b."), ("(x) 12", "(x) 12.", "x) 12"), ("12 !", "12 !.", "nothing")],
)
def test_cuts_texts(text: str, prompt: str, response: str) -> None:
    assert (testbed.as_prompt(text), testbed.as_response(text)) == (prompt, response)


def test_counts_tokens_of_rows_and_pairs() -> None:
    row = Encoded([5, 6, 7, 8, 9], [False, False, True, True, True])
    other = Encoded([5, 6, 7], [False, False, True])
    assert count_tokens([row]) == {"tokens": 5, "responses": 3, "prompts": 2}
    assert count_tokens([row, other]) == {"tokens": 8, "responses": 4, "prompts": 2}


def test_counts_tokens_of_a_round() -> None:
    # Two groups of two: prompts of 2 and 3 tokens, responses of 1, 2, 3 and 4, in rows padded to 7.
    lengths = torch.tensor([3, 4, 6, 7])
    prompts = torch.tensor([2, 2, 3, 3])
    columns = torch.arange(7)
    mask = (columns >= prompts[:, None]) & (columns < lengths[:, None])
    empty = torch.zeros(4, 7)
    batch = RolloutBatch(
        *(empty.long(), lengths, mask, empty, empty, empty, empty[:, 0], empty, torch.tensor([0, 0, 1, 1]))
    )
    assert count_round(batch, 2) == {"tokens": 20, "responses": 10, "generated": 10, "prompts": 5}
