"""The boards: runs, audits, gate and ledger; who may see and do what there, and what can go wrong."""

from __future__ import annotations

import itertools
import json
import os
import re
import sqlite3
from pathlib import Path

import pytest

from prefloop.app import ledger_routes, run_files
from prefloop.app.run_files import find_run, rows_of, runs_in, state_of
from prefloop.audits import store_audit
from prefloop.label.people import events as log_of
from prefloop.recipes.gate import refusals
from prefloop.registry.store import opened
from prefloop.rundir import locked, sha256_of

from .boards import BUDGET, STEPS, Models, make_audit, make_run, step, write_lines
from .conftest import Site, pairs, serving, site_with
from .test_app_access import traversals
from .test_app_browser import Window
from .test_app_texts import PAYLOADS, Seen, require_ours

HTML = {"Accept": "text/html"}
BOARDS = ("/runs", "/audits", "/gate", "/ledger")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_run(tmp_path / "runs" / "done")
    make_run(tmp_path / "runs" / "going", finished=False)
    make_audit(tmp_path / "audits")
    return tmp_path


@pytest.fixture
def models(folder: Path) -> Models:
    return Models(folder)


@pytest.fixture
def board(folder: Path, models: Models):
    """An app that shows all boards."""
    places = {"runs": (str(folder / "runs"),), "audits": str(folder / "audits"), "registry": str(models.root)}
    made = site_with(folder, pairs(1), **places)
    with made.store:
        yield made


def address(site: Site, name: str) -> str:
    """The page of a run."""
    (run,) = [run for run in runs_in(site.config.runs) if run.path.name == name]
    return f"/runs/{run.run_id}"


def figures(html: str) -> list[dict]:
    found = re.findall(r'<script type="application/json" class="figure">(.*?)</script>', html, re.S)
    return [json.loads(each) for each in found]


def hidden(html: str, name: str) -> str:
    return re.search(rf'name="{name}" value="(\d*)"', html)[1]


def say(client, models: Models, number: int, word: str, why: str = "I read fifty answers", **changed):
    """An owner's word, given on the page of a candidate."""
    path = f"/gate/{models.sha256[number]}"
    form = {"word": word, "why": why, "seen": hidden(client.get(path).text, "seen"), **changed}
    return client.post(path, data=form)


def roll_back(client, why: str = "answers got longer", **changed):
    form = {"why": why, "last_switch": hidden(client.get("/ledger/rollback").text, "last_switch"), **changed}
    return client.post("/ledger/rollback", data=form)


def test_what_is_not_given_is_not_offered_and_the_page_says_how_to_get_it(site):
    owner = site.signed_in("owner")
    home = owner.get("/people").text
    for path in BOARDS:
        assert f'href="{path}"' not in home
        answer = owner.get(path)
        assert answer.status_code == 200 and "prefloop label serve --" in Seen(answer.text).text
    for path in ("/runs/0", "/audits/0", "/gate/0", "/ledger/rollback"):
        assert owner.get(path).status_code == 404
    assert owner.post("/ledger/rollback", data={"why": "x", "last_switch": "1"}).status_code == 404
    assert owner.post("/gate/0", data={"why": "x", "word": "hold", "seen": ""}).status_code == 404


def test_a_directory_that_is_not_there_is_not_offered_either(tmp_path):
    gone = str(tmp_path / "gone")
    made = site_with(tmp_path, pairs(1), runs=(gone,), audits=gone, registry=gone)
    with made.store:
        reviewer = made.signed_in("reviewer")
        assert all(f'href="{path}"' not in reviewer.get("/people").text for path in BOARDS)
        assert all("prefloop label serve --" in reviewer.get(path).text for path in BOARDS)
        assert not Path(gone).exists()


def test_annotators_are_not_even_told_of_the_boards(board):
    home = board.signed_in("annotator").get("/").text
    reviewers = board.signed_in("reviewer").get("/people").text
    assert all(f'href="{path}"' not in home and f'href="{path}"' in reviewers for path in BOARDS)


def test_runs_are_listed_with_the_numbers_of_their_last_step(board, folder):
    os.utime(folder / "runs" / "done" / "metrics.jsonl", (1, 1))
    os.utime(folder / "runs" / "done" / "inputs.json", (1, 1))
    os.utime(folder / "runs" / "done" / "result.json", (1, 1))
    (folder / "runs" / "no run").mkdir()
    html = board.signed_in("reviewer").get("/runs").text
    cells = [re.findall(r"<t[dh].*?</t[dh]>", row, re.S) for row in re.findall(r"<tr>.*?</tr>", html, re.S)][1:]
    rows = [" ".join(" ".join(Seen(cell).text for cell in row).split()) for row in cells]
    assert [row.split()[0] for row in rows] == ["going", "done"]
    assert rows[0].startswith(f"going train policy unfinished {STEPS} 1.5 3 50 1.5 ")
    assert " KL budget " in rows[1] and rows[1].endswith(" days ago")


def test_a_run_has_its_curves_budget_and_alarms(board):
    html = board.signed_in("reviewer").get(address(board, "done")).text
    seen = Seen(html).text
    assert "train policy, KL budget, step 30" in seen and "read these responses" in seen
    drawn = figures(html)
    both = ["score that is optimised", "held-out score"]
    drift = next(each for each in drawn if [trace["name"] for trace in each["data"]] == both)
    assert drift["data"][0]["y"] == pytest.approx([0.05 * number for number in range(1, STEPS + 1)])
    assert drift["data"][1]["y"][-1] == pytest.approx(0.4)
    kl = next(each for each in drawn if [trace["name"] for trace in each["data"]][-1] == f"budget {BUDGET:g}")
    assert kl["data"][0]["y"][-1] == pytest.approx(3.0) and kl["data"][1]["y"] == [BUDGET, BUDGET]
    assert {shape["x0"] for shape in kl["layout"]["shapes"]} == {20.0, 25.0}
    titles = re.findall(r"<h3>(.*?)</h3>", html)
    wanted = ("Score of the reward model", "Entropy, nats per token", "Tokens per response", "Held-out score")
    assert set(wanted) <= set(titles)


def test_only_a_run_that_goes_on_loads_its_page_again(board, folder):
    reviewer = board.signed_in("reviewer")
    again = '<meta http-equiv="refresh" content="10">'
    assert again in reviewer.get(address(board, "going")).text
    assert again not in reviewer.get(address(board, "going") + "?reload=no").text
    assert again not in reviewer.get(address(board, "done")).text
    assert again in reviewer.get("/runs").text
    (folder / "runs" / "going" / "result.json").write_text('{"command": "train policy", "stopped": "done"}')
    assert again not in reviewer.get("/runs").text
    assert reviewer.get("/runs?reload=maybe").status_code == 422


@pytest.mark.parametrize(
    "end",
    [b'{"step": 31, "score/mean": 0.', b"\xff\xfe\x00", b"[" * 100_000, b'{"step": "x", "kl/full": 1e999}\n', b"[1]\n"],
    ids=["half", "bytes", "deep", "odd", "list"],
)
def test_a_log_that_is_being_written_or_damaged_is_shown_as_far_as_it_goes(board, folder, end):
    for name in ("metrics.jsonl", "alarms.jsonl"):
        with (folder / "runs" / "going" / name).open("ab") as file:
            file.write(end)
    reviewer = board.signed_in("reviewer")
    html = reviewer.get(address(board, "going")).text
    assert figures(html)[0]["data"][0]["y"][-1] == pytest.approx(0.05 * STEPS)
    assert f'data-name="Step">{STEPS}</td>' in reviewer.get("/runs").text
    assert html.count("read these responses") == 2


def test_a_result_that_is_none_is_told(board, folder):
    (folder / "runs" / "done" / "result.json").write_text("{")
    reviewer = board.signed_in("reviewer")
    assert "result.json: is not JSON" in Seen(reviewer.get("/runs").text).text
    told = reviewer.get(address(board, "done"), headers=HTML)
    assert told.status_code == 422 and "result.json: is not JSON" in Seen(told.text).text
    (folder / "runs" / "done" / "result.json").write_text('{"command": "train policy", "outputs": 3}')
    assert reviewer.get(address(board, "done")).status_code == 422


def test_of_a_long_log_a_part_is_read_the_ends_among_it(folder, monkeypatch):
    path = folder / "runs" / "done"
    write_lines(path / "metrics.jsonl", [step(number) for number in range(1, 3001)])
    monkeypatch.setattr(run_files, "WHOLE_BYTES", 10_000)
    monkeypatch.setattr(run_files, "NUM_LINES", 50)
    monkeypatch.setattr(run_files, "TAIL_BYTES", 1000)
    (run,) = [run for run in runs_in([str(folder / "runs")]) if run.path == path]
    steps = [row["step"] for _, row in rows_of(run)]
    assert steps == sorted(set(steps)) and 45 <= len(steps) <= 60
    assert steps[0] == 1 and steps[-1] == 3000 and max(b - a for a, b in itertools.pairwise(steps)) < 120
    assert state_of(run).step == 3000


def test_other_runs_show_all_that_they_measured(board, folder):
    make_run(folder / "runs" / "sft", command="train sft")
    html = board.signed_in("reviewer").get(address(board, "sft")).text
    assert "Curves" in Seen(html).text and len(figures(html)) >= 8


def test_audits_are_listed_and_shown_with_evidence_and_remedy(board, folder):
    make_audit(folder / "audits", "b", severity="ok", text="clean.jsonl")
    reviewer = board.signed_in("reviewer")
    listed = Seen(reviewer.get("/audits").text).text
    assert listed.index("block") < listed.index("length") and "clean.jsonl" in listed
    html = reviewer.get(f"/audits/{'a' * 64}").text
    seen = Seen(html).text
    assert "What to do:" in seen and "line 7" in seen and "Words is paid" in seen and "measured" in seen
    assert figures(html)[0]["data"][0]["x"] == [0.9]
    (folder / "audits" / f"{'c' * 64}.json").write_text('{"verdict": "fine"}')
    stored = json.loads((folder / "audits" / f"{'a' * 64}.json").read_text())
    (folder / "audits" / f"{'d' * 64}.json").write_text(json.dumps({**stored, "verdict": "splendid"}))
    stored["findings"][0]["examples"] = [{"line": 1}]
    (folder / "audits" / f"{'e' * 64}.json").write_text(json.dumps(stored))
    assert Seen(reviewer.get("/audits").text).text.count("is no report of an audit") == 2
    assert reviewer.get(f"/audits/{'d' * 64}").status_code == reviewer.get(f"/audits/{'e' * 64}").status_code == 422


def test_the_gate_shows_its_last_decision_check_by_check(board, models):
    assert models.ask_gate(2, low=48.0) == "hold"
    reviewer = board.signed_in("reviewer")
    assert "hold" in Seen(reviewer.get("/gate").text).text
    html = reviewer.get(f"/gate/{models.sha256[2]}").text
    seen = " ".join(Seen(html).text.split())
    assert "hold: not shown to be good enough" in seen and "compared with helper:1" in seen
    assert "the interval crosses the limit" in seen and "48 to 64" in seen and "evaluations.jsonl" in seen
    assert '<form method="post" action="/gate' not in html
    assert "No gate has decided" in Seen(reviewer.get(f"/gate/{models.sha256[3]}").text).text


def test_an_owners_yes_is_what_was_missing(board, models):
    assert models.ask_gate(2, people=1) == "hold"
    owner = board.signed_in("owner", "Olga")
    answer = say(owner, models, 2, "approve", "I read fifty\r\nanswers")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/gate/{models.sha256[2]}")
    event = models.events()[-1]
    values = event.values
    assert (event.kind, event.who, event.why, values["verdict"]) == (
        "decided",
        "Olga",
        "I read fifty\nanswers",
        "promote",
    )
    (word,) = values["approvals"]
    assert (word["by"], word["approved"], word["why"]) == ("Olga", True, "I read fifty\nanswers")
    # The evidence, the files and the limits are those of the decision before: a word is no way to lower the bar.
    before = models.events()[-2].values
    assert all(values[key] == before[key] for key in ("evaluations", "files", "limits", "audits"))
    line = log_of(board.store)[-1]
    assert line.who == board.people["Olga"].annotator_id and line.what == "approved"
    assert line.about == "helper:2 (the gate: promote): I read fifty\nanswers"
    assert models.live() == 1
    models.promote("helper:2")
    assert models.live() == 2
    assert "it allows no promotion any more" in Seen(owner.get(f"/gate/{models.sha256[2]}").text).text


def test_a_no_holds_until_the_same_person_takes_it_back(board, models):
    assert models.ask_gate(2) == "promote"
    olga, otto = board.signed_in("owner", "Olga"), board.signed_in("owner", "Otto")
    assert say(olga, models, 2, "hold", "it flatters").status_code == 303
    assert models.events()[-1].values["verdict"] == "hold"
    assert "Olga said no: it flatters" in Seen(otto.get(f"/gate/{models.sha256[2]}").text).text
    # Neither another owner's yes nor the same evidence again, by command line, gets past it.
    assert say(otto, models, 2, "approve").status_code == 303
    assert models.events()[-1].values["verdict"] == "hold"
    assert models.ask_gate(2, by="Rita") == "hold"
    assert [word.by for word in refusals(models.events(), models.sha256[2])] == ["Olga"]
    assert say(olga, models, 2, "approve", "read again").status_code == 303
    assert models.events()[-1].values["verdict"] == "promote"
    assert [line.what for line in log_of(board.store)][-3:] == ["held", "approved", "approved"]
    assert models.ask_gate(2) == "promote"


def test_a_no_to_what_is_live_asks_for_a_rollback(board, models):
    models.ask_gate(2)
    models.promote("helper:2")
    assert say(board.signed_in("owner"), models, 2, "hold").status_code == 303
    assert models.events()[-1].values["verdict"] == "rollback" and models.live() == 2


def test_a_word_without_any_evidence_is_recorded_and_holds(board, models):
    owner = board.signed_in("owner")
    assert say(owner, models, 3, "approve").status_code == 303
    values = models.events()[-1].values
    assert values["verdict"] == "hold" and [check["passed"] for check in values["checks"]].count(True) == 1


def test_audits_of_the_last_decision_still_count(board, models, folder):
    """The ledger has their verdicts only. Findings that may be borne are looked up where reports are kept; without them
    a report that blocks does so as a whole."""
    report = make_audit(folder / "elsewhere", text=str(models.reward), sha256=sha256_of(models.reward))
    models.ask_gate(2)
    with opened(models.root) as registry:
        values = registry.last.values
        kept = {key: getattr(report, key) for key in ("subject", "subject_sha256", "verdict", "at")}
        limits = {**values["limits"], "audit": {"required": True, "accept_findings": ["length"]}}
        registry.append("decided", {**values, "audits": [kept], "limits": limits}, who="a test", why="")
    owner = board.signed_in("owner")

    def audit_check():
        assert say(owner, models, 2, "approve").status_code == 303
        return next(each for each in models.events()[-1].values["checks"] if each["name"].startswith("audit:"))

    assert audit_check()["reason"].startswith(f"the audit of {models.reward} blocks: unknown findings")
    store_audit(report, folder / "audits")
    assert audit_check()["reason"].endswith("says: block; what blocks was accepted")
    assert len(models.events()[-1].values["audits"]) == 1


@pytest.mark.parametrize(
    "changed", [{"why": " \r\n "}, {"why": "x" * 1001}, {"word": "promote"}, {"seen": "-1"}, {"seen": "9" * 99}]
)
def test_a_word_that_is_none_changes_nothing(board, models, changed):
    models.ask_gate(2)
    owner, before, log = board.signed_in("owner"), models.bytes(), len(log_of(board.store))
    assert say(owner, models, 2, **{"word": "approve", **changed}).status_code == 422
    assert models.bytes() == before and len(log_of(board.store)) == log


def test_who_has_looked_at_an_older_decision_looks_again(board, models):
    models.ask_gate(2)
    owner = board.signed_in("owner")
    seen = hidden(owner.get(f"/gate/{models.sha256[2]}").text, "seen")
    models.ask_gate(2, low=10.0)
    before = models.bytes()
    answer = say(owner, models, 2, "approve", seen=seen)
    assert answer.status_code == 409 and "meanwhile; look again" in answer.text
    assert models.bytes() == before


def test_the_ledger_says_who_did_what_and_why(board, models):
    models.ask_gate(2)
    models.promote("helper:2")
    for role in ("reviewer", "owner"):
        seen = " ".join(Seen(board.signed_in(role).get("/ledger").text).text.split())
        assert "The chain of 7 events verifies." in seen and "Live: helper:2. A rollback returns to helper:1" in seen
        newest_first = ["promoted helper:2", "gate: promote helper:2", "registered helper:1"]
        assert sorted(newest_first, key=seen.index) == newest_first
        assert ("Roll back" in seen) == (role == "owner")


def test_an_owner_rolls_back_after_a_page_that_asks(board, models):
    models.ask_gate(2)
    models.promote("helper:2")
    owner = board.signed_in("owner", "Olga")
    page = Seen(owner.get("/ledger/rollback").text).text
    assert "Live is helper:2" in page and "Make helper:1 live again" in page and models.live() == 2
    answer = roll_back(owner)
    assert (answer.status_code, answer.headers["location"]) == (303, "/ledger")
    event = models.events()[-1]
    assert (event.kind, event.who, event.why, models.live()) == ("rolled_back", "Olga", "answers got longer", 1)
    line = log_of(board.store)[-1]
    assert (line.what, line.about) == ("rolled back", "helper:1 is live again: answers got longer")
    assert "rolled back helper:2 to helper:1" in Seen(owner.get("/ledger").text).text


def test_without_a_version_before_nothing_is_rolled_back(board, models):
    owner, before = board.signed_in("owner"), models.bytes()
    page = Seen(owner.get("/ledger/rollback").text).text
    assert "helper:1 is the first version that was ever live" in page and "live again" not in page
    answer = owner.post("/ledger/rollback", data={"why": "x", "last_switch": "5"}, headers=HTML)
    assert answer.status_code == 422 and "there is nothing to roll back to" in Seen(answer.text).text
    assert models.bytes() == before


def test_what_hinders_a_rollback_is_said_and_changes_nothing(board, models, monkeypatch):
    monkeypatch.setattr(ledger_routes, "PATIENCE_SECONDS", 0.05)
    models.ask_gate(2)
    models.promote("helper:2")
    owner, before, log = board.signed_in("owner"), models.bytes(), len(log_of(board.store))
    seen = hidden(owner.get("/ledger/rollback").text, "last_switch")
    for changed in ({"why": ""}, {"last_switch": ""}, {"last_switch": "x"}):
        assert roll_back(owner, **changed).status_code == 422
    stale = roll_back(owner, last_switch=str(int(seen) - 1))
    assert stale.status_code == 409 and "what is live changed meanwhile: helper:2 is live now" in stale.text
    with locked(models.root / "lock"):
        busy = owner.post("/ledger/rollback", data={"why": "x", "last_switch": seen})
        assert busy.status_code == owner.get("/ledger").status_code == owner.get("/gate").status_code == 503
        assert "is in use by another command; try again" in busy.text
    assert models.bytes() == before
    (models.root / "versions" / models.sha256[1] / "model.safetensors").write_text("weights 9")
    altered = models.bytes()
    answer = roll_back(owner)
    assert answer.status_code == 409 and "helper:1 cannot go live: the weights were altered" in answer.text
    assert models.bytes() == altered and models.live() == 2 and len(log_of(board.store)) == log


def test_nothing_is_done_on_a_ledger_that_does_not_verify(board, models):
    models.ask_gate(2)
    models.promote("helper:2")
    owner = board.signed_in("owner")
    connection = sqlite3.connect(models.root / "ledger.sqlite")
    connection.executescript("DROP TRIGGER events_are_not_changed; UPDATE events SET why = 'mine' WHERE number = 3;")
    connection.close()
    before = models.bytes()
    page = owner.get("/ledger")
    assert "The ledger does not verify" in page.text and "event 3: was changed" in page.text and "mine" in page.text
    assert "Roll back" not in page.text and "live again" not in owner.get("/ledger/rollback").text
    assert owner.get("/gate").status_code == 200 and owner.get(f"/gate/{models.sha256[2]}").status_code == 404
    refused = owner.post("/ledger/rollback", data={"why": "x", "last_switch": "7"})
    assert refused.status_code == 409 and "does not verify" in refused.text
    assert models.bytes() == before


def test_reviewers_and_annotators_change_nothing(board, models):
    models.ask_gate(2)
    models.promote("helper:2")
    before = models.bytes()
    for role in ("annotator", "reviewer"):
        client = board.signed_in(role)
        for path in ("/ledger/rollback", f"/gate/{models.sha256[2]}"):
            form = {"why": "x", "last_switch": "7", "word": "hold", "seen": "6"}
            assert client.post(path, data=form).status_code == 403
        assert client.get("/ledger/rollback").status_code == 403
    owner = board.signed_in("owner")
    for path in ("/ledger/rollback", f"/gate/{models.sha256[2]}"):
        assert owner.post(path, data={"why": "x"}, headers={"Origin": "https://evil.example"}).status_code == 403
    assert models.bytes() == before


def harmless(html: str) -> None:
    """As on every page, and with figures: their numbers stand in elements that run nothing."""
    require_ours(re.sub(r'<script type="application/json" class="figure">[^<>&]*</script>', "", html))


def test_what_runs_audits_and_reasons_say_stays_text(tmp_path):
    """Every payload as name of a run or audit, in their files, and as who and why of the ledger."""
    runs, audits = tmp_path / "runs", tmp_path / "audits"
    names = [each for each in PAYLOADS if "/" not in each and "\0" not in each and len(each.encode()) < 250]
    assert len(names) > 60
    for number, name in enumerate(names[::4]):
        make_run(runs / name, finished=number % 2 == 0, text=PAYLOADS[number])
        make_run(runs / f"sft {number}", command=PAYLOADS[-1 - number], text=PAYLOADS[number])
    make_run(Path(os.fsdecode(os.fsencode(runs) + b"/\xff<b>")))
    for number, payload in enumerate(PAYLOADS[::25]):
        make_audit(audits, "0123456789"[number], text=payload)
    models = Models(tmp_path, text=PAYLOADS[0])
    models.ask_gate(2)
    places = {"runs": (str(runs),), "audits": str(audits), "registry": str(models.root)}
    made = site_with(tmp_path, pairs(1), **places)
    with made.store:
        owner = made.signed_in("owner", "<script>alert(1)</script>")
        for payload in PAYLOADS[:2]:
            assert say(owner, models, 2, "hold", payload).status_code == 303
        paths = [f"/runs/{run.run_id}" for run in runs_in(made.config.runs)]
        paths += [f"/audits/{path.stem}" for path in audits.iterdir()]
        paths += [*BOARDS, f"/gate/{models.sha256[2]}", "/ledger/rollback", "/log"]
        assert len(paths) > 45
        for path in paths:
            page = owner.get(path, headers=HTML)
            assert page.status_code == 200, (path, page.text)
            harmless(page.text)
        assert "&lt;script&gt;alert(1)" in owner.get("/ledger").text


def test_no_address_becomes_a_path(board, models, folder):
    (folder / "runs" / "secret.txt").write_text("root:")
    owner = board.signed_in("owner")
    tried = [*traversals()[::20], "done", "going", "secret.txt", "%2e", "%2e%2e", "..%2fruns%2fdone", "%00", "%ff"]
    tried += [models.sha256[2][:8], f"{'a' * 64}.json", "A" * 64, "helper:2", "rollback%2f.."]
    for path in tried:
        for before in ("/runs/", "/audits/", "/gate/"):
            answer = owner.get(before + path)
            assert answer.status_code in (400, 404, 405), before + path
            assert "root:" not in answer.text and "SQLite" not in answer.text
    assert find_run(board.config.runs, "../done") is None


def test_a_static_file_is_sent_once(site):
    visitor = site.visitor()
    first = visitor.get("/static/plotly.js")
    assert first.status_code == 200 and len(first.content) > 1_000_000 and first.headers["cache-control"] == "no-cache"
    again = visitor.get("/static/plotly.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    assert visitor.get("/static/boards.css", headers={"If-None-Match": first.headers["etag"]}).status_code == 200


@pytest.fixture
def boards_served(folder: Path, models: Models):
    places = {"runs": (str(folder / "runs"),), "audits": str(folder / "audits"), "registry": str(models.root)}
    with serving(folder, pairs(1), **places) as made:
        yield made


def test_figures_are_drawn_under_the_policy_and_the_page_loads_again(browser, boards_served, folder, monkeypatch):
    monkeypatch.setattr("prefloop.app.run_routes.RELOAD_SECONDS", 600)
    name = "<img src=x onerror=alert(1)>"
    make_run(folder / "runs" / name, finished=False, text="<script>alert(1)</script>")
    window = Window(browser, boards_served).enter("Rita", "reviewer")
    page = window.page
    page.set_default_timeout(60_000)
    blocked = []
    page.on("console", lambda message: blocked.append(message.text) if message.type == "error" else None)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(boards_served.url + "/runs")
    page.get_by_role("link", name=name).click()
    page.locator(".js-plotly-plot .main-svg").nth(5).wait_for()
    assert page.inner_text("h1") == name and page.locator("main img").count() == 0
    plot = page.locator(".plot").nth(1)
    assert plot.locator(".main-svg").first.evaluate("each => getComputedStyle(each).position") == "absolute"
    # One thing is blocked: the style sheet that plotly.js has for maps.
    assert len(blocked) <= 1 and all("inline style" in text for text in blocked)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    monkeypatch.setattr("prefloop.app.run_routes.RELOAD_SECONDS", 1)
    page.reload(wait_until="commit")
    with (folder / "runs" / name / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(step(77)) + "\n")
    page.get_by_text("step 77").wait_for()
    assert (window.outside, window.dialogs, window.errors) == ([], [], [])
    window.close()


def test_a_rollback_needs_no_script(browser, boards_served, models):
    models.ask_gate(2)
    models.promote("helper:2")
    window = Window(browser, boards_served, java_script_enabled=False)
    page = window.page
    page.goto(boards_served.url + "/enter")
    page.fill("#code", boards_served.code("owner", "Olga"))
    page.click("text=Sign in >> nth=-1")
    page.goto(boards_served.url + "/ledger")
    page.click("text=Roll back")
    page.fill("#why", "answers got longer")
    page.click("text=Make helper:1 live again")
    page.get_by_text("Live: helper:1").wait_for()
    assert models.live() == 1 and models.events()[-1].who == "Olga"
    window.close()
