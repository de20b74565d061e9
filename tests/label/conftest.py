"""Databases of both kinds with questions and people in them, and annotators in processes of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from prefloop.label.intake import import_rows
from prefloop.label.people import invite, redeem
from prefloop.label.store import Store, open_store
from prefloop.rundir import write_rows

VOTER = Path(__file__).with_name("voter.py")


def comparison(number: int, **others: Any) -> dict[str, Any]:
    """A row to import."""
    return {"prompt": f"Question {number}?", "response_a": f"yes, {number}", "response_b": f"no, {number}", **others}


def fill(store: Store, directory: Path, num_items: int, num_gold: int = 0) -> None:
    """Import so many questions, and so many gold ones."""
    rows = [comparison(number) for number in range(num_items)]
    rows += [comparison(10**6 + number, gold="a") for number in range(num_gold)]
    write_rows(directory / "rows.jsonl", rows)
    import_rows(store, directory / "rows.jsonl")


def join(store: Store, name: str = "ann", role: Any = "annotator") -> str:
    """The id of a new person."""
    redeemed = redeem(store, invite(store, name=name, role=role, by="test"))
    assert redeemed is not None
    return redeemed[0].annotator_id


def unsynced(store: Store) -> None:
    """From now on nothing waits for the disk: for what is only prepared or looked at."""
    if store.is_sqlite:
        event.listen(store.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))


@dataclasses.dataclass
class Clock:
    """A clock that stands still until it is set."""

    time: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty SQLite database. People have the same ids each time, and what is drawn for them is drawn from those."""
    numbers = itertools.count(1)
    monkeypatch.setattr(secrets, "token_hex", lambda size: f"{next(numbers):0{2 * size}x}")
    with open_store(str(tmp_path / "label.sqlite"), clock=clock) as opened:
        unsynced(opened)
        yield opened


class Voters:
    """A process with one child for each annotator."""

    def __init__(
        self, database: str, diaries: Path, num_votes: int, quotas: dict[str, Any], who: Sequence[str]
    ) -> None:
        diaries.mkdir(exist_ok=True)
        words = [sys.executable, str(VOTER), database, str(diaries), str(num_votes), json.dumps(quotas), *who]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.pids: list[int] = json.loads(self.process.stdout.readline())

    def codes(self) -> list[int]:
        """Exit codes of the children when all have ended, minus the signal for one that was killed."""
        said, errors = self.process.communicate("\n", timeout=600)
        assert not errors, errors
        return json.loads(said)


def diary(path: Path) -> list[dict[str, Any]]:
    """What an annotator wrote down."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _postgres_tools() -> tuple[Path, list[str]]:
    """The directory of the programs, and what runs them as somebody else than root, whom PostgreSQL refuses."""
    found = shutil.which("initdb") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed: no initdb")
    pytest.importorskip("psycopg", reason="PostgreSQL is not tested: psycopg is not installed")
    if os.getuid() != 0:
        return Path(found).resolve().parent, []
    names = {each.pw_name for each in pwd.getpwall()}
    user = next((name for name in ("postgres", "nobody") if name in names), None)
    if user is None or shutil.which("runuser") is None:
        pytest.skip("PostgreSQL does not run as root, and there is nobody else here")
    return Path(found).resolve().parent, ["runuser", "-u", user, "--"]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server on loopback, in a directory that goes with it; its URL without a database."""
    programs, runner = _postgres_tools()
    with contextlib.ExitStack() as stack:
        # Not below pytest's own directory, which only its user may enter.
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prefloop-pg-", dir="/tmp")))
        if runner:
            shutil.chown(home, runner[2])
        data = home / "data"

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([*runner, *words], capture_output=True, text=True, cwd=home, check=False)

        made = run(str(programs / "initdb"), "-D", str(data), "-U", "prefloop", "-A", "trust", "-N", "-E", "UTF8")
        if made.returncode:
            pytest.skip(f"PostgreSQL cannot be set up here: {made.stderr.strip()[-300:]}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = f"-h 127.0.0.1 -p {port} -k {home} -c max_connections=200"
        control = [str(programs / "pg_ctl"), "-D", str(data), "-w"]
        started = run(*control, "-l", str(home / "log"), "-o", settings, "start")
        if started.returncode:
            pytest.skip(f"PostgreSQL cannot be started here: {started.stdout.strip()[-300:]}")
        stack.callback(run, *control, "-m", "immediate", "stop")
        yield f"postgresql://prefloop@127.0.0.1:{port}"


@pytest.fixture
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """A new, empty database of a kind: "sqlite" or "postgresql"."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            return str(tmp_path / "label.sqlite")
        import psycopg

        server = request.getfixturevalue("postgres_server")
        name = f"label_{time.monotonic_ns()}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{server}/{name}"

    return make
