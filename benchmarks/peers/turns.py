"""Processes that take their steps in turn, so that a busy minute of the machine slows all of them alike."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from prefloop.types import EnvironmentStop

Report = Mapping[str, Any]


class Runner:
    """A measured process (see `meter`)."""

    def __init__(self, name: str, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 -- lives as long as the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment
        )
        self.facts = self._answer()
        self.reports: list[Report] = []

    def step(self) -> Report:
        """Let it do a step."""
        self.reports.append(self.ask("step"))
        return self.reports[-1]

    def ask(self, question: str) -> Report:
        """What it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Report:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise EnvironmentStop(f"{self.name} ended with {self._process.returncode}:\n{self._errors.read()[-3000:]}")
        answer: Report = json.loads(line)
        return answer

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def python_of(peer: Path) -> Path:
    """The interpreter of a peer's environment. Raises EnvironmentStop if it has not been made."""
    python = peer / "bin" / "python"
    if not python.exists():
        raise EnvironmentStop(f"no {python}: make bench-peers")
    return python.absolute()
