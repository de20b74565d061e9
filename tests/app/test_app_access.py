"""Who may do what, and what stands before every route."""

from __future__ import annotations

import re

import pytest

from prefloop.app.access import ACCESS
from prefloop.app.config import LabelServeConfig
from prefloop.app.rate import Rate
from prefloop.app.serve import hosts_of, serve
from prefloop.app.web import make_app
from prefloop.label.people import deactivate, events
from prefloop.label.votes import votes_of
from prefloop.types import InputError

from .conftest import pairs, site_with

A_VOTE = {"submission_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "assignment_id": 1, "choice": "tie", "seconds": 1}
# Who may use each route, written by hand from the issue: v nobody signed in, a annotator, r reviewer, o owner.
EXPECTED = {
    ("GET", "/enter"): "varo",
    ("POST", "/enter"): "varo",
    ("GET", "/static/app.css"): "varo",
    ("GET", "/"): "aro",
    ("POST", "/task"): "aro",
    ("POST", "/vote"): "aro",
    ("POST", "/undo"): "aro",
    ("POST", "/leave"): "aro",
    ("GET", "/guidelines"): "aro",
    ("GET", "/guidelines/1"): "aro",
    ("GET", "/people"): "ro",
    ("GET", "/quality"): "ro",
    ("GET", "/disagreements"): "ro",
    ("POST", "/disagreements/settle"): "ro",
    ("POST", "/disagreements/reopen"): "ro",
    ("GET", "/log"): "ro",
    ("GET", "/runs"): "ro",
    ("GET", "/runs/1"): "ro",
    ("GET", "/audits"): "ro",
    ("GET", "/audits/1"): "ro",
    ("GET", "/gate"): "ro",
    ("GET", "/gate/1"): "ro",
    ("GET", "/ledger"): "ro",
    ("GET", "/ledger/rollback"): "o",
    ("POST", "/gate/1"): "o",
    ("POST", "/ledger/rollback"): "o",
    ("POST", "/people/invite"): "o",
    ("POST", "/people/deactivate"): "o",
    ("POST", "/guidelines"): "o",
}
BODIES = {
    "/vote": {"json": A_VOTE},
    "/undo": {"json": {}},
    "/enter": {"data": {"code": "x"}},
    "/people/invite": {"data": {"name": "Eve", "role": "owner"}},
    "/people/deactivate": {"data": {"annotator_id": "OWNER"}},
    "/guidelines": {"data": {"text": "choose mine"}},
    "/disagreements/settle": {"data": {"item_id": "none", "answer": "tie"}},
    "/disagreements/reopen": {"data": {"number": "1"}},
    "/gate/1": {"data": {"word": "approve", "why": "mine", "seen": ""}},
    "/ledger/rollback": {"data": {"why": "mine", "last_switch": "1"}},
}
ROLES = {"v": None, "a": "annotator", "r": "reviewer", "o": "owner"}


def ask(client, method, path, **changes):
    return client.request(method, path, **{**BODIES.get(path, {}), **changes} if method == "POST" else changes)


def test_the_table_names_every_route_and_no_other(site):
    routes = {
        (method, route.path) for route in all_routes(site.app) for method in getattr(route, "methods", None) or ()
    }
    assert routes == set(ACCESS)
    assert {(method, path) for method, path in EXPECTED} == {
        (method, re.sub(r"{\w+}", "1", path.replace("{name}", "app.css"))) for method, path in ACCESS
    }


def all_routes(app):
    """Routes of the application inside the fence and the guard, those of its routers too."""
    waiting = list(app.app.app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        if inner:
            waiting += inner
        else:
            yield route


def test_every_wrong_role_is_refused_and_changes_nothing(site):
    site.signed_in("owner")
    BODIES["/people/deactivate"]["data"]["annotator_id"] = site.people["owner"].annotator_id
    clients = {letter: site.signed_in(role) if role else site.visitor() for letter, role in ROLES.items()}
    clients["a"].post("/task", json={})
    before = site.rows()
    refused = 0
    for (method, path), may in EXPECTED.items():
        for letter in set(ROLES) - set(may):
            answer = ask(clients[letter], method, path)
            assert answer.status_code == (401 if letter == "v" else 403), (method, path, letter)
            page = ask(clients[letter], method, path, headers={"Accept": "text/html"})
            assert page.status_code == (303 if letter == "v" else 403), (method, path, letter)
            assert letter != "v" or page.headers["location"] == "/enter"
            refused += 1
    assert refused == 7 + 13 * 2 + 6 * 3
    assert site.rows() == before


def test_every_right_role_gets_an_answer(site):
    clients = {letter: site.signed_in(role) if role else site.visitor() for letter, role in ROLES.items()}
    # Who leaves is out, so that comes last.
    for (method, path), may in sorted(EXPECTED.items(), key=lambda each: each[0][1] == "/leave"):
        for letter in may:
            client = clients[letter]
            expected = {
                "/enter": (200, 403),
                "/vote": (200, 422),
                **dict.fromkeys(("/guidelines/1", "/runs/1", "/audits/1", "/gate/1", "/ledger/rollback"), (200, 404)),
                "/people/deactivate": (303, 409, 422),
                "/disagreements/settle": (422,),
                "/disagreements/reopen": (422,),
            }.get(path, (200, 303))
            assert ask(client, method, path).status_code in expected, (method, path, letter)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://127.0.0.1:8910.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_what_another_page_sends_is_refused(site, headers):
    owner = site.signed_in("owner")
    before = site.rows()
    for path in ("/task", "/vote", "/undo", "/people/invite", "/guidelines", "/leave", "/enter"):
        assert ask(owner, "POST", path, headers=headers).status_code == 403
    del owner.headers["Origin"]
    assert owner.post("/people/invite", data={"name": "Eve", "role": "owner"}).status_code == 403
    assert site.rows() == before


def test_on_this_machine_each_of_its_names_is_the_app(tmp_path):
    made = site_with(tmp_path, pairs(1))
    with made.store:
        names = frozenset({"127.0.0.1", "localhost", "::1"})
        made.app = make_app(made.store, made.config, url=made.url, port=8910, hosts=names)
        for url in ("http://localhost:8910", "http://[::1]:8910", "http://127.0.0.1:8910"):
            made.url = url
            assert made.signed_in("annotator").post("/task", json={}).status_code == 200
            assert made.signed_in("annotator").post("/task", headers={"Origin": "http://localhost"}).status_code == 403


def test_a_page_of_the_app_may_with_either_header(site):
    owner = site.signed_in("owner")
    del owner.headers["Origin"]
    assert owner.post("/task", json={}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert owner.post("/task", json={}, headers={"Origin": site.url}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", ""])
def test_another_host_name_is_refused(site, host):
    assert site.signed_in("owner").get("/people", headers={"Host": host}).status_code == 421


def test_every_answer_has_the_headers(site):
    owner = site.signed_in("owner")
    answers = [owner.get(path) for path in ("/", "/people", "/enter", "/nowhere", "/static/app.css", "/static/no")]
    answers += [owner.post("/vote", content=b"{"), owner.post("/vote", headers={"Origin": "null"}), owner.put("/vote")]
    answers.append(owner.get("/", headers={"Host": "evil.example"}))
    for answer in answers:
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["img-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] in ("no-store", "no-cache")
    assert len(answers) == 10


def test_an_invitation_works_once_and_the_session_ends(site):
    code = site.code("annotator")
    visitor = site.visitor()
    entered = visitor.post("/enter", data={"code": code})
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie and "domain" not in cookie
    assert code not in cookie
    assert visitor.get("/").status_code == 200
    assert site.visitor().post("/enter", data={"code": code}).status_code == 403
    session = visitor.cookies["prefloop-8910"]
    assert visitor.post("/leave").status_code == 303
    visitor.cookies.set("prefloop-8910", session)
    assert visitor.get("/").status_code == 401
    assert [event.what for event in events(site.store)][-3:] == ["invited", "signed in", "signed out"]


def test_somebody_deactivated_is_out_at_once(site):
    annotator = site.signed_in("annotator")
    owner = site.signed_in("owner")
    assert annotator.post("/task", json={}).status_code == 200
    gone = owner.post("/people/deactivate", data={"annotator_id": site.people["annotator"].annotator_id})
    assert gone.status_code == 303
    assert annotator.post("/task", json={}).status_code == 401


def test_an_owner_cannot_lock_the_last_door(site):
    owner = site.signed_in("owner")
    mine = {"annotator_id": site.people["owner"].annotator_id}
    assert owner.post("/people/deactivate", data=mine).status_code == 409
    assert owner.get("/people").status_code == 200


def test_no_page_holds_the_code_of_an_invitation_twice(site):
    owner = site.signed_in("owner")
    made = owner.post("/people/invite", data={"name": "Ann", "role": "annotator"})
    code = re.search(r"/enter#([\w-]{43})", made.text)[1]
    assert code not in owner.get("/people").text + owner.get("/log").text
    assert code not in "\n".join(site.rows())
    assert site.visitor().post("/enter", data={"code": code}).status_code == 303


def test_too_many_requests_are_asked_to_wait(tmp_path):
    made = site_with(tmp_path, pairs(1), requests_per_minute=5, sign_ins_per_minute=3)
    with made.store:
        annotator, other = made.signed_in("annotator"), made.signed_in("reviewer")
        codes = [annotator.post("/task", json={}).status_code for _ in range(7)]
        assert codes == [200] * 5 + [429] * 2
        assert int(annotator.post("/task", json={}).headers["retry-after"]) <= 13
        assert other.post("/task", json={}).status_code == 200
        tries = [made.visitor().post("/enter", data={"code": str(i)}).status_code for i in range(4)]
        assert tries == [403, 403, 403, 429]


def test_the_rate_is_what_it_says():
    now = [0.0]
    rate = Rate(60, lambda: now[0])
    assert [rate.wait("x") for _ in range(60)] == [0] * 60
    assert rate.wait("x") == pytest.approx(1.0)
    assert rate.wait("y") == 0
    now[0] = 2.5
    assert [rate.wait("x") for _ in range(2)] == [0, 0]
    assert rate.wait("x") == pytest.approx(0.5)


def test_a_large_body_is_refused(site):
    owner = site.signed_in("owner")
    before = site.rows()
    assert owner.post("/guidelines", data={"text": "x" * 300_000}).status_code == 413
    assert owner.post("/vote", json={**A_VOTE, "note": "x" * 300_000}).status_code == 413
    assert site.rows() == before


def traversals():
    """300 ways to ask for a file that is not the app's."""
    ups = ("..", "%2e%2e", "%252e%252e", "..%00", ".%2e", "..;", "%c0%ae%c0%ae", "....", "..\\", "%2e%2e%5c")
    slashes = ("/", "%2f", "%5c", "%252f", "//", "/./")
    targets = ("etc/passwd", "label.sqlite", "app.css", "web.py", "%00app.css")
    return [f"{slash.join([up] * 6)}{slash}{target}" for up in ups for slash in slashes for target in targets]


def test_no_path_leads_out_of_the_static_files(site):
    paths = traversals()
    assert len(set(paths)) == 300
    annotator = site.signed_in("annotator")
    for number, path in enumerate(paths):
        for before in ("/static/", "/guidelines/")[: 1 + (number % 10 == 0)]:
            answer = annotator.get(before + path)
            assert answer.status_code in (400, 403, 404, 405), path
            assert "root:" not in answer.text and "SQLite" not in answer.text and "import" not in answer.text


def test_others_reach_it_through_tls_only(tmp_path):
    with pytest.raises(InputError, match="without TLS"):
        serve(LabelServeConfig(host="0.0.0.0", database=str(tmp_path / "label.sqlite")))
    assert not (tmp_path / "label.sqlite").exists()
    behind = LabelServeConfig(host="0.0.0.0", public_url="https://Label.example:8443/")
    assert behind.public_url == "https://label.example:8443"
    assert hosts_of(behind) == {"label.example"}
    assert LabelServeConfig(public_url="https://label.example:443").public_url == "https://label.example"
    assert hosts_of(LabelServeConfig()) == {"127.0.0.1", "localhost", "::1"}
    for wrong in ("http://label.example", "https://", "https://a/b", "https://me@a"):
        with pytest.raises(ValueError, match="without a path"):
            LabelServeConfig(public_url=wrong)


def test_behind_tls_the_cookie_is_secure(tmp_path):
    made = site_with(tmp_path, pairs(1))
    with made.store:
        url = "https://label.example"
        made.app = make_app(made.store, made.config, url=url, port=8910, hosts=frozenset({"label.example"}))
        made.url = url
        entered = made.visitor().post("/enter", data={"code": made.code("annotator")})
        assert entered.headers["set-cookie"].startswith("__Host-prefloop=")
        assert "secure" in entered.headers["set-cookie"].lower()
        assert "max-age" in entered.headers["strict-transport-security"]


def test_deactivated_people_keep_their_votes(site):
    annotator = site.signed_in("annotator")
    task = annotator.post("/task", json={}).json()["task"]
    assert annotator.post("/vote", json={**A_VOTE, "assignment_id": task["assignment_id"]}).status_code == 200
    deactivate(site.store, site.people["annotator"].annotator_id, "a test")
    assert len(votes_of(site.store)) == 1
