"""`python -m benchmarks.label_load`: how many votes a second does the labelling app store, and how long does one wait?

`prefloop label serve` runs in a process of its own over a fresh database; each simulated annotator is a thread with a
connection, who asks for a task, waits `--think` seconds, votes, and asks for the next. Without thinking the figure is
what the server can do at most; with it, how long people wait. Server and annotators share the machine's cores.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import publish, table
from prefloop.label.intake import import_rows
from prefloop.label.people import invite, redeem
from prefloop.label.store import open_store
from prefloop.rundir import write_rows

WORDS = "The quick brown fox jumps over the lazy dog, and nobody minds. "


class Annotator(threading.Thread):
    """Votes so often, and notes how long each request took, in seconds."""

    def __init__(self, address: str, cookie: str, num_votes: int, think: float, start: threading.Barrier) -> None:
        super().__init__()
        self.address, self.cookie, self.num_votes, self.think, self.barrier = address, cookie, num_votes, think, start
        self.took: dict[str, list[float]] = {"/task": [], "/vote": []}
        self.num_saved = 0

    def run(self) -> None:
        """All votes, over one connection."""
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=120)) as self.connection:
            self.barrier.wait()
            for _ in range(self.num_votes):
                task = self._ask("/task", {})["task"]
                if task is None:
                    return
                if self.think:
                    time.sleep(self.think)
                    # The server drops what is silent for seconds; the next request opens another, as a browser does.
                    self.connection.close()
                sent = {"submission_id": str(uuid.uuid4()), "assignment_id": task["assignment_id"]}
                self._ask("/vote", {**sent, "choice": "left", "strength": "slightly", "seconds": 10.0})
                self.num_saved += 1

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json", "Origin": f"http://{self.address}", "Cookie": self.cookie}
        started = time.perf_counter()
        self.connection.request("POST", path, json.dumps(body), headers)
        answer = self.connection.getresponse()
        content = answer.read()
        self.took[path].append(time.perf_counter() - started)
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:200]!r}")
        return json.loads(content)


@contextlib.contextmanager
def served(database: str) -> Iterator[str]:
    """The address of the app, in a process of its own."""
    words = [sys.executable, "-m", "prefloop", "label", "serve", "--database", database, "--port", "0"]
    words += ["--requests-per-minute", "1000000"]
    with subprocess.Popen(words, env=os.environ, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            first = server.stderr.readline()
            if "http://" not in first:
                raise SystemExit(first + server.stderr.read())
            yield first.split("http://")[1].split()[0]
        finally:
            server.send_signal(signal.SIGINT)


def measure(folder: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """One load: votes a second, and the waits for a task and for a vote, in milliseconds."""
    database = flags.database or str(folder / "label.sqlite")
    rows = [
        {"prompt": f"Question {n}? {WORDS}", "response_a": f"a {n} {WORDS * 8}", "response_b": f"b {n} {WORDS * 8}"}
        for n in range(flags.items)
    ]
    write_rows(folder / "rows.jsonl", rows)
    sessions = []
    with open_store(database) as store:
        import_rows(store, folder / "rows.jsonl")
        for number in range(flags.annotators):
            redeemed = redeem(store, invite(store, name=f"annotator {number}", role="annotator", by="benchmark"))
            assert redeemed is not None
            sessions.append(redeemed[1])
    with served(database) as address:
        start = threading.Barrier(flags.annotators + 1)
        port = address.rpartition(":")[2]
        crew = [Annotator(address, f"prefloop-{port}={each}", flags.votes, flags.think, start) for each in sessions]
        for annotator in crew:
            annotator.start()
        start.wait()
        started = time.perf_counter()
        for annotator in crew:
            annotator.join()
        seconds = time.perf_counter() - started
    num_votes = sum(annotator.num_saved for annotator in crew)
    waits = {path: np.concatenate([each.took[path] for each in crew]) * 1000 for path in ("/task", "/vote")}
    return {
        "annotators": flags.annotators,
        "items": flags.items,
        "think_seconds": flags.think,
        "num_votes": num_votes,
        "seconds": round(seconds, 2),
        "votes_per_second": round(num_votes / seconds, 2),
        **{
            f"{path[1:]}_ms": {name: round(float(np.percentile(found, q)), 1) for name, q in (("p50", 50), ("p95", 95))}
            for path, found in waits.items()
        },
        "load_average": os.getloadavg()[0],
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, SQLite {sqlite3.sqlite_version}",
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_load", allow_abbrev=False)
    parser.add_argument("--annotators", type=int, default=50, help="who vote at once")
    parser.add_argument("--votes", type=int, default=40, help="of each")
    parser.add_argument("--items", type=int, default=5000, help="pairs in the queue")
    parser.add_argument("--think", type=float, default=0.0, help="seconds between a task and its vote")
    parser.add_argument("--folder", type=Path, help="where the database is made; by default a temporary directory")
    parser.add_argument("--database", help="URL of an empty PostgreSQL database, in place of a SQLite file")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="JSON to FILE, or in place of the table")
    flags = parser.parse_args(words)
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        answer = measure(Path(folder), flags)
    header = ["annotators", "think", "votes", "votes a second", "task p50, p95", "vote p50, p95"]
    row = [str(flags.annotators), f"{flags.think:g} s", str(answer["num_votes"]), str(answer["votes_per_second"])]
    row += [f"{each['p50']} ms, {each['p95']} ms" for each in (answer["task_ms"], answer["vote_ms"])]
    publish(flags, answer, [table(header, [row]), f"load average {answer['load_average']:.1f}; {answer['machine']}"])


if __name__ == "__main__":
    main()
