"""Surprise at held-out text: against transformers' own loss, whole and in pieces."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from prefloop.evaluate import texts
from prefloop.models.load import load_policy

TEXTS = ["tree bee moon lamp road sun fog seed steel cheese " * 3, "moon", "tree " * 20]


def loss_of(model: Any, ids: list[int]) -> float:
    """Mean over the tokens but the first, by transformers."""
    row = torch.tensor([ids])
    with torch.no_grad():
        return float(model(input_ids=row, labels=row).loss)


def test_surprise_is_the_loss_of_transformers(sft_run: Any) -> None:
    model, chat = load_policy(sft_run.model)
    found = texts.surprises(model, chat, TEXTS, token_budget=64)
    for text, surprise in zip(TEXTS, found, strict=True):
        ids = chat.plain_ids(text)
        assert surprise.tokens == len(ids) - 1
        if surprise.tokens:
            assert math.isclose(surprise.nats, loss_of(model, ids) * surprise.tokens, rel_tol=1e-4)
        else:
            assert surprise.nats == 0


def test_a_long_text_is_read_in_pieces(sft_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "LONGEST_WINDOW", 7)
    model, chat = load_policy(sft_run.model)
    (surprise, *_) = texts.surprises(model, chat, TEXTS, token_budget=64)
    ids = chat.plain_ids(TEXTS[0])
    expected = 0.0
    for start in range(0, len(ids) - 1, 6):
        part = ids[start : start + 7]
        expected += loss_of(model, part) * (len(part) - 1)
    assert surprise.tokens == len(ids) - 1
    assert math.isclose(surprise.nats, expected, rel_tol=1e-4)
