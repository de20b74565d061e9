"""Where a server of ours listens, and under which names it may be asked."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from prefloop.reward.guard import App
from prefloop.types import InputError

if TYPE_CHECKING:
    import uvicorn

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed_hosts(host: str) -> frozenset[str] | None:
    """The names under which a server bound to `host` may be asked; None where it is bound to every address.

    Then its names are unknown, and the token alone keeps others out.
    """
    if host in ANY_ADDRESS:
        return None
    return frozenset({host.lower()}) | (LOOPBACK_NAMES if is_loopback(host) else frozenset())


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InputError where the address cannot be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        problem = f"cannot listen on {host} port {port} ({(error.strerror or str(error)).lower()})"
        raise InputError(problem, field="port", remedy="give another --port or --host") from error


def server_of(app: App) -> uvicorn.Server:
    """One worker that serves `app` on sockets that it is given. Raises InputError where uvicorn is not installed."""
    try:
        import uvicorn
    except ImportError as error:
        raise not_installed(error) from error
    return uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=10,
        )
    )


def not_installed(error: ImportError) -> InputError:
    """What to say where a package of the extra `app` is missing."""
    return InputError(f"serving needs the package {error.name}", remedy="pip install 'prefloop[app]'")
