"""`label stats` and `label export` through the command line, on a database in which people have voted."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.label.conftest import unsynced

from prefloop.audits import find_audit
from prefloop.data.dialogue import short_hash
from prefloop.data.read import read_pairs
from prefloop.label.assign import next_task
from prefloop.label.config import Quotas
from prefloop.label.intake import import_rows
from prefloop.label.people import invite, redeem
from prefloop.label.records import Submission
from prefloop.label.settle import settle
from prefloop.label.store import open_store
from prefloop.label.votes import submit
from prefloop.review.verdicts import read_queue, read_verdicts, settled
from prefloop.rundir import sha256_of, write_rows

NUM_ITEMS = 40


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ann always finds the right answer, Bob in three of four, both on every item, with repetitions and gold."""
    folder = tmp_path_factory.mktemp("label")
    rows: list[dict[str, Any]] = [
        {"prompt": f"What is {n} + {n}?", "response_a": f"{2 * n}", "response_b": f"{2 * n + 1}"}
        for n in range(NUM_ITEMS)
    ]
    rows += [{**row, "prompt": f"Now: {row['prompt']}", "gold": "a"} for row in rows[:5]]
    write_rows(folder / "rows.jsonl", rows)
    rng = random.Random(1)
    with open_store(str(folder / "label.sqlite")) as store:
        unsynced(store)
        import_rows(store, folder / "rows.jsonl")
        for name, rate in (("Ann [x]", 1.0), ("Bob", 0.75)):
            redeemed = redeem(store, invite(store, name=name, role="annotator", by="test"))
            assert redeemed is not None
            who = redeemed[0].annotator_id
            while task := next_task(store, who, quotas=Quotas(overlap=1, repeats=0.1, gold=0.1)):
                choice = "a" if rng.random() < rate else "b"
                submit(store, who, Submission(f"{who}-{task.assignment_id}", task.assignment_id, choice, "clearly"))
    return folder / "label.sqlite"


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_stats_for_people_and_programs(prefloop: Callable[..., Any], database: Path, tmp_path: Path) -> None:
    queue, page = tmp_path / "queue.jsonl", tmp_path / "stats.html"
    outcome = prefloop(
        *("label stats", "--database", database, "--num-resamples", 100, "--queue", queue, "--html", page),
    )
    assert outcome.code == 0, outcome.said
    pair = outcome.answer["pair"]
    assert pair["num_shared"] == NUM_ITEMS
    ids = {one["annotator_id"]: one for one in pair["annotators"]}
    gold = sorted(one["gold"]["value"] for one in ids.values())
    assert gold[1] == 1.0 and pair["consistency"]["n"] > 5
    # Ann and Bob differ exactly where Bob is wrong, and those are the queue.
    wrong = pair["agreement"]["n"] - pair["agreement"]["count"]
    assert pair["num_disagreements"] == wrong == len(rows_of(queue)) > 5
    html = page.read_text()
    assert "Ann [x]" not in html and all(name in html for name in ids)


def test_stats_on_the_terminal(capsys: pytest.CaptureFixture[str], database: Path) -> None:
    from prefloop.cli import main

    assert main(["label", "stats", "--database", str(database), "--num-resamples", "50"]) == 0
    text = capsys.readouterr().out
    for part in ("Ann [x]", "Bob", "Krippendorff's alpha", "trained people: 73% to 77%", "to adjudicate:"):
        assert part in text


def test_the_export_is_audited_and_training_finds_the_verdict(
    prefloop: Callable[..., Any], database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = prefloop("label export", "--database", database, "--out", "pairs.jsonl", "--votes", "votes.jsonl")
    assert outcome.code == 0, outcome.said
    report = find_audit(sha256_of(Path("pairs.jsonl")))
    assert report is not None and report.verdict == outcome.answer["audit"]["verdict"]
    assert outcome.answer["num_pairs"] == len(rows_of(Path("pairs.jsonl")))
    assert outcome.answer["without_pair"]["undecided"] == NUM_ITEMS - outcome.answer["num_pairs"]
    # The majority of both is right, since Ann is.
    assert all(int(row["chosen"]) < int(row["rejected"]) for row in rows_of(Path("pairs.jsonl")))


def test_the_votes_say_the_same_as_the_pairs(prefloop: Callable[..., Any], database: Path, tmp_path: Path) -> None:
    pairs, votes = tmp_path / "pairs.jsonl", tmp_path / "votes.jsonl"
    prefloop("label export", "--database", database, "--out", pairs, "--votes", votes, "--audits", tmp_path / "audits")
    rows = rows_of(votes)
    assert sum(row["is_repeat"] for row in rows) > 5 and sum("gold" in row for row in rows) > 5
    assert len({row["annotator_id"] for row in rows}) == 2

    def wanted(path: Path) -> set[tuple[str, str]]:
        read = read_pairs([str(path)]).records
        found = {(pair.prompt.messages[-1].content, pair.chosen) for pair in read}
        return {each for each in found if not each[0].startswith("Now:")}

    assert wanted(votes) == wanted(pairs)


@pytest.mark.parametrize("method", ["majority", "bradley-terry", "dawid-skene"])
def test_strict_trl_has_three_columns(
    prefloop: Callable[..., Any], database: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "pairs.jsonl"
    words = ("label export", "--database", database, "--out", out, "--audits", tmp_path / "audits", "--method", method)
    assert prefloop(*words, "--strict-trl").code == 0
    assert {tuple(row) for row in rows_of(out)} == {("prompt", "chosen", "rejected")}
    # Other content never replaces it.
    again = prefloop(*words)
    assert again.code == 2 and "exists with other content" in again.said


def test_what_was_adjudicated_is_marked_and_the_votes_are_kept(
    prefloop: Callable[..., Any], database: Path, tmp_path: Path
) -> None:
    """Rita settles every item on which Ann and Bob differ, two of them as nobody had it."""
    copy = tmp_path / "label.sqlite"
    shutil.copy(database, copy)
    before = prefloop("label stats", "--database", copy, "--num-resamples", 10).answer["pair"]
    with open_store(str(copy)) as store:
        unsynced(store)
        redeemed = redeem(store, invite(store, name="Rita", role="reviewer", by="test"))
        assert redeemed is not None
        rita = redeemed[0].annotator_id
        queue = [each["item_id"] for each in before["disagreements"]]
        for number, item_id in enumerate(queue):
            settle(store, rita, item_id, "tie" if number < 2 else "a", strength=None if number < 2 else "slightly")
    shared = ("--database", copy, "--audits", tmp_path / "audits")
    pairs, votes = tmp_path / "pairs.jsonl", tmp_path / "votes.jsonl"
    answer = prefloop("label export", *shared, "--out", pairs, "--votes", votes).answer
    marked = [row for row in rows_of(pairs) if row.get("adjudicated")]
    assert answer["num_adjudicated"] == len(marked) == len(queue) - 2
    assert answer["num_pairs"] == len(rows_of(pairs)) == NUM_ITEMS - 2 and answer["without_pair"]["ties"] == 2
    assert all(int(row["chosen"]) < int(row["rejected"]) and row["strength"] == 1 / 3 for row in marked)
    assert {row["annotator_id"] for row in marked} == {rita}
    # Both votes on each are there, with what settled it beside them.
    cast = [row for row in rows_of(votes) if "adjudicated" in row and not row["is_repeat"]]
    assert len(cast) == 2 * len(queue) and {row["choice"] for row in cast} == {"a", "b"}
    assert Counter(row["adjudicated"] for row in cast) == {"tie": 4, "a": 2 * len(queue) - 4}
    assert rita not in {row["annotator_id"] for row in rows_of(votes)}
    # Read as training reads them, marks and all; and without them.
    assert len(read_pairs([str(pairs)]).records) == NUM_ITEMS - 2
    assert prefloop("label export", *shared, "--out", tmp_path / "trl.jsonl", "--strict-trl").code == 0
    assert {tuple(row) for row in rows_of(tmp_path / "trl.jsonl")} == {("prompt", "chosen", "rejected")}
    after = prefloop("label stats", "--database", copy, "--num-resamples", 10).answer["pair"]
    assert (after["num_disagreements"], after["num_adjudicated"], after["disagreements"]) == (0, len(queue), [])
    same = before.keys() - {"num_disagreements", "num_adjudicated", "disagreements"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


def test_what_cannot_be_exported(prefloop: Callable[..., Any], database: Path, tmp_path: Path) -> None:
    def problem(*words: object) -> str:
        outcome = prefloop("label export", "--database", database, *words)
        assert outcome.code == 2
        return str(outcome.said)

    assert "give out, votes or verdicts" in problem()
    assert "ends in .jsonl" in problem("--out", tmp_path / "pairs.csv")
    assert "leave keep_ties out" in problem("--out", tmp_path / "p.jsonl", "--strict-trl", "--keep-ties")
    assert "nobody gave a verdict yet" in problem("--verdicts", tmp_path / "v.jsonl")
    missing = prefloop("label stats", "--database", tmp_path / "none.sqlite")
    assert missing.code == 2 and "no such database" in missing.said


def test_verdicts_of_a_review(prefloop: Callable[..., Any], tmp_path: Path) -> None:
    texts = [(f"Question {n}?", f"Answer {n}.") for n in range(4)]
    rows = [
        {"task": "review", "item_id": short_hash(*each), "prompt_id": each[0], "prompt": each[0], "response": each[1]}
        | {"reasons": ["chance"], "draws": 1, "copies": 1, "num_rows": 4}
        for each in texts
    ]
    write_rows(tmp_path / "queue.jsonl", rows)
    database = str(tmp_path / "label.sqlite")
    with open_store(database) as store:
        import_rows(store, tmp_path / "queue.jsonl")
        redeemed = redeem(store, invite(store, name="Rita", role="reviewer", by="test"))
        assert redeemed is not None
        who = redeemed[0].annotator_id
        for number in range(4):
            task = next_task(store, who, quotas=Quotas(repeats=0, gold=0))
            assert task is not None
            choice = ("hack", "not_a_hack", "unsure", "hack")[number]
            reason = "invented page" if choice == "hack" else None
            submit(store, who, Submission(f"s{number}", task.assignment_id, choice, reason=reason))
    outcome = prefloop("label export", "--database", database, "--verdicts", tmp_path / "verdicts.jsonl")
    assert outcome.code == 0, outcome.said
    found = rows_of(tmp_path / "verdicts.jsonl")
    assert [row["verdict"] for row in found] == ["hack", "not_a_hack", "unsure", "hack"]
    assert found[0] == {**found[0], "reviewer": who, "kind": "invented page"} and "kind" in found[1]
    # `review precision` takes them with the queue as it was imported.
    asked = read_queue(str(tmp_path / "queue.jsonl"))
    said, left_out = read_verdicts(str(tmp_path / "verdicts.jsonl"), asked, skip_bad=False)
    assert (len(said), left_out) == (4, 0) and {each.item_id for each in said} == {each.item_id for each in asked}
    assert Counter(each.verdict for each in said) == {"hack": 2, "not_a_hack": 1, "unsure": 1}
    assert prefloop("label stats", "--database", database).answer["review"]["num_votes"] == 4
    # Olga settles the first one, against Rita: that is its verdict, and no disagreement of two reviewers.
    with open_store(database) as store:
        redeemed = redeem(store, invite(store, name="Olga", role="owner", by="test"))
        assert redeemed is not None
        settle(store, redeemed[0].annotator_id, found[0]["item_id"], "not_a_hack", note="it exists")
    prefloop("label export", "--database", database, "--verdicts", tmp_path / "verdicts.jsonl")
    (row,) = [row for row in rows_of(tmp_path / "verdicts.jsonl") if row.get("adjudicated")]
    assert (row["item_id"], row["verdict"], row["reviewer"]) == (
        found[0]["item_id"],
        "not_a_hack",
        redeemed[0].annotator_id,
    )
    said, _ = read_verdicts(str(tmp_path / "verdicts.jsonl"), asked, skip_bad=False)
    assert len(said) == 5 and settled(said) == {
        each["item_id"]: "not_a_hack" if each is found[0] else each["verdict"] for each in found
    }
    told = prefloop("review precision", tmp_path / "queue.jsonl", tmp_path / "verdicts.jsonl").answer
    assert (told["num_hack"], told["num_not_a_hack"], told["agreement"]) == (1, 2, None)
