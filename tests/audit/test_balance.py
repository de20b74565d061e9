"""`data balance`: what was found against a file is gone from what it writes, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prefloop.audit.balance import balance, balanced
from prefloop.audit.config import DataBalanceConfig
from prefloop.audit.table import NOT_APPLICABLE
from prefloop.data.read import read_pairs
from prefloop.signals.measures import SIGNALS
from prefloop.types import AuditReport, Finding, InputError

Row = dict[str, Any]


def written(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows_of(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def findings(report: AuditReport) -> dict[str, Finding]:
    return {finding.name: finding for finding in report.findings}


def test_balanced_signals_are_preferred_in_half_of_the_pairs_and_other_pairs_stay(
    tmp_path: Path, audited: Callable[..., AuditReport], make_pairs: Callable[..., list[Row]], plant: Callable[..., Any]
) -> None:
    rows = plant(plant(make_pairs(600), ["(Okafor, 2017)"], share=0.2), ["So it is!"], share=0.2)
    before = findings(audited(rows))
    assert before["citation"].severity != "ok" != before["exclamation"].severity
    out = tmp_path / "balanced.jsonl"
    answer = balance(
        DataBalanceConfig(
            file=written(tmp_path / "pairs.jsonl", rows), out=str(out), signals=("citation", "exclamation", "length")
        )
    )
    kept = rows_of(out)
    after = findings(audited(kept))
    assert answer["num_kept"] == len(kept) and answer["dropped"] == {"signals": len(rows) - len(kept)}
    for name in ("citation", "exclamation", "length"):
        assert after[name].value == 0.5 and after[name].severity == "ok"
    # In their order, and nothing of them changed.
    places = [rows.index(row) for row in kept]
    assert places == sorted(places)


@given(
    arrays(np.int8, st.tuples(st.integers(1, 60), st.integers(1, 3)), elements=st.sampled_from([-1, 0, 1])),
    st.integers(0, 5),
)
def test_every_combination_keeps_as_many_pairs_as_its_mirror_image(signs: np.ndarray, seed: int) -> None:
    ids = np.arange(len(signs), dtype=np.uint64)
    stays = balanced(signs, ids, np.ones(len(signs), dtype=bool), seed=seed)
    for row in np.unique(signs, axis=0):
        same, mirrored = ((signs == one).all(axis=1) for one in (row, -row))
        left = int((same & stays).sum())
        assert left == int((mirrored & stays).sum())
        assert left == (int(same.sum()) if not row.any() else min(int(same.sum()), int(mirrored.sum())))


def test_copies_stay_or_go_together_and_what_does_not_apply_counts_as_alike() -> None:
    signs = np.array([[1], [1], [1], [-1], [NOT_APPLICABLE], [1]], dtype=np.int8)
    ids = np.array([7, 7, 8, 9, 10, 11], dtype=np.uint64)
    for seed in range(10):
        stays = balanced(signs, ids, np.array([True] * 5 + [False]), seed=seed)
        assert stays[0] == stays[1] and stays[0] != stays[2]
        assert list(stays[3:]) == [True, True, False]


def test_rows_of_findings_are_left_out(tmp_path: Path) -> None:
    one = {"prompt": "What is it?", "chosen": "A loaf of bread.", "rejected": "A stone."}
    near = {"prompt": "What is it?", "chosen": "a loaf of bread", "rejected": "Stone, a"}
    other = {"prompt": "And that?", "chosen": "A tree.", "rejected": "A house."}
    swapped = {"prompt": "And that?", "chosen": "A house.", "rejected": "A tree."}
    third = {"prompt": "And this?", "chosen": "A bird.", "rejected": "A fish."}
    held_out = written(tmp_path / "held-out.jsonl", [{"prompt": "And this?", "chosen": "x", "rejected": "y"}])
    file = written(tmp_path / "pairs.jsonl", [one, other, one, near, swapped, third])

    def left(name: str, *drop: str, **more: Any) -> tuple[list[Row], dict[str, int]]:
        out = tmp_path / f"{name}.jsonl"
        answer = balance(DataBalanceConfig.model_validate({"file": file, "out": str(out), "drop": drop, **more}))
        return rows_of(out), answer["dropped"]

    assert left("a", "duplicates") == ([one, other, near, swapped, third], {"duplicates": 1})
    assert left("b", "near_duplicates") == ([one, other, swapped, third], {"near_duplicates": 2})
    assert left("c", "conflicts") == ([one, one, near, third], {"conflicts": 2})
    assert left("d", "leakage", eval_data=(held_out,)) == ([one, other, one, near, swapped], {"leakage": 1})
    every = {"duplicates": 1, "near_duplicates": 1, "conflicts": 2, "leakage": 1}
    assert left("e", *every, eval_data=(held_out,)) == ([one], every)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "signals: nothing to do"),
        ({"signals": ("lenght",)}, "signals: no signal is called 'lenght'; known: length, "),
        ({"drop": ("leakage",)}, "eval_data: held-out files and the dropping of what they share belong together"),
        ({"drop": ("conflicts",), "eval_data": ("pairs.jsonl",)}, "eval_data: held-out files and the dropping"),
        ({"signals": ("length",)}, "pairs.jsonl: no pair would be left"),
    ],
)
def test_what_makes_no_sense_is_said_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Row, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    written(Path("pairs.jsonl"), [{"prompt": f"p{n}", "chosen": "long answer", "rejected": "short"} for n in range(3)])
    with pytest.raises(InputError) as caught:
        balance(DataBalanceConfig.model_validate({"file": "pairs.jsonl", "out": "out.jsonl", **settings}))
    assert str(caught.value).startswith(said)
    assert not Path("out.jsonl").exists()


def test_judgments_become_pairs(tmp_path: Path) -> None:
    votes = [
        {"prompt": f"p{n}", "response_a": "one", "response_b": "two", "choice": "ab"[n % 2], "annotator_id": "ann"}
        for n in range(6)
    ]
    out = tmp_path / "out.jsonl"
    answer = balance(
        DataBalanceConfig(
            file=written(tmp_path / "votes.jsonl", votes), out=str(out), signals=tuple(SIGNALS), drop=("duplicates",)
        )
    )
    assert answer["num_kept"] == 6 == len(read_pairs([str(out)]).records)
