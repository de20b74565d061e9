"""One command in a process of its own, forked from a server that has imported everything: it starts at once."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path

PRELOADED = [f"prefloop.train.{name}" for name in ("sft", "reward", "preference", "policy")]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)


class Attempt:
    """A running command. What it says goes to `said`; `updates` grows by a byte with every optimiser step."""

    def __init__(self, words: list[str], directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.said, self.updates = directory / "said.txt", directory / "updates"
        for path in (self.said, self.updates):
            path.write_bytes(b"")
        self.started = time.time()
        self.process = CONTEXT.Process(target=_run, args=(words, str(self.said), str(self.updates)))
        self.process.start()

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code, or None if it still runs after so long."""
        self.process.join(seconds)
        return self.process.exitcode

    def send(self, number: int) -> int | None:
        """Send a signal and wait for the end. Gives the exit code, or None if it had ended before by itself."""
        if self.process.exitcode is not None or self.process.pid is None:
            return None
        os.kill(self.process.pid, number)
        return self.wait()

    @property
    def num_updates(self) -> int:
        """Optimiser steps that it has done."""
        return self.updates.stat().st_size


def _run(words: list[str], said: str, updates: str) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from prefloop.cli import entry

    stream = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    counter = os.open(updates, os.O_WRONLY | os.O_APPEND)
    # torch calls this after every step of any optimiser; nothing in prefloop knows of it.
    register_optimizer_step_post_hook(lambda *_: os.write(counter, b"u") and None)
    sys.argv = ["prefloop", *words]
    entry()
