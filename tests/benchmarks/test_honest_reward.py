"""The character n-gram baseline: counts by hand, the optimum of its loss, and that no fold sees its own labels."""

from __future__ import annotations

import importlib
import math
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from prefloop.data.formats import make_pair, make_prompt
from prefloop.types import Message

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ngrams(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    yield importlib.import_module("benchmarks.ngrams")
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


def pair(number, chosen, rejected):
    return make_pair(make_prompt((Message("user", str(number)),)), chosen, rejected)


def test_counts_by_hand(ngrams):
    row = ngrams.counted(["Aa"], longest=2)
    # " aa " has the letters space (2) and a (2), and the pairs " a", "aa", "a ".
    expected = {" ": 1 + math.log(2), "a": 1 + math.log(2), " a": 1.0, "aa": 1.0, "a ": 1.0}
    found = {gram: row[0, zlib.crc32(gram.encode()) % ngrams.PLACES] for gram in expected}
    assert found == pytest.approx(expected)
    assert row.nnz == 5
    assert sparse.linalg.norm(ngrams.unit_rows(row)) == pytest.approx(1)


def test_the_weights_are_where_the_gradient_vanishes(ngrams):
    differences = sparse.csr_matrix([[1.0], [1.0], [-1.0]])
    # Two of three agree; d/dw: -(2 sigmoid(-w) - sigmoid(w)) / 3 + l2 w = 0.
    weight = float(ngrams.logistic(differences, l2=0.1)[0])
    gradient = -(2 / (1 + math.exp(weight)) - 1 / (1 + math.exp(-weight))) / 3 + 0.1 * weight
    assert gradient == pytest.approx(0, abs=1e-5)
    assert float(ngrams.logistic(differences, l2=1e-9)[0]) == pytest.approx(math.log(2), abs=1e-3)


def test_a_fold_is_scored_by_the_others_alone(ngrams):
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(list("abcdefgh "), 30)) for _ in range(80)]
    pairs = [pair(number, texts[2 * number], texts[2 * number + 1]) for number in range(40)]
    folds = [number % 4 for number in range(40)]
    before = ngrams.margins_by_fold(pairs, folds)
    swapped = [
        pair(number, each.rejected, each.chosen) if number % 4 == 0 else each for number, each in enumerate(pairs)
    ]
    after = ngrams.margins_by_fold(swapped, folds)
    # Swapping the labels of fold 0 turns its margins round and leaves its model as it was.
    assert after[::4] == pytest.approx([-margin for margin in before[::4]])
    assert after[1] != pytest.approx(before[1])


def test_a_word_that_decides_is_found(ngrams):
    pairs = [pair(number, f"zebra {number}", f"mouse {number}") for number in range(40)]
    assert min(ngrams.margins_by_fold(pairs, [number % 5 for number in range(40)])) > 0
