"""Registries with small models in them, and commands in processes of their own that can be killed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefloop.registry.config import PromoteConfig, RegisterConfig
from prefloop.registry.ledger import Event, Ledger
from prefloop.registry.register import register
from prefloop.registry.store import opened
from prefloop.registry.switch import promote

# Forks a child for each line of standard input, a list of command lines that run at the same time: they start together
# when all are forked. Says the children's process ids, then their exit codes.
SERVER = """
import json, os, signal, sys
from prefloop.cli import main
import prefloop.answer, prefloop.config, prefloop.flags, prefloop.recipes.gate
import prefloop.registry.look, prefloop.registry.register, prefloop.registry.switch

def count(strike, file):
    # Ends the process at a certain call or return inside Registry.append; without one says how many there are.
    seen = 0
    inside = 0
    def note(frame, event, _):
        nonlocal seen, inside
        if frame.f_code.co_name == "append" and frame.f_code.co_filename.endswith("store.py"):
            inside += {"call": 1, "return": -1}.get(event, 0)
            if event == "return" and file:
                with open(file, "w") as out:
                    out.write(str(seen))
        if inside:
            seen += 1
            if seen == strike:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(note)

for line in sys.stdin:
    orders = json.loads(line)
    ready, go = os.pipe()
    children = []
    for order in orders:
        child = os.fork()
        if child == 0:
            os.close(go)
            said = os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.read(ready, 1)
            if order["count"] or order["strike"]:
                count(order["strike"], order["count"])
            code = main(order["words"])
            sys.stdout.flush()
            os._exit(code)
        children.append(child)
    os.close(ready)
    print(json.dumps(children), flush=True)
    os.close(go)
    # Not reaped before it is asked for: until then its process id is nobody else's.
    sys.stdin.readline()
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
"""


class Server:
    """Runs commands in forked processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=directory
        )

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _answer(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def start(self, *commands: list[str], strike: int = 0, count: str = "") -> list[int]:
        """Start command lines together; gives their process ids. `strike`: the call at which they kill themselves."""
        assert self.process.stdin
        orders = [
            {"words": words, "said": str(self.directory / f"said-{number}.txt"), "strike": strike, "count": count}
            for number, words in enumerate(commands)
        ]
        self.process.stdin.write(json.dumps(orders) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def codes(self) -> list[int]:
        """Their exit codes, when all have ended; minus the signal for one that was killed."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def said(self, number: int = 0) -> str:
        """What one of them printed."""
        return (self.directory / f"said-{number}.txt").read_text()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Processes that work in tmp_path."""
    running = Server(tmp_path)
    yield running
    running.close()


def make_model(path: Path, seed: int, size: int = 2000) -> Path:
    """A directory that could be a model: random bytes under the names of one."""
    generator = random.Random(seed)
    (path / "tokenizer").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(generator.randbytes(size))
    (path / "config.json").write_text(json.dumps({"seed": seed}))
    (path / "tokenizer" / "vocab.txt").write_bytes(generator.randbytes(50))
    (path / "README.md").write_text(f"model {seed}")
    return path


def bytes_of(directory: Path) -> dict[str, str]:
    """Every file below, by its hash."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclasses.dataclass
class Bench:
    """A registry with versions helper:1, helper:2, ... and the models that they were made from."""

    root: Path
    models: list[Path]

    def promote(self, version: str, **settings: Any) -> dict[str, Any]:
        """Promote, overriding the gate unless told otherwise."""
        settings = {"override": True, "why": "a test", **settings}
        return promote(PromoteConfig(registry=str(self.root), version=version, **settings))

    def decide(self, version: int, verdict: str = "promote", *, incumbent: int | None = None) -> None:
        """Record a decision, as the gate does."""
        with opened(self.root) as registry:
            versions = registry.state.versions
            values = {
                "candidate": versions[version - 1].weights_sha256,
                "incumbent": None if incumbent is None else versions[incumbent - 1].weights_sha256,
                "verdict": verdict,
                "label": versions[version - 1].label,
            }
            registry.append("decided", values, who="gate", why="")

    def live_bytes(self) -> dict[str, str]:
        """What a serving process finds under the link."""
        return bytes_of(self.root / "live")

    def live_number(self) -> int | None:
        """Which model's bytes are live, byte for byte; None where nothing is live."""
        if not os.path.lexists(self.root / "live"):
            return None
        found = self.live_bytes()
        (number,) = [number for number, model in enumerate(self.models, start=1) if bytes_of(model) == found]
        return number

    def events(self) -> list[Event]:
        with opened(self.root) as registry:
            return registry.events


@pytest.fixture
def make_bench(tmp_path: Path) -> Callable[..., Bench]:
    """A registry with so many versions, none of them live."""

    def make(num: int = 2, *, name: str = "registry", size: int = 2000) -> Bench:
        root = tmp_path / name
        models = [make_model(tmp_path / f"{name}-models" / str(seed), seed, size) for seed in range(num)]
        with _unsynced():
            for model in models:
                register(RegisterConfig(registry=str(root), model=str(model), name="helper"))
        return Bench(root, models)

    return make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """Three versions; helper:1 and then helper:2 have gone live."""
    made = make_bench(3)
    with _unsynced():
        made.promote("helper:1")
        made.promote("helper:2")
    return made


@pytest.fixture
def unsynced() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Inside, nothing waits for the disk: for what is only prepared."""
    return _unsynced


@contextlib.contextmanager
def _unsynced() -> Iterator[None]:
    real = Ledger._open

    def without_waiting(ledger: Ledger) -> None:
        real(ledger)
        ledger._connection.execute("PRAGMA synchronous = OFF")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(Ledger, "_open", without_waiting)
        yield
