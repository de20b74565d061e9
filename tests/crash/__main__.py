"""Proof by trial that a run goes on exactly: `make test-crash`, `make test-crash-full`. Not part of the test suite.

Prints a table, and writes it with all counts as JSON to OUT/crash.json. Exit code 1 if anything was not as it must be.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path

# Bit-identical sums need one thread; set before torch is imported, here and in the children.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
os.environ["HF_HUB_OFFLINE"] = "1"

QUICK = ("sft", "reward", "preference", "ppo", "rloo", "grpo")
WRITERS = ("sft", "ppo")
"""Jobs whose checkpoint writing and files are struck: one model and optimiser, two of each."""


def main() -> int:
    """Run the experiments that the flags ask for."""
    from tests.crash.experiments import (
        BETWEEN,
        damage_files,
        interrupt,
        kill_anywhere,
        kill_while_writing,
        run_whole,
    )
    from tests.crash.jobs import OFFLINE, job_names, make_jobs

    flags = _flags()
    started = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="crash-", dir=flags.out))
    names = flags.jobs or [name for name in QUICK if name in job_names()]
    names = job_names() if names == ["all"] else names
    with contextlib.redirect_stdout(sys.stderr):
        jobs = make_jobs(root / "inputs", names)
    wholes = {job.name: run_whole(job, root / "whole" / job.name) for job in jobs}
    struck = [name for name in WRITERS if name in wholes] or names[:1]

    plans = [(kill_anywhere, name, flags.kills) for name in names]
    plans += [(interrupt, name, flags.signals) for name in names]
    plans += [(kill_while_writing, name, flags.writes // len(struck)) for name in struck]
    plans += [(damage_files, name, flags.damages // len(struck)) for name in struck]
    tallies = []
    # Processes, not threads: multiprocessing looks after all children of a process at once.
    with concurrent.futures.ProcessPoolExecutor(flags.processes, multiprocessing.get_context("spawn")) as pool:
        futures = [
            pool.submit(
                experiment,
                wholes[name],
                root / experiment.__name__ / name,
                random.Random(f"{flags.seed} {experiment.__name__} {name}"),
                count,
            )
            for experiment, name, count in plans
            if count
        ]
        for future in futures:
            tallies.append(future.result())
            print(_row(tallies[-1]), file=sys.stderr, flush=True)
    seconds = time.monotonic() - started
    between = sum(tally.landed.get(BETWEEN, 0) for tally in tallies)
    if flags.kills and set(names) - {*OFFLINE} and not between:
        tallies[0].failures.append("no kill fell between the updates of one step: give more --kills")
    _report(tallies, seconds, root)
    return 1 if any(tally.failures or tally.runs != tally.identical for tally in tallies) else 0


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--jobs", nargs="*", help=f"jobs, or all (default: {' '.join(QUICK)})")
    parser.add_argument("--kills", type=int, default=8, help="SIGKILLs at random instants, of each job")
    parser.add_argument("--signals", type=int, default=2, help="SIGINTs and SIGTERMs, of each job")
    parser.add_argument("--writes", type=int, default=40, help="kills while a checkpoint is written")
    parser.add_argument("--damages", type=int, default=60, help="damaged files")
    parser.add_argument("--processes", type=int, default=2, help="runs at the same time")
    parser.add_argument("--seed", type=int, default=0, help="of the instants and the damages")
    parser.add_argument("--out", help="where the runs are made (default: the directory for temporary files)")
    return parser.parse_args()


HEADER = "| what | run | times | where | resumed | refused | finished | identical |\n" + "| --- " * 8 + "|"


def _row(tally) -> str:
    where = ", ".join(f"{count} {place}" for place, count in sorted(tally.landed.items()))
    cells = (
        tally.experiment,
        tally.job,
        tally.events,
        where,
        tally.resumed,
        tally.refused,
        tally.runs,
        tally.identical,
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _report(tallies, seconds: float, root: Path) -> None:
    print(HEADER)
    for tally in tallies:
        print(_row(tally))
    for failure in (failure for tally in tallies for failure in tally.failures):
        print(f"FAILED: {failure}")
    runs, identical = sum(tally.runs for tally in tallies), sum(tally.identical for tally in tallies)
    events = sum(tally.events for tally in tallies)
    print(f"\n{events} times struck, {runs} runs finished, {identical} identical to an unbroken one, {seconds:.0f} s")
    found = {"seconds": round(seconds), "tallies": [dataclasses.asdict(tally) for tally in tallies]}
    (root / "crash.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"counts: {root / 'crash.json'}")


if __name__ == "__main__":
    sys.exit(main())
