"""The commands `label import`, `label invite` and `label backup`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefloop.label.config import BackupConfig, DatabaseSection, ImportConfig, InviteConfig
from prefloop.rundir import user_name
from prefloop.types import InputError

if TYPE_CHECKING:
    from prefloop.label.store import Store


def import_file(config: ImportConfig) -> dict[str, Any]:
    """Put a file's questions into the database, which is made where it is not there yet."""
    with opened(config, create=True) as store:
        from prefloop.label.intake import import_rows

        counts = import_rows(store, config.file, pairs_per_prompt=config.pairs_per_prompt, by=user_name())
    return {**counts, "next": f"prefloop label invite NAME{_where(config)}"}


def invite(config: InviteConfig) -> dict[str, Any]:
    """Make an invitation, shown only here."""
    with opened(config) as store:
        from prefloop.label import people

        token = people.invite(store, name=config.name, role=config.role, by=config.who or user_name())
    days = people.INVITATION_SECONDS / 86400
    return {
        "name": config.name,
        "role": config.role,
        "token": token,
        "expires": f"in {days:.0f} days, or when it is used",
        "next": f"prefloop label serve{_where(config)}",
    }


def backup(config: BackupConfig) -> dict[str, Any]:
    """Copy the database while people work, and answer what the copy holds."""
    with opened(config) as store:
        counted = store.backup(config.out)
    return {"out": config.out, "bytes": Path(config.out).stat().st_size, **counted}


def opened(config: DatabaseSection, *, create: bool = False) -> Store:
    """The database of a command. Raises InputError where the packages for it are missing."""
    try:
        from prefloop.label.store import open_store
    except ImportError as error:
        problem = f"the labelling database needs the package {error.name}"
        raise InputError(problem, remedy="pip install 'prefloop[app]'") from error
    return open_store(config.database, create=create)


def _where(config: DatabaseSection) -> str:
    if config.database == "label.sqlite":
        return ""
    # A URL may hold a password, which belongs into no log.
    return f" --database {'URL' if '://' in config.database else shlex.quote(config.database)}"
