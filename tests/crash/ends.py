"""How a run ended, in full: two runs are the same if everything that they leave is, times left out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from prefloop.train.checkpoint import checkpoints, verify


def end_of(run: Path) -> dict[str, Any]:
    """What a finished run left: result, metrics, rollouts, and every file of every checkpoint by its hash."""
    result = json.loads((run / "result.json").read_text())
    kept = checkpoints(run / "checkpoints")
    leftovers = [path.name for path in (run / "checkpoints").iterdir() if path not in kept]
    return {
        "stopped": result["stopped"],
        "outputs": {name: _hashes(run / path) for name, path in result["outputs"].items()},
        "metrics": _without_times(run / "metrics.jsonl"),
        "rollouts": _hashes(run / "rollouts"),
        "checkpoints": {path.name: _hashes(path) for path in kept},
        "leftovers": leftovers,
    }


def differences(run: Path, whole: dict[str, Any], *, damaged: str = "") -> list[str]:
    """The parts in which a finished run differs from an unbroken one; the checkpoint named `damaged` is passed over."""
    ends = [end_of(run), dict(whole)]
    for end in ends:
        end["checkpoints"] = {name: files for name, files in end["checkpoints"].items() if name != damaged}
    broken = [path.name for path in checkpoints(run / "checkpoints") if path.name != damaged and verify(path)]
    return [part for part in whole if ends[0][part] != ends[1][part]] + broken


def num_finished_steps(run: Path) -> int:
    """Whole lines of metrics.jsonl."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _without_times(path: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def _hashes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
