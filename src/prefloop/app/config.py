"""Settings of the labelling app."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, PositiveInt, field_validator

from prefloop.label.config import DatabaseSection, Quotas


class LabelServeConfig(DatabaseSection):
    """Serve the labelling and review app until interrupted, and print a link that signs its owner in, once."""

    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs public_url."""
    port: int = Field(8910, ge=0, lt=65536)
    """Port to listen on; 0 takes a free one."""
    public_url: str | None = None
    """https:// address under which people reach the app, through a proxy that ends TLS; none: this machine only."""
    owner: str = Field("owner", min_length=1, max_length=100)
    """Name of the owner whom the printed link signs in."""
    quotas: Quotas = Quotas()
    """What share of the work is for measuring the annotators."""
    max_body_bytes: PositiveInt = 256 * 1024
    """Largest request."""
    requests_per_minute: PositiveInt = 300
    """Requests of one person in a minute, on average; more are asked to wait."""
    sign_ins_per_minute: PositiveInt = 20
    """Tries to sign in, of everybody together, in a minute."""
    num_resamples: PositiveInt = 200
    """Bootstrap samples behind the intervals of the page of quality numbers."""
    runs: tuple[str, ...] = ()
    """Directories whose subdirectories are runs; none: runs are not shown."""
    registry: str | None = None
    """Directory of the registry; none: gate and ledger are not shown."""
    audits: str | None = None
    """Directory where the reports of audits are kept; none: they are not shown."""

    @field_validator("public_url")
    @classmethod
    def _is_an_https_origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise ValueError("give https://NAME or https://NAME:PORT, without a path")
        # As browsers say it: without the port that is understood.
        return f"https://{parts.netloc.lower().removesuffix(':443')}"
