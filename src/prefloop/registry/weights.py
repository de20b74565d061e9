"""Weights in the registry: copied in whole, kept under their sha256, and checked before they go live."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from prefloop.rundir import ABOUT, DISK_FULL, fsync_directory, read_json, sha256_of, write_json
from prefloop.types import InputError

HASHES = "hashes.json"
"""sha256 of weights -> signature of their files when they were last hashed."""


def copy_durably(source: Path, target: Path) -> None:
    """Copy the files of a directory into a new one, on disk when this returns."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        with copy.open("rb") as stream:
            os.fsync(stream.fileno())
    for directory in (target, *(path for path in target.rglob("*") if path.is_dir())):
        fsync_directory(directory)


def signature(directory: Path) -> str:
    """What tells without reading them that files are as they were: names, sizes, inodes and times, of the last change
    of state too, which nobody can set."""
    entries = []
    for file in sorted(path for path in directory.rglob("*") if path.is_file() and path.name not in ABOUT):
        stat = file.stat()
        times = (stat.st_mtime_ns, stat.st_ctime_ns)
        entries.append([os.fsdecode(file.relative_to(directory)), stat.st_size, stat.st_ino, *times])
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


class Weights:
    """The directory `versions/` of a registry. Whoever uses it holds the registry's lock."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.versions = root / "versions"

    def directory(self, sha256: str) -> Path:
        """Where the weights with this hash are kept."""
        return self.versions / sha256

    def problem(self, sha256: str, *, thoroughly: bool = False) -> str:
        """What is wrong with kept weights; empty where they have the hash under which they are kept.

        Reads them where their files have changed since they were last read, or `thoroughly`.
        """
        directory = self.directory(sha256)
        if not directory.is_dir():
            return "the weights are gone"
        found = signature(directory)
        cached = self._cached()
        if not thoroughly and cached.get(sha256) == found:
            return ""
        if sha256_of(directory) != sha256:
            return "the weights were altered"
        if cached.get(sha256) != found:
            self._remember({**cached, sha256: found})
        return ""

    def keep(self, copy: Path, sha256: str) -> None:
        """Move a copy, on disk already, to where weights with its hash are kept; a sound older one stays."""
        directory = self.directory(sha256)
        if directory.exists() and not self.problem(sha256, thoroughly=True):
            return
        self.versions.mkdir(exist_ok=True)
        if directory.exists():
            directory.rename(copy.with_name(f"{copy.name}.altered"))
        copy.rename(directory)
        fsync_directory(self.versions)
        self._remember({**self._cached(), sha256: signature(directory)})

    def _cached(self) -> dict[str, str]:
        try:
            return read_json(self._root / HASHES)
        except (FileNotFoundError, InputError):
            return {}

    def _remember(self, signatures: dict[str, str]) -> None:
        try:
            write_json(self._root / HASHES, signatures)
        except OSError as error:
            # Only time is lost: they are read again the next time.
            if error.errno not in DISK_FULL:
                raise
