"""What goes wrong outside: odd texts, numbers that are none, two servers, clocks that differ, a newer database."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter

import pytest

from prefloop.app.config import LabelServeConfig
from prefloop.app.serve import serve
from prefloop.app.web import make_app
from prefloop.label.store import Store, open_store
from prefloop.label.votes import items_of, votes_of
from prefloop.types import InputError

from .conftest import PLAIN, URL, Site, pairs, site_with
from .test_app_texts import Seen
from .test_app_votes import vote_on

LONG = "**x** y\n" * 12_500
HEBREW = "\u202e\u05e9\u05dc\u05d5\u05dd \u200b\u200d\u2066\ufeff\u05e2\u05d5\u05dc\u05dd"


def test_odd_texts_are_shown_whole_and_judged(tmp_path):
    """100,000 characters; right to left, with an override that is not closed; nothing that can be seen."""
    rows = [
        {"prompt": "long?", "response_a": LONG, "response_b": LONG + "z" * 1000},
        {"prompt": HEBREW, "response_a": HEBREW + "a", "response_b": "\u200b\u200c\u2060"},
    ]
    assert len(LONG) == 100_000
    made = site_with(tmp_path, rows)
    with made.store:
        annotator = made.signed_in("annotator")
        for _ in range(2):
            task = annotator.post("/task", json={}).json()["task"]
            text = Seen(task["html"]).text
            if "long?" in text:
                # The first as Markdown, the second above the limit and as it is; both as they were written, besides.
                assert text.count("x y") == 12_500 and text.count("**x** y\n") == 3 * 12_500
            else:
                # Each text runs in a direction of its own, so an override ends with it.
                assert text.count(HEBREW) == 4 and task["html"].count('dir="auto"') == 3
            body = vote_on(task, "right", note=HEBREW)
            assert annotator.post("/vote", json=body).status_code == 200
        assert [vote.note for vote in votes_of(made.store)] == [HEBREW] * 2


REFUSED = (
    '"note": "\\ud800"',
    '"note": "a\\u0000b"',
    '"reason": "\\udfff"',
    '"reason": "\\u0000"',
    '"note": "' + "x" * 10_001 + '"',
    '"seconds": 1e999',
    '"seconds": NaN',
    '"seconds": -1',
    '"seconds": ' + "9" * 400,
    '"seconds": ' + "9" * 5_000,
    '"assignment_id": ' + "9" * 400,
    '"assignment_id": 9223372036854775808',
    '"assignment_id": 1.5',
    '"assignment_id": true',
    '"choice": "a"',
    '"submission_id": "\\u0000"',
    '"more": 1',
)


def test_what_no_database_can_hold_is_refused_in_a_line(site):
    annotator = site.signed_in("annotator")
    task = annotator.post("/task", json={}).json()["task"]
    before = site.rows()
    for raw in REFUSED:
        body = json.dumps(vote_on(task, "tie"))[:-1] + f", {raw}}}"
        answer = annotator.post("/vote", content=body, headers={"Content-Type": "application/json"})
        # 400 where Python's parser refuses so many digits before anybody looks at the field.
        assert answer.status_code == (400 if len(raw) > 5000 and raw[-1] == "9" else 422), raw
        assert 0 < len(answer.json()["detail"]) < 300, raw
    assert site.rows() == before
    assert annotator.post("/vote", json=vote_on(task, "tie")).status_code == 200


@pytest.mark.parametrize("ahead", [0.0, 600.0])
def test_two_servers_on_one_database(tmp_path, ahead):
    """Four people, two at each server, whose clocks differ by less than a lease: no item twice, none left out."""
    made = site_with(tmp_path, pairs(12))
    store = Store(made.store.engine, made.store.database, lambda: time.time() + ahead)
    config = LabelServeConfig(database=store.database, quotas=PLAIN, requests_per_minute=100_000)
    other = Site(store, config, make_app(store, config, url=URL, port=8910, hosts=frozenset({"127.0.0.1"})))
    with made.store:
        clients = [(made, other)[number % 2].signed_in("annotator", f"person {number}") for number in range(4)]

        def work(client):
            while (task := client.post("/task", json={}).json()["task"]) is not None:
                assert client.post("/vote", json=vote_on(task)).status_code == 200

        threads = [threading.Thread(target=work, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        votes = votes_of(made.store)
        assert Counter(vote.item_id for vote in votes) == dict.fromkeys(items_of(made.store), 1)
        assert len({vote.annotator_id for vote in votes}) > 1
        # A session that one of them gave is good at the other.
        visitor = made.visitor()
        visitor.cookies.set("prefloop-8910", clients[1].cookies["prefloop-8910"])
        assert visitor.get("/").status_code == 200


def test_a_database_of_a_newer_prefloop_is_not_served(tmp_path):
    database = tmp_path / "label.sqlite"
    open_store(str(database)).close()
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(InputError, match="this database has version 9, this prefloop knows 2; use the newer prefloop"):
        serve(LabelServeConfig(database=str(database), port=0))
