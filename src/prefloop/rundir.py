"""Run directories: one configuration, its inputs by hash, metrics, and a result that is written last.

    config.yaml    the whole merged config
    inputs.json    every input with its sha256, code and package versions, seed
    metrics.jsonl  one object per step
    result.json    written last: its existence means that the run is done

A directory belongs to one config. Opening it again with the same config resumes; with another, it is refused. A
directory in which nothing was made yet (the command stopped at bad input) belongs to nobody: the next one takes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import getpass
import hashlib
import json
import math
import os
import platform
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from prefloop import __version__
from prefloop.config import Section, config_hash, differing_keys, dump_yaml
from prefloop.console import say
from prefloop.types import EnvironmentStop, InputError, RunResult
from prefloop.yaml_tree import read_yaml

MADE_AGAIN = "run the command that made it again with this version of prefloop"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
METRICS = "metrics.jsonl"
ALARMS = "alarms.jsonl"
"""What the monitor told of a policy run."""
TRACKERS = "trackers"
"""Directory of a run in which experiment trackers keep their files."""
NOT_COMPARED = ("out", "report_to", "accept_findings")
"""Settings that change none of a run's results (where they go, which findings of an audit are borne): a resumed run may
have others."""
ABOUT = frozenset({"prefloop-audit.json", "README.md"})
"""Files of a directory that speak about its content and are no part of it: what is written there once a model has been
judged must not make it another model."""
InputEntry = Mapping[str, Any]
"""What inputs.json says of an input: path, sha256, audit (its verdict, or "none")."""
VERSIONED_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "peft", "numpy", "scipy")


def fsync_directory(path: Path) -> None:
    """Make a rename inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, patience_seconds: float = math.inf) -> Iterator[None]:
    """Hold a lock file; waits for whoever holds it. Raises EnvironmentStop where that takes too long."""
    with path.open("w") as file:
        end = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if end == math.inf else fcntl.LOCK_NB))
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise EnvironmentStop(f"{path.parent} is in use by another command; try again") from None
                time.sleep(0.02)
        yield


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[str]]:
    """Open a text file that appears under its name, whole and on disk, only when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_directory(path.parent)
    except OSError as error:
        # A write that finds the disk full does not say which file it was for, and nobody knows the temporary one.
        if (error.errno in DISK_FULL and error.filename is None) or error.filename == str(temporary):
            error.filename = str(path)
        raise
    finally:
        # Renamed by now, or never made: then the error that says why is on its way.
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    with atomic_file(path) as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON Lines, atomically."""
    with atomic_file(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object that a file of a run holds. Raises InputError where it holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"is not JSON ({error})", path=path, remedy=MADE_AGAIN) from None
    if not isinstance(value, dict):
        raise InputError("is not a JSON object", path=path, remedy=MADE_AGAIN)
    return value


def read_section(path: Path, key: str) -> dict[str, Any]:
    """The object under `key` in a JSON file of a run. Raises InputError where there is none."""
    section = read_json(path).get(key)
    if not isinstance(section, dict):
        raise InputError("is missing or no object", path=path, field=key, remedy=MADE_AGAIN)
    return section


def user_name() -> str:
    """The name of the user, or the number where the system has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def output_file(path: str, field: str = "out") -> Path:
    """A file that a command is to write. Raises InputError, before any work is done, where that is impossible."""
    target = Path(path)
    if target.is_dir():
        raise InputError("is a directory", path=path, field=field, remedy="give a file to write")
    if not target.parent.is_dir():
        raise InputError("no such directory", path=target.parent, field=field, remedy="make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError("may not be written to", path=target.parent, field=field, remedy="give a file elsewhere")
    return target


def sha256_of(path: Path) -> str:
    """sha256 of a file, or of a directory's files (names, sizes and contents, in name order) without those in ABOUT."""
    digest = hashlib.sha256()
    inside = (file for file in path.rglob("*") if file.is_file() and file.name not in ABOUT)
    files = [path] if path.is_file() else sorted(inside)
    for file in files:
        if file != path:
            # With the size: the end of one file and the name of the next must not pass for a longer first file.
            digest.update(os.fsencode(file.relative_to(path)) + b"\0%d\0" % file.stat().st_size)
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def resolve_model(path: str, field: str, *, output: str = "model") -> Path:
    """The directory that an input names: itself, or of a finished run the output named so, or else its model.

    Raises InputError if there is none, or if the run is not finished.
    """
    directory = Path(path)
    if not directory.exists():
        raise InputError("no such directory", path=path, field=field, remedy="give a model directory or a finished run")
    if not directory.is_dir():
        raise InputError("is a file", path=path, field=field, remedy="give a model directory or a finished run")
    if (directory / "result.json").exists():
        outputs = read_section(directory / "result.json", "outputs")
        name = output if output in outputs else "model"
        if name not in outputs:
            made = ", ".join(outputs) or "nothing"
            raise InputError(f"this run made no {output} (it made: {made})", path=path, field=field)
        return directory / str(outputs[name])
    if (directory / "inputs.json").exists():
        raise InputError(
            "this run is not finished", path=path, field=field, remedy="run its command again: it resumes by itself"
        )
    return directory


def inputs_of_run(path: str, field: str) -> list[str]:
    """The paths of what a run recorded as the inputs of a field; none where `path` is no run directory."""
    record = Path(path) / "inputs.json"
    if not record.exists():
        return []
    found = read_section(record, "inputs")
    return [str(entry["path"]) for name, entry in found.items() if name.partition(":")[0] == field]


class RunDir:
    """One run on disk, held by a lock while open. Use as a context manager."""

    def __init__(
        self,
        command: str,
        config: Section,
        inputs: Mapping[str, Path],
        audit_of: Callable[[Mapping[str, InputEntry]], Mapping[str, InputEntry]] | None = None,
    ) -> None:
        """Claim the directory `config.out` (default `runs/<command>-<hash>`) for `config`.

        `inputs` has what is read, by name: `field`, or `field:which one`. `audit_of` returns the entries of those that
        want an audit, verdict included, and raises Refusal where one forbids the run (`audits.audit_lookup`).

        Raises InputError if an input does not exist, and if the directory belongs to another config, holds other
        files, or is in use.
        """
        for name, file in inputs.items():
            if not file.exists():
                raise InputError("no such file", path=file, field=name.partition(":")[0])
        self.command, self.config, self._audit_of = command, config, audit_of
        out: str | None = getattr(config, "out", None)
        default = f"runs/{command.replace(' ', '-')}-{config_hash(config, NOT_COMPARED)[:8]}"
        self.path = Path(default if out is None else out)
        self._claim()
        self._lock = (self.path / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._discard_half_written()
            self._record(inputs)
        except BlockingIOError:
            self._lock.close()
            raise InputError(
                "another process is running here", path=self.path, remedy="wait for it, or give another --out"
            ) from None
        except BaseException:
            self._lock.close()
            raise
        say(f"run directory: {self.path}")

    def _claim(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError("is a file", path=self.path, field="out", remedy="give a directory")
        if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / "lock").exists():
            raise InputError(
                "holds files that are no run of prefloop", path=self.path, field="out", remedy="give another --out"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise
            problem = f"this directory cannot be made ({(error.strerror or str(error)).lower()})"
            raise InputError(problem, path=self.path, field="out", remedy="give another --out") from error

    def _discard_half_written(self) -> None:
        """Delete what `atomic_file` left where a process was killed in the middle of it."""
        for directory in (self.path, self.path / "rollouts"):
            for leftover in directory.glob(".*.tmp"):
                if leftover.is_file():
                    leftover.unlink()

    def _begun(self) -> bool:
        """Whether anything was made here beside the record of config and inputs; half-written files do not count."""
        own = {"lock", "config.yaml", "inputs.json", TRACKERS}
        files = (file.relative_to(self.path).parts for file in self.path.rglob("*") if file.is_file())
        return any(parts[0] not in own and not any(part[0] == "." for part in parts) for parts in files)

    def _record(self, inputs: Mapping[str, Path]) -> None:
        config_path, inputs_path = self.path / "config.yaml", self.path / "inputs.json"
        hashes: dict[str, InputEntry] = {
            name: {"path": str(path), "sha256": sha256_of(path), "audit": "none"} for name, path in inputs.items()
        }
        if self._audit_of is not None and not (self.path / "result.json").exists():
            hashes |= self._audit_of(hashes)
        if inputs_path.exists() and self._begun():
            self._compare(config_path, inputs_path, hashes)
            return
        with atomic_file(config_path) as file:
            file.write(dump_yaml(self.config))
        installed = {dist.name: dist.version for dist in metadata.distributions() if dist.name in VERSIONED_PACKAGES}
        record = {
            "command": self.command,
            "inputs": hashes,
            "prefloop": __version__,
            "python": platform.python_version(),
            "packages": installed,
            "seed": getattr(self.config, "seed", None),
        }
        write_json(inputs_path, record)

    def _compare(self, config_path: Path, inputs_path: Path, hashes: Mapping[str, InputEntry]) -> None:
        before, recorded = read_json(inputs_path).get("command"), read_section(inputs_path, "inputs")
        if before != self.command:
            raise InputError(
                f"this directory belongs to `{before}`",
                path=self.path,
                field="out",
                remedy="give another --out",
            )
        old, new = read_yaml(config_path).tree, self.config.model_dump(mode="json")
        differing = [key for key in differing_keys(old, new) if key not in NOT_COMPARED]
        differing += [
            f"{name} (its content changed)"
            for name, entry in hashes.items()
            if recorded.get(name, entry)["sha256"] != entry["sha256"]
        ]
        if differing:
            raise InputError(
                f"this directory belongs to another config; these differ: {', '.join(differing)}",
                path=self.path,
                field="out",
                remedy="give another --out, or the config it was started with",
            )

    def __enter__(self) -> RunDir:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.close()
        say(f"run directory: {self.path}")

    @property
    def quoted(self) -> str:
        """The path, fit for a shell."""
        return shlex.quote(str(self.path))

    @property
    def finished(self) -> RunResult | None:
        """The result, if the run is already done."""
        path = self.path / "result.json"
        if not path.exists():
            return None
        known = {field.name for field in dataclasses.fields(RunResult)}
        stored = {key: value for key, value in read_json(path).items() if key in known}
        if lacking := sorted(known - stored.keys()):
            raise InputError("is missing", path=path, field=lacking[0], remedy=MADE_AGAIN)
        say(f"already finished: {path}")
        return RunResult(**stored)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line to `metrics.jsonl`; what is not finite becomes null, since JSON has no word for it."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite({"step": step, **metrics}), allow_nan=False) + "\n")

    def sync(self) -> None:
        """Have metrics and rollouts on disk, so that no checkpoint outlives the log of the steps before it."""
        for path in self._step_files():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            fsync_directory(path.parent)

    def forget_after(self, step: int, *, logged: int | None = None) -> None:
        """Drop the rollouts of steps after `step`, and the metrics of those after `logged` (by default `step` too): a
        resumed run does those steps again.

        Raises InputError for a line that cannot be read, unless it is the last one, which a crash may have cut off.
        """
        for path in self._step_files():
            _keep_until(path, step if logged is None or path.name != METRICS else logged)

    def _step_files(self) -> list[Path]:
        files = (self.path / METRICS, self.path / "rollouts" / "rollouts.jsonl")
        return [path for path in files if path.exists()]

    def finish(
        self,
        *,
        stopped: str,
        metrics: Mapping[str, Any],
        outputs: Mapping[str, str],
        answer: Mapping[str, Any] | None = None,
        next_command: str = "",
    ) -> RunResult:
        """Write `result.json`, last and atomically; what is not finite becomes null."""
        result = RunResult(str(self.path), self.command, stopped, dict(metrics), dict(outputs), next_command)
        stored = dataclasses.asdict(result)
        stored |= {} if answer is None else {"answer": dict(answer)}
        write_json(self.path / "result.json", _finite(stored))
        return result


def _finite(value: Any) -> Any:
    """`value` with None for NaN and infinities."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _keep_until(path: Path, step: int) -> None:
    """Rewrite a JSON Lines file without the rows of later steps, and without a last line that was never finished."""
    # Read as bytes, where only a newline ends a line: the text of a response may hold other separators, such as U+2028.
    with path.open("rb") as old, atomic_file(path) as new:
        for number, line in enumerate(old, start=1):
            if not line.endswith(b"\n"):
                continue
            try:
                wanted = json.loads(line)["step"] <= step
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"this line of the run's log is damaged ({error})",
                    path=path,
                    line=number,
                    remedy="restore the file, or delete the run directory and begin again",
                ) from error
            if wanted:
                new.write(line.decode("utf-8"))
