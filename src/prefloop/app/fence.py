"""What stands before the whole app, whatever the route: where a request comes from, and what a page may do. Plain ASGI.

A browser says of itself where a request comes from (Sec-Fetch-Site, Origin), and no page can make it lie. So whatever
changes something must come from a page of this app; a session's cookie alone is not enough, and forms need no token.
"""

from __future__ import annotations

import json

from prefloop.reward.guard import App, Event, Receive, Scope, Send

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types prefloop",
    )
)
"""Nothing that a model wrote can run, or load anything from anywhere; what is not named here is forbidden."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no-referrer, browsers send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Fence:
    """Refuses what would change something and is not from a page of `origins`; adds the headers to every answer."""

    def __init__(self, app: App, *, origins: frozenset[str], is_secure: bool) -> None:
        self.app, self.is_secure = app, is_secure
        self.origins = {origin.encode() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        is_static = str(scope.get("path", "")).startswith("/static/")

        async def send_with_headers(event: Event) -> None:
            if event["type"] == "http.response.start":
                extra = dict(HEADERS)
                # A page has somebody's work on it; whoever sits here next must not get it from the browser's memory.
                extra["cache-control"] = "no-cache" if is_static else "no-store"
                if self.is_secure:
                    extra["strict-transport-security"] = "max-age=31536000"
                named = [(name.encode(), value.encode()) for name, value in extra.items()]
                event = {**event, "headers": [*event.get("headers", []), *named]}
            await send(event)

        if scope["method"] not in SAFE_METHODS and not self._is_ours(scope["headers"]):
            await _refuse(send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    def _is_ours(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """One of the two must be there, and neither may say otherwise."""
        site = [value for name, value in headers if name == b"sec-fetch-site"]
        origin = [value for name, value in headers if name == b"origin"]
        if not site and not origin:
            return False
        return site in ([], [b"same-origin"]) and (not origin or (len(origin) == 1 and origin[0] in self.origins))


async def _refuse(send: Send) -> None:
    body = json.dumps({"detail": "this did not come from a page of this app"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    # What the client still sends is not read, so the connection cannot serve another request.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
