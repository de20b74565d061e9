"""Files to questions: what is read, what is refused and where, and that it is all or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefloop.cli import main
from prefloop.label.intake import import_rows
from prefloop.label.records import Item
from prefloop.label.store import Store, open_store
from prefloop.label.votes import items_of
from prefloop.review.detectors import Logged, Suspicion
from prefloop.review.queue import as_row, make_queue
from prefloop.rundir import write_rows
from prefloop.types import InputError


def bring(store: Store, tmp_path: Path, *rows: dict[str, Any], **settings: Any) -> dict[str, int]:
    write_rows(tmp_path / "rows.jsonl", rows)
    return import_rows(store, tmp_path / "rows.jsonl", **settings)


def only(store: Store) -> Item:
    (item,) = items_of(store).values()
    return item


def test_a_comparison_keeps_its_sides(store: Store, tmp_path: Path) -> None:
    row = {"comparison_id": 7, "prompt": "Why?", "response_a": "So.", "response_b": "Because.", "model_a": "m1"}
    bring(store, tmp_path, {**row, "gold": "b", "topic": ["x"]})
    item = only(store)
    assert (item.kind, item.prompt, item.response_a, item.response_b) == ("pair", "Why?", "So.", "Because.")
    assert (item.model_a, item.model_b, item.gold) == ("m1", None, "b")
    assert item.facts == {"comparison_id": "7", "topic": ["x"]}


def test_the_chosen_one_is_not_always_a(store: Store, tmp_path: Path) -> None:
    """Of 200 fair coins between 60 and 140 fall on one side, but for a chance of 1e-8."""
    rows = [{"prompt": f"p{n}", "chosen": f"good {n}", "rejected": f"bad {n}", "gold": "chosen"} for n in range(200)]
    assert bring(store, tmp_path, *rows)["gold"] == 200
    items = items_of(store).values()
    for item in items:
        assert {"a": item.response_a, "b": item.response_b}[item.gold or ""].startswith("good")
    assert 60 < sum(item.gold == "a" for item in items) < 140
    # The sides come from the texts alone: the same pair the other way round is the same question.
    swapped = [
        {"prompt": r["prompt"], "chosen": r["rejected"], "rejected": r["chosen"], "gold": "rejected"} for r in rows
    ]
    counts = bring(store, tmp_path, *swapped)
    assert (counts["new_items"], counts["already_there"]) == (0, 200)


def test_a_pair_of_whole_dialogues(store: Store, tmp_path: Path) -> None:
    turns = (("user", "Hi"), ("assistant", "Yes?"), ("user", "Go"))
    asked = [{"role": role, "content": content} for role, content in turns]
    first, second = ([*asked, {"role": "assistant", "content": text}] for text in "AB")
    bring(store, tmp_path, {"chosen": first, "rejected": second})
    item = only(store)
    assert item.prompt == "Human: Hi\n\nAssistant: Yes?\n\nHuman: Go"
    assert item.facts["messages"] == asked and {item.response_a, item.response_b} == {"A", "B"}


def test_of_several_responses_all_pairs_are_asked_or_some_by_lot(store: Store, tmp_path: Path) -> None:
    row = {"prompt": "Why?", "responses": ["one", "two", "three", "four"], "models": ["m1", "m2", "m3", "m4"]}
    assert bring(store, tmp_path, row)["new_items"] == 6
    named = {"one": "m1", "two": "m2", "three": "m3", "four": "m4"}
    items = list(items_of(store).values())
    assert len({frozenset((item.response_a, item.response_b)) for item in items}) == 6
    assert all((named[i.response_a], named[i.response_b or ""]) == (i.model_a, i.model_b) for i in items)
    assert bring(store, tmp_path, {**row, "prompt": "Who?"}, pairs_per_prompt=2)["new_items"] == 2


def test_responses_in_rows_of_their_own_are_gathered_by_prompt(store: Store, tmp_path: Path) -> None:
    """What `prefloop sample` writes."""
    rows = [
        {"prompt_id": "x", "prompt": p, "response": r, "finish_reason": "stop"}
        for p, r in ("pa", "pb", "qa", "pc", "pa")
    ]
    counts = bring(store, tmp_path, *rows)
    assert (counts["rows"], counts["new_items"], counts["prompts_with_one_response"]) == (5, 3, 1)
    assert {frozenset((i.response_a, i.response_b)) for i in items_of(store).values()} == {
        frozenset("ab"),
        frozenset("ac"),
        frozenset("bc"),
    }


def test_the_review_queue_as_it_is_exported(store: Store, tmp_path: Path) -> None:
    """The id is the queue's, so that verdicts find their item again."""
    logged = [
        Logged(prompt_id=f"p{number}", prompt="Why?", response="So!" * number, score=float(number), step=number)
        for number in range(4)
    ]
    found = [Suspicion(reasons=("kl",), value=1.0) for _ in logged]
    queue = make_queue(logged, found, size=4, random_fraction=0.25, per_prompt=9, seed=0, run="runs/ppo")
    rows = [as_row(item) for item in queue]
    assert bring(store, tmp_path, *rows)["reviews"] == len(rows) > 2
    items = items_of(store, kind="review")
    assert {item.item_id for item in queue} == set(items)
    for row in rows:
        item = items[row["item_id"]]
        assert (item.response_a, item.response_b, item.gold) == (row["response"], None, None)
        assert item.facts["score"] == row["score"] and item.facts["reasons"] == list(row["reasons"])
    with pytest.raises(InputError, match=":1: item_id: is not the hash of prompt and response"):
        bring(store, tmp_path, {**rows[0], "response": "So."})


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "p", "response_a": "x"}, "response_b: missing"),
        (
            {"prompt": "p", "response_a": "x", "response_b": " x "},
            "response_b: response_a and response_b are identical",
        ),
        ({"prompt": "p", "response_a": "x", "response_b": 3}, "response_b: "),
        ({"prompt": "p", "response_a": "x\0", "response_b": "y"}, "response_a: holds a NUL byte"),
        ({"prompt": "p\0", "response_a": "x", "response_b": "y"}, "prompt: holds a NUL byte"),
        ({"prompt": "\ud800", "response_a": "x", "response_b": "y"}, "prompt: holds half of a surrogate pair"),
        ({"prompt": " ", "response_a": "x", "response_b": "y"}, "prompt: the last user turn is empty"),
        ({"promt": "p", "response_a": "x", "response_b": "y"}, "promt: unknown field; did you mean prompt?"),
        ({"prompt": "p", "response_a": "x", "response_b": "y", "Gold": "a"}, "Gold: unknown field; did you mean gold?"),
        ({"prompt": "p", "response_a": "x", "response_b": "y", "gold": "left"}, "gold: unknown choice 'left'"),
        ({"prompt": "p", "chosen": "x", "rejected": "y", "gold": "a"}, "gold: unknown choice 'a'; give one of chosen"),
        ({"prompt": "p", "chosen": "x", "rejected": "y", "comparison_id": [1]}, "comparison_id: is a list"),
        ({"prompt": "p", "chosen": "x"}, "rejected: missing"),
        ({"response_a": "x", "response_b": "y"}, "prompt: missing"),
        ({"prompt": "p", "chosen": "x", "rejected": None}, "rejected: is null"),
        ({"task": "review", "prompt": "p"}, "response: missing"),
        ({"task": "review", "response": "r"}, "prompt: missing"),
        ({"prompt": "p", "response_a": "x", "response_b": "y", "choice": "a"}, "choice: votes are not imported"),
        ({"prompt": "p", "responses": ["x"]}, "responses: holds 1 of at least 2 responses"),
        ({"prompt": "p", "responses": ["x", "y"], "models": ["m"]}, "models: is no list of one name"),
        ({"prompt": "p", "responses": ["x", "y"], "gold": "a"}, "gold: a gold question has two responses"),
        ({"prompt": "p", "response": " "}, "response: is empty"),
        ({"prompt": "p"}, "response_a: the row has no responses"),
        ({"prompt": "p", "respons": "x"}, "respons: unknown field; did you mean response?"),
        ({"task": "rank", "prompt": "p"}, "task: unknown task 'rank'; give review"),
        ({"task": "review", "prompt": "p", "response": "r", "gold": "a"}, "gold: unknown choice 'a'; give one of hack"),
        ({"task": "review", "prompt": "p", "response": "r", "verdict": "hack"}, "verdict: votes are not imported"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_imported(
    store: Store, tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    good = {"prompt": "good", "response_a": "x", "response_b": "y"}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, (good, {**good, "prompt": "also"}, row))))
    with pytest.raises(InputError) as refused:
        import_rows(store, path)
    assert str(refused.value).startswith(f"{path}:3: {problem}")
    assert items_of(store) == {}


@pytest.mark.parametrize(
    "text", ["{", '{"prompt": 1e999}', "[1]", '{"prompt": NaN}', "", '{"prompt": ' + "9" * 5000 + "}"]
)
def test_broken_files_are_refused(store: Store, tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=r"rows\.jsonl"):
        import_rows(store, path)


def test_a_contradiction_is_refused(store: Store, tmp_path: Path) -> None:
    row = {"prompt": "p", "response_a": "x", "response_b": "y", "comparison_id": "c"}
    with pytest.raises(InputError, match=":2: gold: contradicts line 1"):
        bring(store, tmp_path, {**row, "gold": "a"}, {**row, "gold": "b"})
    with pytest.raises(InputError, match=":2: comparison_id: 'c' is that of line 1 already"):
        bring(store, tmp_path, row, {**row, "response_b": "z"})
    assert bring(store, tmp_path, {**row, "gold": "a"}, row | {"gold": "a"})["repeated_rows"] == 1
    with pytest.raises(InputError, match=":2: gold: differs from the database, where it is a"):
        bring(store, tmp_path, {"prompt": "new", "response_a": "x", "response_b": "y"}, {**row, "gold": "b"})
    with pytest.raises(InputError, match=":2: comparison_id: c is in the database with other texts"):
        bring(store, tmp_path, {"prompt": "new", "response_a": "x", "response_b": "y"}, {**row, "prompt": "q"})
    assert len(items_of(store)) == 1
    # With its sides exchanged it is the same question, and so is its right answer.
    assert (
        bring(store, tmp_path, {"prompt": "p", "response_a": "y", "response_b": "x", "gold": "b"})["already_there"] == 1
    )


def test_the_commands_answer_and_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "p", "response_a": "x", "response_b": "y"}])
    assert main(["label", "invite", "Ann"]) == 2
    assert "label.sqlite: database: no such database; `prefloop label import` makes one" in capsys.readouterr().err
    assert main(["label", "import", "rows.jsonl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["new_items"] == 1
    before = Path("label.sqlite").read_bytes()
    assert main(["label", "import", "rows.jsonl"]) == 0
    assert Path("label.sqlite").read_bytes() == before
    assert main(["label", "invite", "Ann Lee", "--role", "owner", "--who", "Bob", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(json.loads(lines[-1])["token"]) == 43
    assert main(["label", "invite", "Ann", "--role", "boss"]) == 2
    assert main(["label", "backup", "--out", "copy.sqlite", "--json"]) == 0
    capsys.readouterr()
    assert main(["label", "backup", "--out", "copy.sqlite"]) == 2
    assert "copy.sqlite: out: exists" in capsys.readouterr().err
    with open_store("copy.sqlite") as copy:
        assert only(copy).prompt == "p"
