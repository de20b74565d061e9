"""The command, as a person starts it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys

import httpx2
import pytest

from prefloop.app.config import LabelServeConfig
from prefloop.app.serve import serve
from prefloop.label.store import open_store
from prefloop.types import InputError

from .conftest import fill, pairs


def test_the_printed_link_signs_the_owner_in_once(tmp_path):
    with open_store(str(tmp_path / "label.sqlite")) as store:
        fill(store, tmp_path / "rows.jsonl", pairs(1))
    words = [sys.executable, "-m", "prefloop", "label", "serve", "--port", "0", "--owner", "Olga"]
    with subprocess.Popen(
        words, cwd=tmp_path, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        try:
            assert server.stderr is not None
            first, second = (server.stderr.readline().decode() for _ in range(2))
            assert first.startswith("labelling app: http://127.0.0.1:"), first
            assert second.startswith("sign in as Olga, with this link, once: "), second
            url, code = second.split()[-1].split("/enter#")
            with httpx2.Client(base_url=url, headers={"Origin": url}, trust_env=False) as browser:
                assert browser.get("/people").status_code == 401
                assert browser.post("/enter", data={"code": code}).status_code == 303
                assert "Olga" in browser.get("/people").text
                assert browser.post("/task", json={}).json()["progress"]["left"] >= 0
            with httpx2.Client(base_url=url, headers={"Origin": url}, trust_env=False) as other:
                assert other.post("/enter", data={"code": code}).status_code == 403
            # A length that is none, which only the wire can carry.
            with contextlib.closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)) as raw:
                raw.putrequest("POST", "/vote")
                raw.putheader("Content-Length", "x")
                raw.endheaders()
                assert raw.getresponse().status == 400
            server.send_signal(signal.SIGINT)
            out, said = server.communicate(timeout=60)
        finally:
            server.kill()
    assert (server.returncode, out) == (130, b"")
    assert b"Traceback" not in said


def test_a_database_that_is_not_there_is_no_new_one(tmp_path):
    with pytest.raises(InputError, match="no such database"):
        serve(LabelServeConfig(database=str(tmp_path / "labell.sqlite"), port=0))
    assert list(tmp_path.iterdir()) == []
