"""The benchmark of labels from votes: it runs, and its truth is the world's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from benchmarks.label_methods import METHODS, NUM_VOTES, Bench, main, vote_of

from prefloop.types import Judgment


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--seeds", "1", "--json", str(tmp_path / "answer.json")])
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert len(answer) == 8 and "| votes | majority | bradley-terry | dawid-skene |" in capsys.readouterr().out
    for found in answer.values():
        assert found.keys() == {str(num) for num in NUM_VOTES}
        assert all(methods.keys() == set(METHODS) for methods in found.values())


def test_who_knows_the_truth_is_always_right_and_who_inverts_it_never() -> None:
    bench = Bench(1, 4, 3)
    assert bench.better
    told = [vote_of(n, Judgment(name, "x", side)) for n, (name, side) in enumerate(bench.better.items())]  # type: ignore[arg-type]
    inverted = [dataclasses.replace(vote, choice="b" if vote.choice == "a" else "a") for vote in told]
    assert bench.measure(told, "majority")["accuracy"] == 1.0
    assert bench.measure(inverted, "majority")["accuracy"] == 0.0
    assert bench.measure(told[:1], "majority")["accuracy"] == pytest.approx(0.5 + 0.5 / len(bench.better))
