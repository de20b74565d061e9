"""`report --registry`: the decision about exactly the weights that a run made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "ppo"
    (directory / "policy").mkdir(parents=True)
    (directory / "policy" / "model.safetensors").write_bytes(b"weights")
    (directory / "policy" / "config.json").write_text("{}")
    result = {"command": "train policy", "stopped": "done", "outputs": {"model": "policy"}, "metrics": {}}
    (directory / "result.json").write_text(json.dumps(result))
    return directory


def test_the_newest_decision_about_the_run_s_weights_is_shown(prefloop: Callable[..., Any], run: Path) -> None:
    registered = prefloop("model register", run / "policy", "--name", "helper")
    assert registered.code == 0, registered.said
    refused = prefloop("report", run, "--registry", "registry")
    assert "registry: registry: no decision about the model of" in refused.problem
    decided = prefloop("model gate", "helper:1")
    assert decided.code == 1, decided.said
    told = prefloop("report", run, "--registry", "registry")
    assert told.code == 0, told.said
    page = (run / "report.html").read_text()
    assert "helper:1, hold:" in page and "recorded in registry, event 3" in page
    assert prefloop("report", run, "--registry", "elsewhere").code == 2
    (run / "policy" / "model.safetensors").write_bytes(b"other weights")
    assert "no decision about the model of" in prefloop("report", run, "--registry", "registry").problem
