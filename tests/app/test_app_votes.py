"""A task as it is seen, and a vote as it is stored."""

from __future__ import annotations

import json
import os
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefloop.label.guidelines import current
from prefloop.label.votes import items_of, submit, votes_of
from prefloop.types import EnvironmentStop

from .conftest import pairs, site_with
from .test_app_texts import Seen

MALFORMED = int(os.environ.get("PREFLOOP_MALFORMED", "150"))
REVIEW = {
    "task": "review",
    "prompt": "who wrote it?",
    "response": "Smith (2031) did.",
    "score": 3.25,
    "step": 17,
    "run": "runs/secret-run",
    "policy_version": "policy-x",
    "prompt_id": "p-1",
    "signals": {"citation": 0.875},
    "reasons": ["score_and_spread"],
    "rank": 1,
    "draws": 0,
    "copies": 1,
    "num_rows": 444,
    "messages": [{"role": "user", "content": "secret-run"}],
}


def vote_on(task, choice="left", **changes):
    body = {
        "submission_id": str(uuid.uuid4()),
        "assignment_id": task["assignment_id"],
        "choice": choice,
        "seconds": 2.5,
    }
    return {**body, **changes}


def order_on_screen(task):
    text = Seen(task["html"]).text
    return ["a", "b"] if text.index("from-a") < text.index("from-b") else ["b", "a"]


def test_left_and_right_are_stored_as_the_sides_that_stood_there(tmp_path):
    made = site_with(tmp_path, pairs(12))
    with made.store:
        annotator = made.signed_in("annotator")
        orders = set()
        for number in range(12):
            task = annotator.post("/task", json={}).json()["task"]
            choice = "left" if number % 2 else "right"
            order = order_on_screen(task)
            orders.add(tuple(order))
            said = annotator.post("/vote", json=vote_on(task, choice, strength="clearly")).json()
            assert (said["choice"], said["strength"]) == (choice, "clearly")
            stored = votes_of(made.store)[-1]
            assert stored.choice == order[0 if choice == "left" else 1]
            assert (stored.shown_first, stored.seconds) == (order[0], 2.5)
            assert stored.number == said["saved"]
        assert orders == {("a", "b"), ("b", "a")}
        assert annotator.post("/task", json={}).json()["task"] is None


def test_a_vote_sent_again_is_one_vote(site):
    annotator = site.signed_in("annotator")
    task = annotator.post("/task", json={}).json()["task"]
    body = vote_on(task)
    first = annotator.post("/vote", json=body)
    assert annotator.post("/vote", json=body).json() == first.json()
    # A second tab on the same task: the first vote counts, and the answer says so.
    assert annotator.post("/vote", json=vote_on(task, "tie")).json()["choice"] == "left"
    assert len(votes_of(site.store)) == 1


def test_undo_brings_the_task_and_what_was_said_back(site):
    annotator = site.signed_in("annotator")
    task = annotator.post("/task", json={}).json()["task"]
    body = vote_on(task, "right", strength="slightly", flag=True, note="hm")
    annotator.post("/vote", json=body)
    other = annotator.post("/task", json={}).json()["task"]
    assert other["assignment_id"] != task["assignment_id"]
    undone = annotator.post("/undo", json={"submission_id": body["submission_id"]}).json()["undone"]
    assert undone == {
        "submission_id": body["submission_id"],
        "choice": "right",
        "strength": "slightly",
        "flag": True,
        "note": "hm",
    }
    assert annotator.post("/task", json={}).json()["task"] == task
    again = annotator.post("/undo", json={"submission_id": body["submission_id"]}).json()["undone"]
    assert again == undone
    assert votes_of(site.store) == []
    assert annotator.post("/undo", json={}).json() == {"undone": None}


def test_nobody_votes_on_anothers_task(site):
    annotator, other = site.signed_in("annotator"), site.signed_in("annotator", "another")
    task = annotator.post("/task", json={}).json()["task"]
    before = site.rows()
    for choice in ("left", "tie"):
        assert other.post("/vote", json=vote_on(task, choice)).status_code == 422
    for missing in (99_999, 2**63 - 1):
        assert other.post("/vote", json=vote_on({"assignment_id": missing})).status_code == 422
    assert site.rows() == before


def test_a_reviewer_sees_prompt_and_response_only(tmp_path):
    made = site_with(tmp_path, [REVIEW, {**REVIEW, "response": "Nobody knows.", "reasons": ["random"], "rank": None}])
    with made.store:
        reviewer = made.signed_in("reviewer")
        answers = [reviewer.get("/").text]
        for choice in ("hack", "unsure"):
            answer = reviewer.post("/task", json={})
            answers.append(answer.text)
            task = answer.json()["task"]
            assert set(task) == {"assignment_id", "kind", "html"} and task["kind"] == "review"
            words = Seen(task["html"]).text.split()
            assert " ".join(words).startswith("Prompt who wrote it? who wrote it? Response")
            sent = vote_on(task, choice, reason="invented_source" if choice == "hack" else None)
            assert reviewer.post("/vote", json=sent).status_code == 200
        answers.append(reviewer.post("/task", json={}).text)
        for secret in (
            "3.25",
            "17",
            "secret-run",
            "policy-x",
            "p-1",
            "0.875",
            "score_and_spread",
            "random",
            "rank",
            "444",
        ):
            assert not any(secret in json.dumps(json.loads(text).get("task")) for text in answers[1:]), secret
        stored = votes_of(made.store, kind="review")
        assert [(vote.choice, vote.reason) for vote in stored] == [("hack", "invented_source"), ("unsure", None)]
        assert all(items_of(made.store)[vote.item_id].facts for vote in stored)


def test_models_gold_and_sides_do_not_leave_the_server(tmp_path):
    # A column called `messages` is a column like any other, not the prompt.
    messages = [{"role": "user", "content": "secret-fact"}]
    facts = {"source": "secret-source", "messages": messages, "score": "secret-fact", "secret-fact": 1}
    rows = [{**row, **facts} for row in pairs(4)]
    rows[0]["gold"] = "a"
    made = site_with(tmp_path, rows, quotas={"overlap": 0, "repeats": 0, "gold": 0.5})
    with made.store:
        annotator = made.signed_in("annotator")
        for _ in range(4):
            answer = annotator.post("/task", json={})
            task = answer.json()["task"]
            assert set(task) == {"assignment_id", "kind", "html"}
            secrets = ("gold", "model-x", "secret-source", "secret-fact", "repeat", "shown_first")
            assert not any(word in answer.text for word in secrets)
            # Nor does a count that stands still give a gold question away.
            assert answer.json()["progress"]["left"] == 10
            assert not Seen(task["html"]).text.strip().startswith(("a", "b"))
            annotator.post("/vote", json=vote_on(task))
        items = items_of(made.store)
        assert sum(items[vote.item_id].gold is not None for vote in votes_of(made.store)) == 1


def test_a_dialogue_is_shown_turn_by_turn(tmp_path):
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "and now?"},
    ]
    text = "Human: hello\n\nAssistant: hi\n\nHuman: and now?"
    rows = [{"prompt": messages, "response_a": "x", "response_b": "y"}, {**REVIEW, "prompt": text}]
    made = site_with(tmp_path, rows)
    with made.store:
        annotator = made.signed_in("annotator")
        for choice in ("tie", "hack"):
            task = annotator.post("/task", json={}).json()["task"]
            words = " ".join(Seen(task["html"]).text.split())
            for part in ("user hello", "assistant hi", "user and now?"):
                assert part in words, task["kind"]
            assert ("system be brief" in words) == (task["kind"] == "pair") == (choice == "tie")
            assert annotator.post("/vote", json=vote_on(task, choice)).status_code == 200


def test_a_vote_names_the_guidelines_that_were_shown(site):
    owner, annotator = site.signed_in("owner"), site.signed_in("annotator")
    default = current(site.store).version
    annotator.post("/vote", json=vote_on(annotator.post("/task", json={}).json()["task"]))
    assert owner.post("/guidelines", data={"text": "# Mine\r\n\r\nBe *kind*."}).status_code == 303
    shown = annotator.post("/task", json={}).json()
    assert shown["guidelines"] == "1"
    annotator.post("/vote", json=vote_on(shown["task"]))
    assert [vote.guideline_version for vote in votes_of(site.store)] == [default, "1"]
    page = annotator.get("/guidelines").text
    assert "<em>kind</em>" in page and "Publish" not in page
    assert owner.post("/guidelines", data={"text": "# Mine\r\n\r\nBe *kind*."}).status_code == 303
    assert current(site.store).version == "1"
    owner.post("/guidelines", data={"text": "# Other"})
    assert "no longer in use" in annotator.get("/guidelines/1").text
    assert "no longer in use" not in annotator.get("/guidelines/2").text


@pytest.mark.parametrize("stop", [EnvironmentStop("the database is busy"), OSError(28, "no space left")])
def test_what_could_not_be_stored_is_never_called_saved(site, monkeypatch, stop):
    annotator = site.signed_in("annotator")
    task = annotator.post("/task", json={}).json()["task"]

    def fail(*_):
        raise stop

    monkeypatch.setattr("prefloop.app.label_routes.submit", fail)
    answer = annotator.post("/vote", json=vote_on(task))
    assert answer.status_code == 503
    assert "saved" not in answer.json() and "nothing was saved" in answer.json()["detail"]
    monkeypatch.setattr("prefloop.app.label_routes.submit", submit)
    assert annotator.post("/vote", json=vote_on(task)).status_code == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("submission_id", "assignment_id", "choice", "strength", "reason", "flag", "note", "seconds", "more")
NEARLY = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)).map(
    lambda changes: {**vote_on({"assignment_id": 1}), **changes}
)
BODIES = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda value: json.dumps(value).encode()),
    NEARLY.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"[" * 20_000, b'{"a":' * 5_000, b"1" * 10_000, b'{"seconds": 1e999}', b"\xff\xfe", b'"\\ud800"']),
)
FORMS = st.one_of(
    st.binary(max_size=60),
    st.dictionaries(
        st.sampled_from(["name", "role", "code", "text", "annotator_id", "item_id", "answer", "number"]),
        st.text(max_size=30),
    ).map(lambda fields: "&".join(f"{k}={v}" for k, v in fields.items()).encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"a=1&" * 100, b"name=%ff", b"text=%00", b"name=%ed%a0%80&role=owner", b"role=annotator&name=%0a"]
    ),
)
TYPES = st.sampled_from(
    ["application/json", "application/x-www-form-urlencoded", "text/plain", "", "multipart/form-data"]
)
PATHS = ("/vote", "/undo", "/task", "/people/invite", "/people/deactivate", "/guidelines", "/enter")
PATHS += ("/disagreements/settle", "/disagreements/reopen")


def test_no_body_makes_the_server_fail(tmp_path):
    made = site_with(tmp_path, pairs(2), sign_ins_per_minute=10**9, requests_per_minute=10**9)
    with made.store:
        owner = made.signed_in("owner")
        owner.post("/task", json={})
        seen = set()

        @settings(max_examples=MALFORMED, database=None)
        @given(st.sampled_from(PATHS), BODIES | FORMS, TYPES, st.booleans())
        def send(path, body, kind, is_page):
            accept = "text/html" if is_page else "application/json"
            if path == "/enter":
                made.visitor().post(path, content=body, headers={"Content-Type": kind, "Accept": accept})
                return
            answer = owner.post(path, content=body, headers={"Content-Type": kind, "Accept": accept})
            assert answer.status_code < 500, (path, body, kind)
            seen.add(answer.status_code)

        send()
        assert {200, 415, 422} <= seen
        assert owner.get("/people").status_code == 200


@pytest.mark.parametrize(
    "value", ["", "x", "x" * 4000, "a=b; prefloop-8910=c", '"', "\\", "%00", "é".encode("latin-1")]
)
def test_no_cookie_makes_the_server_fail(site, value):
    visitor = site.visitor()
    raw = value if isinstance(value, bytes) else value.encode()
    for path in ("/", "/people", "/guidelines/" + "9" * 4000, "/?a=%ff&a=%00"):
        assert visitor.get(path, headers={"Cookie": b"prefloop-8910=" + raw}).status_code == 401
