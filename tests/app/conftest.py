"""The labelling app in this process, and for browsers on a port of this machine."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from prefloop.app.config import LabelServeConfig
from prefloop.app.web import make_app
from prefloop.label.config import Quotas
from prefloop.label.intake import import_rows
from prefloop.label.people import invite, redeem
from prefloop.label.records import Person, PersonRole
from prefloop.label.store import Store, open_store
from prefloop.reward.address import listen, server_of

CHROMIUM = Path("/usr/bin/chromium")
URL = "http://127.0.0.1:8910"
PLAIN = Quotas(overlap=0, repeats=0, gold=0)
"""Every item once: a test counts what it sees."""


@dataclass
class Site:
    """An app, its store, and people who are signed in."""

    store: Store
    config: LabelServeConfig
    app: Any
    url: str = URL
    people: dict[str, Person] = field(default_factory=dict)

    def visitor(self, **headers: str) -> TestClient:
        """Somebody without a session, in a browser that is on a page of the app."""
        return TestClient(self.app, base_url=self.url, headers={"Origin": self.url, **headers}, follow_redirects=False)

    def code(self, role: PersonRole, name: str | None = None) -> str:
        """Of a fresh invitation."""
        return invite(self.store, name=name or f"the {role}", role=role, by="a test")

    def signed_in(self, role: PersonRole, name: str | None = None) -> TestClient:
        """Somebody with a session."""
        found = redeem(self.store, self.code(role, name))
        assert found is not None
        self.people[name or role] = found[0]
        client = self.visitor()
        client.cookies.set("prefloop-8910", found[1])
        return client

    def rows(self) -> list[str]:
        """All that the database holds, as SQL."""
        connection = sqlite3.connect(self.store.database)
        try:
            return list(connection.iterdump())
        finally:
            connection.close()


def pairs(number: int) -> list[dict[str, Any]]:
    """Rows of `number` comparisons; each response says whose and which it is."""
    return [
        {
            "prompt": f"question {i}?",
            "response_a": f"from-a {i}",
            "response_b": f"from-b {i}",
            "model_a": "model-x",
        }
        for i in range(number)
    ]


def fill(store: Store, path: Path, rows: list[dict[str, Any]]) -> None:
    """Import rows through a file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    import_rows(store, str(path), by="a test")


def site_with(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Site:
    """An app over a fresh database."""
    store = open_store(str(folder / "label.sqlite"))
    fill(store, folder / "rows.jsonl", rows)
    limits = {"quotas": PLAIN, "requests_per_minute": 100_000, "sign_ins_per_minute": 1000, **settings}
    config = LabelServeConfig(database=store.database, **limits)
    app = make_app(store, config, url=URL, port=8910, hosts=frozenset({"127.0.0.1"}))
    return Site(store, config, app)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is such a place: what the store syncs to disk is its own tests' matter."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = site_with(tmp_path, pairs(4))
    with made.store:
        yield made


@contextlib.contextmanager
def serving(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Iterator[Site]:
    """The same app, on a port."""
    store = open_store(str(folder / "label.sqlite"))
    fill(store, folder / "rows.jsonl", rows)
    config = LabelServeConfig(database=store.database, quotas=PLAIN, requests_per_minute=100_000, **settings)
    with store, listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        app = make_app(store, config, url=url, port=port, hosts=frozenset({"127.0.0.1"}))
        server = server_of(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield Site(store, config, app, url)
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The app on a port, with ten pairs, or with the rows that the test's parameter names."""
    with serving(tmp_path, getattr(request, "param", None) or pairs(10)) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium. Not for the session: while it runs, no other test of this thread can use asyncio."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the browser tests need the package playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"the browser tests need {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        # Without its sandbox, which containers forbid; it only opens pages of these tests.
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield running
        running.close()
