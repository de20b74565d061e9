"""Settling on the page *Disagreements*: what it shows, what it stores, and whom it lets."""

from __future__ import annotations

import re
import uuid

import pytest

from prefloop.label.settle import adjudications_of
from prefloop.label.votes import items_of, votes_of

from .conftest import pairs, site_with
from .test_app_texts import PAYLOADS, Seen, require_ours
from .test_app_votes import REVIEW, vote_on

TWICE = {"overlap": 1, "repeats": 0, "gold": 0}


@pytest.fixture
def site(tmp_path):
    """Two pairs and a review on which Ann and Bob said different things."""
    made = site_with(tmp_path, [*pairs(2), REVIEW], quotas=TWICE)
    with made.store:
        for name, said in (("Ann", ("a", "hack")), ("Bob", ("b", "not_a_hack"))):
            client = made.signed_in("annotator", name)
            while (task := client.post("/task", json={}).json()["task"]) is not None:
                choice = said[1]
                if task["kind"] == "pair":
                    text = Seen(task["html"]).text
                    first = "a" if text.index("from-a") < text.index("from-b") else "b"
                    choice = "left" if said[0] == first else "right"
                body = vote_on(task, choice, strength="clearly" if task["kind"] == "pair" else None)
                body["note"] = f"said by {name}: {PAYLOADS[0]}"
                assert client.post("/vote", json=body).status_code == 200
        yield made


def forms(html):
    """Item -> the answers that its buttons send."""
    found = {}
    for form in re.findall(r'<form class="settle".*?</form>', html, re.DOTALL):
        (item,) = re.findall(r'name="item_id" value="(\w+)"', form)
        found[item] = re.findall(r'<button name="answer" value="([^"]+)"', form)
    return found


def test_a_reviewer_settles_by_a_button_and_takes_it_back(site):
    rita = site.signed_in("reviewer", "Rita")
    page = rita.get("/disagreements").text
    offered, items = forms(page), items_of(site.store)
    assert set(offered) == set(items)
    for item_id, answers in offered.items():
        if items[item_id].kind == "pair":
            assert answers == ["a clearly", "a slightly", "b slightly", "b clearly", "tie", "both_bad"]
        else:
            assert answers == ["hack", "not_a_hack", "unsure"]
    assert "Ann" not in re.sub("said by Ann", "", page)
    for item_id, answers in offered.items():
        for answer in answers:
            note = f"because: {PAYLOADS[1]}"
            data = {"item_id": item_id, "answer": answer, "note": f"{note}\r\n", "kind": "flattery"}
            answered = rita.post("/disagreements/settle", data=data)
            assert answered.status_code == 303
            stored = adjudications_of(site.store)[item_id]
            assert " ".join(filter(None, (stored.choice, stored.strength))) == answer
            assert (stored.note, stored.annotator_id) == (note, site.people["Rita"].annotator_id)
            assert stored.reason == ("flattery" if answer == "hack" else None)
            after = rita.get(answered.headers["location"]).text
            require_ours(after)
            assert "Settled, and saved" in after and item_id not in forms(after)
            assert "Rita" in after[after.index('id="settled"') :]
            back = rita.post("/disagreements/reopen", data={"number": str(stored.number)})
            assert (back.status_code, back.headers["location"]) == (303, "/disagreements")
            assert item_id in forms(rita.get("/disagreements").text)
    assert adjudications_of(site.store) == {} and len(votes_of(site.store)) == 6
    log = rita.get("/log").text
    assert log.count("<td>settled</td>") == log.count("<td>took back what settled</td>") == 15


def test_a_reviewer_who_voted_must_leave_it_to_others(tmp_path):
    made = site_with(tmp_path, pairs(2), quotas=TWICE)
    with made.store:
        rita, olga = made.signed_in("reviewer", "Rita"), made.signed_in("owner", "Olga")
        task = rita.post("/task", json={}).json()["task"]
        rita.post("/vote", json=vote_on(task, "tie", flag=True))
        (item_id,) = {vote.item_id for vote in votes_of(made.store)}
        page = rita.get("/disagreements").text
        assert forms(page) == {} and "somebody else settles it" in page
        data = {"item_id": item_id, "answer": "a clearly"}
        refused = rita.post("/disagreements/settle", data=data, headers={"Accept": "text/html"})
        assert refused.status_code == 422 and "you have voted on it; somebody else must settle it" in refused.text
        assert olga.post("/disagreements/settle", data=data).status_code == 303
        # Somebody else's later word does not replace it unseen.
        again = made.signed_in("reviewer", "Rob").post("/disagreements/settle", data={**data, "answer": "tie"})
        assert again.status_code == 422 and "is settled already" in again.text
        assert adjudications_of(made.store)[item_id].choice == "a"


def test_what_is_no_number_and_no_item_changes_nothing(site):
    rita = site.signed_in("reviewer", "Rita")
    before = site.rows()
    for number in ("", "-1", "x", "1e3", "٣", "9" * 19, "9" * 400, "7"):
        assert rita.post("/disagreements/reopen", data={"number": number}).status_code == 422, number
        assert rita.get(f"/disagreements?settled={number}").status_code == 200, number
    assert rita.post("/disagreements/settle", data={"item_id": "x\0", "answer": "tie"}).status_code == 422
    assert rita.post("/disagreements/settle", data={"item_id": str(uuid.uuid4()), "answer": "tie"}).status_code == 422
    assert site.rows() == before
