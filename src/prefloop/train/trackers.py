"""Experiment trackers beside metrics.jsonl, through accelerate: TensorBoard, Weights & Biases, MLflow and others.

metrics.jsonl stays the truth. A tracker that does not start stops the command, since it was asked for; one that fails
later is dropped with one warning. A resumed run goes on in the tracker's same run, under the same step numbers.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from prefloop.console import say
from prefloop.fields import as_text
from prefloop.rundir import TRACKERS, write_json
from prefloop.train.config import TRACKER_PACKAGES, TrainConfig
from prefloop.types import InputError

PROJECT = "prefloop"
"""Project, or experiment, that runs are filed under, unless the tracker's own environment variable names another."""
PROJECT_VARIABLES = {"wandb": "WANDB_PROJECT", "comet_ml": "COMET_PROJECT_NAME"}
"""Where accelerate does not look at the variable itself."""


class Trackers:
    """The trackers of one run, open while training."""

    def __init__(self, trackers: dict[str, Any]) -> None:
        """`trackers`: accelerate's, started, by name. accelerate ships no types."""
        self._trackers = trackers

    @classmethod
    def start(cls, config: TrainConfig, run_path: Path, *, step: int) -> Trackers:
        """Start those that `config.report_to` names, to go on after `step`; none on any but the first process.

        Raises InputError naming the one that does not start.
        """
        names = tuple(dict.fromkeys(config.report_to))
        if not names or os.environ.get("RANK", "0") != "0":
            return cls({})
        from accelerate import PartialState  # type: ignore[import-untyped]

        # Not used here, but accelerate's trackers log through it.
        PartialState()
        directory = run_path / TRACKERS
        directory.mkdir(exist_ok=True)
        identities: dict[str, str] = _read(directory / "ids.json")
        started = cls({})
        try:
            for name in names:
                started._trackers[name] = _start(name, config, directory, identities, step)
        except BaseException:
            started.finish()
            raise
        write_json(directory / "ids.json", identities)
        return started

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of one step, under their names in metrics.jsonl."""
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.log(dict(metrics), step=step)
            # Whatever a tracker's client or network raises: it must not stop a run.
            except Exception as error:
                _warn(name, error)
                del self._trackers[name]

    def finish(self) -> None:
        """Flush and close all."""
        for name, tracker in self._trackers.items():
            try:
                tracker.finish()
            except Exception as error:
                _warn(name, error)
        self._trackers = {}

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish()


def flat_config(config: TrainConfig) -> dict[str, bool | int | float | str]:
    """Dotted key -> value; what is no scalar as a user would type it."""

    def flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in tree.items():
            if isinstance(value, Mapping):
                found |= flat(value, f"{prefix}{key}.")
            else:
                found[prefix + key] = value if isinstance(value, bool | int | float | str) else as_text(value)
        return found

    return flat(config.model_dump(mode="json"), "")


def _start(name: str, config: TrainConfig, directory: Path, identities: dict[str, str], step: int) -> Any:
    """One tracker, started; what it is found again by is put into `identities`."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS  # type: ignore[import-untyped]

    known = identities.get(name)
    identity = known or uuid.uuid4().hex
    try:
        tracker = LOGGER_TYPE_TO_CLASS[name](
            _title(name, directory),
            **_arguments(name, directory, identity, resumed=known is not None, step=step),
        )
        # Which process reports is decided above; accelerate would set up a process group to find out.
        tracker.main_process_only = False
        tracker.start()
        if known is None:
            tracker.store_init_configuration(flat_config(config))
    except Exception as error:
        missing = isinstance(error, ImportError)
        raise InputError(
            f"{name} does not start: {type(error).__name__}: {error}",
            field="report_to",
            remedy=f"pip install {TRACKER_PACKAGES[name]}" if missing else "set it up, or leave it out",
        ) from error
    identities[name] = _identity(name, tracker) or identity
    return tracker


def _title(name: str, directory: Path) -> str:
    """The first argument of a tracker's constructor: for most the project, not the run."""
    match name:
        case "tensorboard":
            return name
        case "aim":
            return directory.parent.resolve().name
    return os.environ.get(PROJECT_VARIABLES.get(name, ""), PROJECT)


def _arguments(name: str, directory: Path, identity: str, *, resumed: bool, step: int) -> dict[str, Any]:
    """What each tracker's constructor takes to file a run, and to find it again when the run is resumed."""
    run_name = directory.parent.resolve().name
    match name:
        case "tensorboard":
            # Points after `step` are of steps that are now done again. Files are named by the second they are made in.
            suffix = f".{step}.{os.getpid()}"
            purge_step = step + 1 if resumed else None
            return {"logging_dir": str(directory), "purge_step": purge_step, "filename_suffix": suffix}
        case "wandb":
            return {"name": run_name, "id": identity, "resume": "allow", "dir": str(directory)}
        case "trackio":
            return {"name": f"{run_name}-{identity[:8]}", "resume": "allow"}
        case "swanlab":
            return {"name": run_name, "id": identity, "resume": "allow"}
        case "comet_ml":
            return {"experiment_key": identity, "mode": "get_or_create"}
        case "mlflow":
            return {"run_name": run_name, "run_id": identity if resumed else None}
        case "aim":
            return {"logging_dir": str(directory), "run_hash": identity if resumed else None}
        case "clearml":
            # 0: steps are counted from the beginning, also by a task that is continued.
            again = {"reuse_last_task_id": identity, "continue_last_task": 0}
            return {"task_name": run_name, **(again if resumed else {"reuse_last_task_id": False})}
        case "dvclive":
            return {"dir": str(directory / name), "resume": resumed, "dvcyaml": None}
    raise AssertionError(name)


def _identity(name: str, tracker: Any) -> str | None:
    """The name that the tracker itself gave the run, where it takes none from us."""
    match name:
        case "mlflow":
            return str(tracker.tracker.info.run_id)
        case "aim":
            return str(tracker.tracker.hash)
        case "clearml":
            return str(tracker.tracker.id)
    return None


def _read(path: Path) -> dict[str, str]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _warn(name: str, error: Exception) -> None:
    problem = " ".join(f"{type(error).__name__}: {error}".split())
    say(f"warning: {name} failed ({problem}); the run goes on without it, metrics.jsonl has everything")
