"""Reward servers on a loopback port, each in a thread of the test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Stub(ThreadingHTTPServer):
    """A reward server that answers what a test tells it to: the answers in turn, the last one again and again."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, bytes]] = []
        self.health: tuple[int, bytes] = (404, b"no such page")
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.hold = threading.Event()
        self.hold.set()

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self.server_port}/get_reward"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that no longer waits is no error here."""


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._reply(*self.server.health)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        self.server.hold.wait(10)
        answers = self.server.answers
        self._reply(*(answers.pop(0) if len(answers) > 1 else answers[0]))

    def log_message(self, *_: Any) -> None:
        """Nothing on standard error."""


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A server whose answers the test sets."""
    server = Stub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def served() -> Iterator[Callable[..., str]]:
    """`served(scorer, token=..., ...)`: our own server, on a free port; answers its address."""
    from prefloop.reward.serve import PATH, allowed_hosts, listen, make_app, server_of

    with contextlib.ExitStack() as stack:

        def start(scorer: Any, **limits: Any) -> str:
            settings = {"token": None, "max_body_bytes": 1 << 20, "max_batch": 300, **limits}
            listening = stack.enter_context(listen("127.0.0.1", 0))
            server = server_of(make_app(scorer, hosts=allowed_hosts("127.0.0.1"), **settings))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            return f"http://127.0.0.1:{listening.getsockname()[1]}{PATH}"

        yield start
