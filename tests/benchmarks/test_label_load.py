"""The benchmark of the labelling app's load: it runs, and counts what is in the database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra app")

from benchmarks.label_load import main


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--annotators", "2", "--votes", "3", "--items", "12", "--json", str(tmp_path / "answer.json")])
    assert "| annotators | think | votes | votes a second |" in capsys.readouterr().out
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer["num_votes"] == 6 and answer["votes_per_second"] == pytest.approx(6 / answer["seconds"], rel=0.05)
    assert 0 < answer["vote_ms"]["p50"] <= answer["vote_ms"]["p95"]
