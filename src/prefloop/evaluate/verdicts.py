"""What a judge has said so far, on disk: a run that stops in the middle asks nothing twice."""

from __future__ import annotations

import json
from pathlib import Path


class Verdicts:
    """A file of JSON Lines, one verdict each. A last line that a crash cut off is written over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, float | None] = {}
        whole = b""
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            if line.endswith(b"\n"):
                row = json.loads(line)
                self._known[row["key"]] = row["second_preferred"]
                whole += line
        if path.exists() and len(whole) < path.stat().st_size:
            path.write_bytes(whole)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> float | None:
        return self._known[key]

    def __len__(self) -> int:
        return len(self._known)

    def add(self, key: str, second_preferred: float | None) -> None:
        """Keep a verdict, on disk at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "second_preferred": second_preferred}) + "\n")
        self._known[key] = second_preferred
