"""What stands before a reward server's application: host name, bearer token, size of the body. Plain ASGI."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Lets a request through to `app` only with a known host name, the token, and a body within the limit.

    `hosts` are the names a `Host` header may have, None for any: a page in a browser of this machine can reach a server
    on it under a name of its own (DNS rebinding), but cannot send another `Host`. A body is read whole before `app`
    runs, so the limit holds without a Content-Length too.
    """

    def __init__(self, app: App, *, hosts: frozenset[str] | None, token: str | None, max_body_bytes: int) -> None:
        self.app, self.hosts, self.max_body_bytes = app, hosts, max_body_bytes
        self.expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        assert scope["type"] == "http", "the server runs without lifespan and websockets"
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        refusal = self._refusal(headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        body = bytearray()
        more = True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event.get("body", b"")
            if len(body) > self.max_body_bytes:
                await _refuse(send, *self._too_large())
                return
            more = event.get("more_body", False)
        waiting = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Event:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, replay, send)

    def _refusal(self, headers: list[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        """Status and text for a request that is refused by its headers alone."""
        named = [value for name, value in headers if name == b"host"]
        if self.hosts is not None and (len(named) != 1 or _host_name(named[0]) not in self.hosts):
            return 421, f"this server answers only to {', '.join(sorted(self.hosts))}"
        given = [value for name, value in headers if name == b"authorization"]
        if self.expected is not None and (len(given) != 1 or not hmac.compare_digest(given[0], self.expected)):
            return 401, "give the server's token as `Authorization: Bearer TOKEN`"
        announced = [value for name, value in headers if name == b"content-length"]
        if announced and int(announced[0]) > self.max_body_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> tuple[int, str]:
        return 413, f"a request holds at most {self.max_body_bytes} bytes; send fewer responses at once"


def _host_name(header: bytes) -> str | None:
    """The name in a `Host` header, without port and brackets; None if there is none."""
    try:
        return urlsplit(f"//{header.decode('ascii')}").hostname
    except ValueError:
        return None


async def _refuse(send: Send, status: int, text: str) -> None:
    body = json.dumps({"detail": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    # What the client still sends is not read, so the connection cannot serve another request.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
