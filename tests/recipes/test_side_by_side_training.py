"""Jobs of a recipe in two processes: Ctrl-C reaches them as it reaches a training command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from prefloop.train.checkpoint import checkpoints, step_of

JOBS = """
def train(data, out):
    from prefloop.train.config import SFTConfig
    from prefloop.train.sft import train

    shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 300}
    more = {"batch_size": 2, "num_epochs": 500, "eval_fraction": 0.0, "checkpoint_every": 10_000}
    train(SFTConfig(data=(data,), out=out, scratch=shape, **more))
"""
"""In a module of its own: only the workers load what training needs."""

PROGRAM = """
import sys
from prefloop.recipes.workers import Workers
from training_jobs import train

if __name__ == "__main__":
    data, *outs = sys.argv[1:]
    try:
        with Workers() as workers:
            workers.side_by_side(*((train, (data, out)) for out in outs))
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_a_stop_reaches_the_processes_and_loses_no_finished_step(tmp_path):
    """Ctrl-C as a terminal sends it: to all. Of SIGTERM to the parent alone the workers learn in the same way."""
    rows = [{"prompt": f"a {number % 7}", "completion": "b c"} for number in range(64)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "training_jobs.py").write_text(JOBS)
    outs = [tmp_path / name for name in ("a", "b", "c")]
    process = subprocess.Popen(
        [sys.executable, tmp_path / "program.py", tmp_path / "data.jsonl", *outs],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        # Before its first step a run has nothing to save.
        while not all((out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text() for out in outs[:2]):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    for out in outs[:2]:
        num_steps = len((out / "metrics.jsonl").read_text().splitlines())
        assert step_of(checkpoints(out / "checkpoints")[-1]) == num_steps < 500 * 32
    assert not outs[2].exists(), "what has not begun does not begin"
