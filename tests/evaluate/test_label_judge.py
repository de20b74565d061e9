"""`label judge` against a server of the test: both orders, what it votes, and going on where it was."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.label.intake import import_rows
from prefloop.label.records import Vote
from prefloop.label.store import open_store
from prefloop.label.votes import items_of, votes_of
from prefloop.recipes.label_judge import opinion_of
from prefloop.rundir import write_rows

NUM_ITEMS = 40


def completion(text: str) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def by_length(body: bytes) -> tuple[int, bytes]:
    """A judge model that likes the longer answer."""
    text = json.loads(body)["messages"][0]["content"]
    first = len(text.split("[Answer A]")[1].split("[End of answer A]")[0])
    second = len(text.split("[Answer B]")[1].split("[End of answer B]")[0])
    return completion(f"[[{'A' if first > second else 'B' if second > first else 'C'}]]")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = [
        {"prompt": f"Question {n}?", "response_a": "y" * (n % 3 + 1), "response_b": "no"} for n in range(NUM_ITEMS)
    ]
    rows += [{"prompt": "Gold?", "response_a": "yes!", "response_b": "no", "gold": "a"}]
    write_rows(tmp_path / "rows.jsonl", rows)
    with open_store(str(tmp_path / "label.sqlite")) as store:
        import_rows(store, tmp_path / "rows.jsonl")
    return tmp_path / "label.sqlite"


@pytest.fixture
def ask(prefloop: Callable[..., Any], database: Path, endpoint: Any) -> Callable[..., Any]:
    """`label judge` on the database and the server."""

    def call(*words: object) -> Any:
        shared = ("--database", database, "--endpoint.model", "m", "--answers", database.parent / "answers.jsonl")
        patience = ("--endpoint.retries", 1, "--endpoint.retry-seconds", 0.001, "--endpoint.parallel", 2)
        return prefloop("label judge", endpoint.url, *shared, *patience, *words)

    return call


def stored(database: Path) -> list[Vote]:
    with open_store(str(database)) as store:
        return votes_of(store)


@pytest.mark.parametrize(
    ("forth", "back", "choice", "strength"),
    [
        (1.0, 0.0, "b", None),  # b is named in both places
        (0.0, 1.0, "a", None),
        (1.0, 1.0, "tie", None),  # always the second one
        (0.0, 0.0, "tie", None),
        (0.5, 0.5, "tie", None),
        (1.0, 0.5, "b", "slightly"),
        (0.5, 1.0, "a", "slightly"),
        (None, 0.0, "skip", None),
    ],
)
def test_two_orders_make_one_vote(forth: float | None, back: float | None, choice: str, strength: str | None) -> None:
    opinion = opinion_of(forth, back)
    assert (opinion.choice, opinion.strength) == (choice, strength)


def test_it_votes_on_every_item_as_one_more_annotator(ask: Callable[..., Any], endpoint: Any, database: Path) -> None:
    endpoint.reply = by_length
    outcome = ask()
    assert outcome.code == 0, outcome.said
    votes = stored(database)
    with open_store(str(database)) as store:
        items = items_of(store)
    assert len(votes) == len({vote.item_id for vote in votes}) == NUM_ITEMS + 1
    assert len({vote.annotator_id for vote in votes}) == 1
    for vote in votes:
        item = items[vote.item_id]
        a, b = len(item.response_a), len(item.response_b or "")
        assert vote.choice == ("a" if a > b else "b" if b > a else "tie")
    assert (
        outcome.answer["choices"]
        == {"a": 14, "b": 14, "tie": 13, "skip": 0}
        == {
            "skip": 0,
            **Counter(vote.choice for vote in votes),
        }
    )
    assert outcome.answer["orders_agree"] == 1.0 and outcome.answer["shown_first_preferred"] == 0.5
    # Again: nothing is left, nothing is asked.
    endpoint.requests.clear()
    assert ask().answer["num_votes"] == 0 and not endpoint.requests


def test_a_judge_that_takes_the_first_one_votes_tie(ask: Callable[..., Any], endpoint: Any, database: Path) -> None:
    endpoint.reply = lambda _: completion("[[A]]")
    outcome = ask("--limit", 5)
    assert outcome.answer["choices"]["tie"] == outcome.answer["num_votes"] == 5
    assert outcome.answer["orders_agree"] == 0.0 and outcome.answer["shown_first_preferred"] == 1.0
    assert {vote.reason for vote in stored(database)} == {"the orders contradict each other"}


def test_a_judge_that_goes_away_stops_resumable_and_loses_nothing(
    ask: Callable[..., Any], endpoint: Any, database: Path
) -> None:
    endpoint.reply = lambda body: by_length(body) if len(endpoint.requests) <= 70 else (503, b"overloaded")
    stopped = ask()
    assert stopped.code == 3
    assert "status 503 overloaded (tried 2 times); run the same command again" in stopped.said
    before = stored(database)
    answers = (database.parent / "answers.jsonl").read_text().splitlines()
    assert len(before) == 32 and 64 < len(answers) <= 70
    endpoint.requests.clear()
    endpoint.reply = by_length
    assert ask().code == 0
    assert len(stored(database)) == NUM_ITEMS + 1 and stored(database)[:32] == before
    # Every question was answered once, over both runs.
    assert len(answers) + len(endpoint.requests) == 2 * (NUM_ITEMS + 1)


def test_words_without_a_verdict(ask: Callable[..., Any], endpoint: Any, database: Path) -> None:
    endpoint.reply = lambda body: by_length(body) if b"Question 1" in body else completion("Hard to say.")
    refused = ask()
    assert refused.code == 2 and "hold no verdict" in refused.said and not stored(database)
    (database.parent / "answers.jsonl").unlink()
    endpoint.reply = lambda body: completion("Hard to say.") if b"Question 1?" in body else by_length(body)
    outcome = ask()
    assert outcome.code == 0 and outcome.answer["choices"]["skip"] == 1 and outcome.answer["unread_answers"] == 2


def test_it_gets_pairs_and_never_reviews(ask: Callable[..., Any], endpoint: Any, database: Path) -> None:
    """Reviews of either sort, gold or not, imported in between and before it asks again."""
    endpoint.reply = by_length
    queue = database.parent / "queue.jsonl"
    for part in range(2):
        rows = [{"task": "review", "prompt": f"Why {part} {n}?", "response": "So."} for n in range(30)]
        write_rows(queue, [*rows, {"task": "review", "prompt": f"Gold {part}?", "response": "So.", "gold": "hack"}])
        with open_store(str(database)) as store:
            import_rows(store, queue)
        outcome = ask("--limit", 20) if part == 0 else ask()
        assert outcome.code == 0, outcome.said
    with open_store(str(database)) as store:
        items = items_of(store)
    votes = stored(database)
    assert len(items) == NUM_ITEMS + 1 + 62 and len(votes) == NUM_ITEMS + 1
    assert {items[vote.item_id].kind for vote in votes} == {"pair"}
    assert not any(b"So." in request for request in map(_body, endpoint.requests))


def _body(request: Any) -> bytes:
    return json.dumps(request, default=str).encode()


def test_what_it_needs(ask: Callable[..., Any], prefloop: Callable[..., Any], endpoint: Any, tmp_path: Path) -> None:
    nameless = prefloop("label judge", endpoint.url, "--database", tmp_path / "label.sqlite")
    assert nameless.code == 2 and "endpoint.model: is missing" in nameless.said
    borrowed = ask("--name", "Ann Lee")
    assert borrowed.code == 2 and "name: does not begin with 'judge '" in borrowed.said
    assert not endpoint.requests
