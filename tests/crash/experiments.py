"""The experiments: kills at any instant, kills while a checkpoint is written, signals, damaged files.

Each goes on until its run is finished and compares the end with that of an unbroken one.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.ends import differences, end_of, num_finished_steps
from tests.crash.jobs import Job
from tests.crash.processes import Attempt

from prefloop.train.checkpoint import checkpoints, newest_verified, step_of, verify

BETWEEN = "between the updates of one step"
"""Where a kill of an on-policy run must have fallen at least once."""


@dataclass
class Whole:
    """An unbroken run of a job."""

    job: Job
    seconds: float
    end: dict[str, Any]
    updates_per_step: int
    """Optimiser steps of one step of the loop."""


@dataclass
class Tally:
    """What an experiment on one job came to."""

    experiment: str
    job: str
    events: int = 0
    """Kills, signals or damages."""
    landed: dict[str, int] = field(default_factory=dict)
    """Where they fell, as far as it is of interest."""
    runs: int = 0
    """Runs that were finished after all."""
    resumed: int = 0
    """Starts that went on from a checkpoint."""
    refused: int = 0
    """Starts that gave up with one clear line."""
    identical: int = 0
    """Finished runs that left what the unbroken one left."""
    failures: list[str] = field(default_factory=list)

    def note(self, where: str) -> None:
        """Count an event."""
        self.events += 1
        self.landed[where] = self.landed.get(where, 0) + 1

    def finish(self, run: Path, whole: Whole, *, damaged: str = "") -> None:
        """Compare a finished run with the unbroken one; keep its directory only if it differs."""
        self.runs += 1
        differing = differences(run, whole.end, damaged=damaged)
        if differing:
            self.failures.append(f"{run} differs in {', '.join(differing)}")
            return
        self.identical += 1
        shutil.rmtree(run.parent)


def run_whole(job: Job, root: Path) -> Whole:
    """Run a job in one go, twice: the first time may start the server, and both must end alike."""
    seconds, ends = [], []
    for number in range(2):
        run = root / str(number) / "run"
        started = time.monotonic()
        attempt = Attempt(job.in_directory(run), run.parent)
        assert attempt.wait() == 0, attempt.said.read_text()
        seconds.append(time.monotonic() - started)
        ends.append(end_of(run))
    assert ends[0] == ends[1], f"{job.name} is not repeatable"
    per_step, rest = divmod(attempt.num_updates, num_finished_steps(run))
    assert rest == 0
    return Whole(job, min(seconds), ends[0], per_step)


def kill_anywhere(whole: Whole, root: Path, generator: random.Random, num_kills: int) -> Tally:
    """SIGKILL at random instants, again and again, until the run is finished; new runs until there are enough kills."""
    tally = Tally("killed at any instant", whole.job.name)

    def strike(attempt: Attempt, run: Path) -> None:
        # Every start reads and loads first; half of the kills are timed from the first update on.
        if generator.random() < 0.5:
            while attempt.wait(0.001) is None and not attempt.num_updates:
                pass
        seconds = whole.seconds * (0.7 if attempt.num_updates else 1.1)
        if attempt.wait(generator.uniform(0, seconds)) is None and attempt.send(signal.SIGKILL) is not None:
            tally.note(_where(attempt, run, whole))

    _until(tally, whole, root, num_kills, strike)
    return tally


def kill_while_writing(whole: Whole, root: Path, generator: random.Random, num_kills: int) -> Tally:
    """SIGKILL some microseconds to milliseconds after the temporary directory of a checkpoint has appeared."""
    tally = Tally("killed while a checkpoint was written", whole.job.name)

    def strike(attempt: Attempt, run: Path) -> None:
        for _ in range(generator.choice((1, 1, 2, 3))):
            if not _wait_for_a_write(attempt, run):
                return
        time.sleep(10 ** generator.uniform(-5, -1.5))
        if attempt.send(signal.SIGKILL) is not None:
            hidden = _in_hand(attempt, run)
            deleted = any(name.endswith(".old.tmp") for name in hidden)
            tally.note("while one was deleted" if deleted else "before the rename" if hidden else "after the rename")

    _until(tally, whole, root, num_kills, strike)
    return tally


def interrupt(whole: Whole, root: Path, generator: random.Random, num_signals: int) -> Tally:
    """SIGINT or SIGTERM at random instants: exit code 130, and no finished step is lost."""
    tally = Tally("Ctrl-C or SIGTERM", whole.job.name)

    def strike(attempt: Attempt, run: Path) -> None:
        # A signal before the command has begun is Python's business, not ours.
        while attempt.wait(0.001) is None and not attempt.said.stat().st_size:
            pass
        if attempt.wait(generator.uniform(0, 0.8) * whole.seconds) is not None:
            return
        code = attempt.send(generator.choice((signal.SIGINT, signal.SIGTERM)))
        if code is None or code == 0:
            return
        newest = newest_verified(run / "checkpoints")
        lost = num_finished_steps(run) - (step_of(newest) if newest else 0)
        inside = "stopping after this step" in attempt.said.read_text()
        tally.note("in the loop" if inside else "before or after the loop")
        if code != 130 or "Traceback" in attempt.said.read_text() or (inside and lost):
            tally.failures.append(f"{run}: exit code {code}, {lost} finished steps lost")

    _until(tally, whole, root, num_signals, strike)
    return tally


Strike = Callable[[Attempt, Path], None]


def _until(tally: Tally, whole: Whole, root: Path, num_events: int, strike: Strike) -> None:
    """Start runs, strike every start, and start again until each run is finished and there are enough events."""
    while tally.events < num_events:
        run = root / f"{tally.runs:03d}" / "run"
        for _ in range(200):
            attempt = Attempt(whole.job.in_directory(run), run.parent)
            started, before = time.monotonic(), tally.events
            if tally.events < num_events:
                strike(attempt, run)
            code, struck = attempt.wait(), tally.events > before
            said = attempt.said.read_text()
            tally.resumed += "resuming from" in said
            if code == 0:
                # The machine may have become faster: strikes must not come too late.
                whole.seconds = min(whole.seconds, time.monotonic() - started)
                break
            if not struck:
                tally.failures.append(f"{run}: exit code {code}: {said.strip().splitlines()[-1:]}")
                return
        else:
            tally.failures.append(f"{run}: not finished after 200 starts")
            return
        tally.finish(run, whole)


def _where(attempt: Attempt, run: Path, whole: Whole) -> str:
    """Where in the run a kill fell."""
    if _in_hand(attempt, run):
        return "while a checkpoint was written or deleted"
    if attempt.num_updates == 0:
        return "before the first update"
    resumed = re.search(r"resuming from .*/step-(\d+)", attempt.said.read_text())
    finished = num_finished_steps(run) - (int(resumed[1]) if resumed else 0)
    since = attempt.num_updates - finished * whole.updates_per_step
    return BETWEEN if 0 < since < whole.updates_per_step else "elsewhere in the loop"


def _in_hand(attempt: Attempt, run: Path) -> set[str]:
    """Checkpoints that this start is writing or deleting; what an earlier kill left is older."""
    found = set()
    for path in (run / "checkpoints").glob(".step-*"):
        with contextlib.suppress(FileNotFoundError):
            found |= {path.name} if path.stat().st_mtime > attempt.started else set()
    return found


def _wait_for_a_write(attempt: Attempt, run: Path) -> bool:
    """Wait until a checkpoint begins to be written; False if the command ended before."""
    before = _in_hand(attempt, run)
    while attempt.wait(0) is None:
        now = _in_hand(attempt, run)
        if now - before:
            return True
        before = now
        time.sleep(0.0001)
    return False


def damage_files(whole: Whole, root: Path, generator: random.Random, num_damages: int) -> Tally:
    """Damage a random file of a random checkpoint of a run that was killed, and start it again."""
    tally = Tally("a file of a checkpoint damaged", whole.job.name)
    broken = root / "broken"
    while not broken.exists():
        _kill_with_checkpoints(whole, broken)
    for number in range(num_damages):
        run = root / f"{number:03d}" / "run"
        shutil.copytree(broken / "run", run)
        kept = checkpoints(run / "checkpoints")
        directory = generator.choice([kept[-1], kept[-1], *kept])
        path = generator.choice([path for path in sorted(directory.rglob("*")) if path.is_file()])
        kind = generator.choice(list(DAMAGES))
        DAMAGES[kind](path, generator)
        tally.note(kind)
        attempt = Attempt(whole.job.in_directory(run), run.parent)
        code, said = attempt.wait(), attempt.said.read_text()
        tally.resumed += "resuming from" in said
        if code == 0:
            # An older checkpoint than the one to go on from may stay as it is: nobody needs it.
            older = directory.exists() and f"resuming from {directory}" not in said and directory != kept[-1]
            tally.finish(run, whole, damaged=directory.name if older and verify(directory) else "")
        elif code in (2, 3) and "Traceback" not in said:
            tally.refused += 1
        else:
            tally.failures.append(f"{run}: {kind} in {path}: exit code {code}")
    return tally


def _kill_with_checkpoints(whole: Whole, directory: Path) -> None:
    """A run that was killed when it had pruned its first checkpoints; none if it was too fast."""
    run = directory / "run"
    attempt = Attempt(whole.job.in_directory(run), directory)
    while attempt.wait(0.001) is None and not any(step_of(path) >= 6 for path in checkpoints(run / "checkpoints")):
        pass
    if attempt.send(signal.SIGKILL) is None:
        shutil.rmtree(directory)


def _flip_a_bit(path: Path, generator: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def _truncate(path: Path, generator: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: generator.randrange(path.stat().st_size)])


def _zero_a_block(path: Path, generator: random.Random) -> None:
    content = path.read_bytes()
    start = generator.randrange(len(content))
    path.write_bytes(content[:start] + b"\0" * len(content[start : start + 512]) + content[start + 512 :])


def _remove(path: Path, generator: random.Random) -> None:
    path.unlink()


def _replace_by_a_directory(path: Path, generator: random.Random) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "bit flipped": _flip_a_bit,
    "truncated": _truncate,
    "block of zeros": _zero_a_block,
    "missing": _remove,
    "a directory in its place": _replace_by_a_directory,
}
