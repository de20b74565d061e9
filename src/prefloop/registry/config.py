"""Settings of the registry's commands."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from prefloop.config import Section


class RegistrySection(Section):
    """What every command of the registry takes."""

    registry: str = "registry"
    """Directory of the registry."""


class RegisterConfig(RegistrySection):
    """Copy a model's weights into the registry and enter it into the ledger, as a new version of its name."""

    model: str
    """Model directory or finished run; a run also tells what the model was made from and optimised against."""
    name: str = Field("model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of which this is a new version."""
    role: Literal["policy", "reward"] | None = None
    """What kind of model it is; by default reward for a run of train reward, otherwise policy."""
    parents: tuple[str, ...] = ()
    """Models that it was made from: registered versions, model directories or runs."""
    data: tuple[str, ...] = ()
    """Files that it was trained on, for a model without a run."""
    reward: tuple[str, ...] = ()
    """Reward models, or preference data, that it was optimised against, for a model without a run."""
    who: str | None = None
    """Who registers it; by default the user of the operating system."""
    why: str = ""
    """Why, for the ledger."""


class ListConfig(RegistrySection):
    """All registered versions, and which is live."""


class PromoteConfig(RegistrySection):
    """Make a version live, at once and in whole. Exit code 1 where no gate allows it."""

    version: str
    """Version to promote: name:version, name for its newest, or 8 or more digits of its sha256."""
    override: bool = False
    """Promote although no gate's decision allows it; the ledger says so for ever. Needs why."""
    who: str | None = None
    """Who promotes it; by default the user of the operating system."""
    why: str = ""
    """Why, for the ledger."""

    @model_validator(mode="after")
    def _override_has_a_reason(self) -> PromoteConfig:
        if self.override and not self.why.strip():
            raise ValueError("an override needs --why")
        return self


class RollbackConfig(RegistrySection):
    """Make what was live before live again, byte for byte. Refused where nothing was."""

    who: str | None = None
    """Who rolls back; by default the user of the operating system."""
    why: str = ""
    """Why, for the ledger."""


class HistoryConfig(RegistrySection):
    """All events of the ledger: what happened when, by whom and why."""

    event: PositiveInt | None = None
    """Show this event in full, evidence included."""


class VerifyConfig(RegistrySection):
    """Is the ledger whole, and are the weights what was registered? Exit code 1 where not."""

    head: str | None = None
    """Hash of an event that you have written down elsewhere: it must be in the chain."""
