"""The command line: `make bench-peers`, or `python -m benchmarks.peers` once the peers have been made."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.cases import GENERATED, JOBS, OFFLINE, Case
from benchmarks.peers.figures import Entry, differences, entries_table, entry, seconds_per_token
from benchmarks.peers.grid import GRID, Settings, search
from benchmarks.peers.turns import Runner, python_of
from benchmarks.testbed import NUM_ROWS, SIZES, prepare
from prefloop.types import EnvironmentStop

MODULES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(OFFLINE, ("trl_offline", "trl")),
    "grpo": ("trl_online", "trl"),
    "rloo": ("trl_online", "trl"),
    "ppo": ("trl_ppo", "trl-1.12"),
    "generation": ("trl_generation", "trl"),
}
"""By job: the peer's script, and the environment that it runs in."""
PROBE_STEPS = 3
CLEARLY = 1.15
"""Settings that are so many times slower than the fastest after one step are measured no further."""


def main(words: Sequence[str] | None = None) -> None:
    """Measure what the flags ask for, print it, and what the tuned peer's settings are."""
    flags = arguments(words)
    folder = prepare(flags.out / "testbed")
    entries: list[Entry] = []
    for case in cases(flags, folder):
        try:
            entries += compare(case, flags)
        except EnvironmentStop as stop:
            raise SystemExit(f"{case.job}, {case.size}, {case.regime}: {stop}") from None
        if flags.json is None:
            print(entries_table(entries[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    if flags.json not in (None, "-"):
        Path(flags.json).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(entries, indent=1) if flags.json == "-" else entries_table(entries))


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", allow_abbrev=False, description=__doc__)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--job", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--regime", nargs="+", choices=("offline", "fixed", "geometric"), help="default: all of a job")
    parser.add_argument("--peer", nargs="+", choices=("default", "tuned"), default=["default", "tuned"])
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1, help="1 (default) counts CPU seconds, more the clock's")
    parser.add_argument("--steps", type=int, default=5, help="counted steps (default 5, at most 15)")
    parser.add_argument("--peers", type=Path, default=Path(), help="the folder with .venv-peers-* (default: this one)")
    parser.add_argument("--out", type=Path, default=Path("build/peers"), help="where the test bed and tuned.json go")
    parser.add_argument("--search-again", action="store_true", help="tune the peer anew, do not take what was found")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="JSON to FILE, or in place of the table")
    flags = parser.parse_args(words)
    if not 1 <= flags.steps < NUM_ROWS // 32:
        parser.error(f"--steps {flags.steps}: from 1 to {NUM_ROWS // 32 - 1}")
    return flags


def cases(flags: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """What to compare."""
    for size in flags.size:
        for job in flags.job:
            for regime in ("offline",) if job in OFFLINE else ("geometric", "fixed"):
                if flags.regime is None or regime in flags.regime:
                    batch = {"batch": GENERATED} if job == "generation" else {}
                    yield Case(job, size, regime, flags.dtype, flags.threads, flags.steps + 1, str(folder), **batch)


def compare(case: Case, flags: argparse.Namespace) -> list[Entry]:
    """prefloop beside the peer at its defaults and tuned, step by step in turn."""
    settings: dict[str, Settings] = {}
    with ExitStack() as stack:
        keep = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "round.json"
        ours = stack.enter_context(start_ours(case))
        ordered = replace(case, order=tuple(ours.facts["order"]))
        if "default" in flags.peer:
            settings["default"] = {}
        if "tuned" in flags.peer:
            settings["tuned"] = tuned(ordered, flags)
        peers = {
            name: stack.enter_context(start_peer(replace(ordered, settings={**chosen, "keep_round": str(keep)}), flags))
            for name, chosen in settings.items()
        }
        same = first_steps(case, ours, peers, keep)
        rates = []
        for _ in range(flags.steps):
            for runner in (ours, *peers.values()):
                runner.step()
            rates.append(ours.ask("gemm")["gflops"])
    named = {key: getattr(case, key) for key in ("job", "size", "regime")}
    return [
        entry(
            case={
                **named,
                **{"peer": name, "dtype": case.dtype, "threads": case.threads},
                "peer_settings": dict(settings[name]),
            },
            size=SIZES[case.size],
            ours=ours.reports[1:],
            peer=peer.reports[1:],
            peak_gflops=median(rates),
            same=same[name],
        )
        for name, peer in peers.items()
    ]


def first_steps(case: Case, ours: Runner, peers: Mapping[str, Runner], keep: Path) -> dict[str, Any]:
    """The steps that warm up and are not counted; how far apart both sides are on the same batch, by peer."""
    same = {}
    for name, peer in peers.items():
        peer.step()
        if case.job in ("grpo", "rloo"):
            # Before prefloop's own first step, at the weights that both begin with.
            found = ours.ask(f"compare {keep}")
            same[name] = differences(found, peer.reports[0])
    ours.step()
    for name, peer in peers.items():
        if case.job in OFFLINE:
            counted = [int(side.reports[0]["tokens"]) for side in (ours, peer)]
            if counted[0] != counted[1]:
                raise EnvironmentStop(f"the first step has {counted[0]} tokens here and {counted[1]} in the peer")
            same[name] = differences(ours.reports[0], peer.reports[0])
    # What is sampled is not the same batch; `make test-peers` compares PPO's losses and gradients.
    return {name: same.get(name, {}) for name in peers}


def start_ours(case: Case) -> Runner:
    """A process of prefloop."""
    command = [sys.executable, "-m", "benchmarks.peers.ours", case.words()]
    return Runner("prefloop", command, environment=os.environ)


def start_peer(case: Case, flags: argparse.Namespace) -> Runner:
    """A process of the peer, which must see its own packages only."""
    script, environment = MODULES[case.job]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = python_of(flags.peers / f".venv-peers-{environment}")
    return Runner(environment, [str(python), "-m", f"benchmarks.peers.{script}", case.words()], environment=clean)


def tuned(case: Case, flags: argparse.Namespace) -> Settings:
    """The fastest settings of the grid, from a file where they have been searched for before."""
    record = flags.out / "tuned.json"
    known: dict[str, Any] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    key = f"{case.job} {case.size} {case.regime} {case.dtype}, {case.threads} threads"
    if key not in known or flags.search_again:
        best, measured = search(GRID[case.job], lambda settings, least: probe(case, settings, least, flags))
        known[key] = {"best": best, "measured": [{**tried, "us_per_token": cost} for tried, cost in measured]}
        record.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    found: Settings = known[key]["best"]
    print(f"{key}: fastest of {len(known[key]['measured'])} settings: {json.dumps(found)}", file=sys.stderr, flush=True)
    return found


def probe(case: Case, settings: Settings, least: float, flags: argparse.Namespace) -> float:
    """Microseconds for each useful token, from a few steps; from the first where that is clearly more than `least`."""
    with start_peer(replace(case, settings=dict(settings)), flags) as peer:
        peer.step()
        for _ in range(PROBE_STEPS):
            peer.step()
            cost = 1e6 * seconds_per_token(peer.reports[1:])
            if cost > CLEARLY * least:
                break
    return cost


if __name__ == "__main__":
    main()
