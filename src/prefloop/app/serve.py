"""The command `label serve`: the app on an address, until interrupted."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from prefloop.app.config import LabelServeConfig
from prefloop.console import say
from prefloop.label.commands import opened
from prefloop.reward.address import allowed_hosts, is_loopback, listen, not_installed, server_of
from prefloop.rundir import user_name
from prefloop.types import InputError


def serve(config: LabelServeConfig) -> dict[str, Any]:
    """Serve until interrupted.

    Raises InputError for an address that others can reach without TLS, and where a package of the extra is missing.
    """
    if config.public_url is None and not is_loopback(config.host):
        raise InputError(
            f"others can reach {config.host}, and without TLS anybody between can read their sessions",
            field="host",
            remedy="put a proxy with TLS before it and give --public-url https://NAME, or --host 127.0.0.1",
        )
    try:
        from prefloop.app.web import make_app
        from prefloop.label.people import invite
    except ImportError as error:
        raise not_installed(error) from error
    with listen(config.host, config.port) as listening, opened(config) as store:
        port = listening.getsockname()[1]
        name = f"[{config.host}]" if ":" in config.host else config.host
        url = config.public_url or f"http://{name}:{port}"
        app = make_app(store, config, url=url, port=port, hosts=hosts_of(config))
        server = server_of(app)
        token = invite(store, name=config.owner, role="owner", by=user_name())
        say(f"labelling app: {url} (database {store.database}); Ctrl-C ends it")
        say(f"sign in as {config.owner}, with this link, once: {url}/enter#{token}")
        server.run(sockets=[listening])
    return {"url": url, "database": store.database}


def hosts_of(config: LabelServeConfig) -> frozenset[str]:
    """Names under which the app may be asked: its address, and that of the proxy before it."""
    hosts = allowed_hosts(config.host) or frozenset()
    if config.public_url is None:
        return hosts
    return hosts | {urlsplit(config.public_url).hostname or ""}
