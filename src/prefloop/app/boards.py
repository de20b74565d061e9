"""Which boards an app can show: runs, audits, gate and ledger need a directory that whoever serves the app names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prefloop.app.config import LabelServeConfig
from prefloop.registry.store import is_registry
from prefloop.report.page import PageSection
from prefloop.rundir import MADE_AGAIN
from prefloop.types import InputError

PATIENCE_SECONDS = 3.0
"""How long a page waits for a registry that another command holds."""
MAX_REASON = 1000
"""Characters of a reason."""


@dataclass(frozen=True)
class Board:
    """One of them."""

    title: str
    is_there: Callable[[LabelServeConfig], bool]
    flag: str
    """What has to be given for it."""
    needs: str


def _has_registry(config: LabelServeConfig) -> bool:
    return config.registry is not None and is_registry(Path(config.registry))


BOARDS: Mapping[str, Board] = {
    "/runs": Board(
        "Runs",
        lambda config: any(Path(each).is_dir() for each in config.runs),
        "--runs runs",
        "a directory whose subdirectories are runs, as training commands make them",
    ),
    "/audits": Board(
        "Audits",
        lambda config: config.audits is not None and Path(config.audits).is_dir(),
        "--audits audits",
        "the directory in which `audit data` and `audit reward` keep their reports",
    ),
    "/gate": Board("Gate", _has_registry, "--registry registry", "a registry, as `model register` makes it"),
    "/ledger": Board("Ledger", _has_registry, "--registry registry", "a registry, as `model register` makes it"),
}


def is_offered(config: LabelServeConfig, path: str) -> bool:
    """Whether a page has something to show; those that are no boards always have."""
    return path not in BOARDS or BOARDS[path].is_there(config)


def shown(make: Callable[[], list[PageSection]], path: Path) -> list[PageSection]:
    """The sections that have something in them.

    Raises InputError where the files hold what no prefloop writes: what makes the pages of reports relies on that.
    """
    try:
        return [section for section in make() if section.blocks]
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"cannot be shown ({error})", path=path, remedy=MADE_AGAIN) from error
