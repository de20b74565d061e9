"""The chain of events: by hand, and against many changes (`make test-registry`: a thousand)."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import getpass
import hashlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefloop.registry.config import HistoryConfig, ListConfig, VerifyConfig
from prefloop.registry.ledger import SCHEMA, Event, Ledger, chain_problems, hash_of, make_event
from prefloop.registry.look import history, list_versions, verify
from prefloop.registry.store import opened
from prefloop.rundir import user_name
from prefloop.types import InputError, Refusal

NUM_CHANGES = int(os.environ.get("PREFLOOP_CHANGES", "300"))
COLUMNS = [field.name for field in dataclasses.fields(Event)]


def problems(root: Path, **settings: Any) -> list[str]:
    """What `model verify` finds; what makes a ledger unreadable counts too."""
    try:
        told = verify(VerifyConfig(registry=str(root), **settings))
    except InputError as error:
        return [str(error)]
    assert told.refused == bool(told.values["problems"]) == (not told.values["verified"])
    return [each["problem"] for each in told.values["problems"]]


@pytest.fixture
def connection(bench: Any) -> Iterator[sqlite3.Connection]:
    """Somebody who writes into the ledger behind our back."""
    found = sqlite3.connect(bench.root / "ledger.sqlite", isolation_level=None)
    yield found
    found.close()


def test_the_hash_is_that_of_all_columns_by_hand() -> None:
    first = make_event(None, "created", {"b": 1, "a": "é"}, at="now", who="me", why="w")
    text = '[1,1,"now","me","created","w","{\\"a\\": \\"\\u00e9\\", \\"b\\": 1}","' + "0" * 64 + '"]'
    assert first.hash == hashlib.sha256(text.encode()).hexdigest()
    second = make_event(first, "registered", {}, at="later", who="me", why="")
    assert (second.number, second.previous) == (2, first.hash)
    assert chain_problems([first, second]) == []
    assert chain_problems([]) == []


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "hash"])
def test_every_column_counts_for_the_hash(column: str) -> None:
    event = make_event(None, "created", {}, at="now", who="me", why="w")
    changed = dataclasses.replace(event, **{column: 7 if column == "number" else "other"})
    assert hash_of(changed) != event.hash
    assert chain_problems([changed])


def test_a_sound_registry_verifies(bench: Any) -> None:
    assert problems(bench.root) == []
    told = verify(VerifyConfig(registry=str(bench.root)))
    # created, three registrations, two promotions.
    assert told.values["num_events"] == 6 and told.values["live"] == "helper:2"
    assert told.values["head"] == bench.events()[-1].hash
    assert json.loads((bench.root / "head.json").read_text()) == {"number": 6, "hash": told.values["head"]}


def test_rows_cannot_be_changed_by_accident(connection: sqlite3.Connection) -> None:
    for statement in ("UPDATE events SET who = 'x'", "DELETE FROM events WHERE number = 6"):
        with pytest.raises(sqlite3.IntegrityError, match="events are never"):
            connection.execute(statement)


def without_triggers(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TRIGGER events_are_not_changed")
    connection.execute("DROP TRIGGER events_are_not_deleted")


def test_missing_triggers_are_found(bench: Any, connection: sqlite3.Connection) -> None:
    without_triggers(connection)
    assert problems(bench.root) == ["the ledger's table or its triggers were changed"]


def test_a_written_down_head_must_be_in_the_chain(bench: Any) -> None:
    known = bench.events()[2].hash
    assert problems(bench.root, head=known) == []
    assert "no event has the hash" in problems(bench.root, head="f" * 64)[0]


# Many changes


def rewrite(connection: sqlite3.Connection, events: list[Event]) -> None:
    """Put these rows in place of all others; leaves the triggers as they were."""
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    without_triggers(connection)
    connection.execute("DELETE FROM events")
    marks = ", ".join("?" * len(COLUMNS))
    connection.executemany(f"INSERT INTO events VALUES ({marks})", [dataclasses.astuple(each) for each in events])
    for statement in SCHEMA[1:]:
        connection.execute(statement)
    connection.execute("COMMIT")


def chained(events: list[Event]) -> list[Event]:
    """The same rows with numbers and hashes that hold together, as a careful forger writes them."""
    made: list[Event] = []
    for event in events:
        last = made[-1] if made else None
        previous, number = (last.hash, last.number + 1) if last else ("0" * 64, 1)
        event = dataclasses.replace(event, number=number, previous=previous)
        made.append(dataclasses.replace(event, hash=hash_of(event)))
    return made


def changed_field(events: list[Event], generator: random.Random) -> list[Event]:
    position, column = generator.randrange(len(events)), generator.choice(COLUMNS[1:])
    old = getattr(events[position], column)
    place = generator.randrange(len(old) + 1)
    new = generator.choice(
        [old[:place] + "x" + old[place:], old[:place] + old[place + 1 :], old.upper(), "", old + " "]
    )
    if new == old:
        new = old + "0"
    if generator.random() < 0.1:
        new = new.encode()
    return [dataclasses.replace(each, **{column: new}) if each is events[position] else each for each in events]


def changed_body(events: list[Event], generator: random.Random) -> list[Event]:
    """A changed value inside a body that is still JSON."""
    position = generator.randrange(len(events))
    event = events[position]
    body = json.dumps({**event.values, generator.choice(["version", "override", "ledger", "who"]): generator.random()})
    return [dataclasses.replace(event, body=body) if each is event else each for each in events]


def renumbered(events: list[Event], generator: random.Random) -> list[Event]:
    position = generator.randrange(len(events))
    number = len(events) + generator.randrange(1, 100)
    return [dataclasses.replace(each, number=number) if each is events[position] else each for each in events]


def reordered(events: list[Event], generator: random.Random) -> list[Event]:
    one, other = generator.sample(range(len(events)), 2)
    mixed = list(events)
    mixed[one], mixed[other] = events[other], events[one]
    return [dataclasses.replace(each, number=number) for number, each in enumerate(mixed, start=1)]


def deleted(events: list[Event], generator: random.Random) -> list[Event]:
    """One row, or the last few; numbers closed up or not."""
    if generator.random() < 0.5:
        left = events[: -generator.randrange(1, len(events))]
    else:
        position = generator.randrange(len(events))
        left = [each for each in events if each is not events[position]]
    if generator.random() < 0.5:
        return [dataclasses.replace(each, number=number) for number, each in enumerate(left, start=1)]
    return left


def inserted(events: list[Event], generator: random.Random) -> list[Event]:
    position = generator.randrange(len(events) + 1)
    copy = dataclasses.replace(generator.choice(events), who="somebody else")
    more = [*events[:position], copy, *events[position:]]
    return [dataclasses.replace(each, number=number) for number, each in enumerate(more, start=1)]


FORGERIES: list[Callable[[list[Event], random.Random], list[Event]]] = [
    *(changed_field, changed_body, renumbered, reordered, deleted, inserted)
]


def damage_weights(root: Path, generator: random.Random) -> Callable[[], None]:
    """Change the bytes of kept weights, or which files there are; gives what puts them back."""
    directory = generator.choice(sorted((root / "versions").iterdir()))
    file = generator.choice(
        [directory / "model.safetensors", directory / "config.json", directory / "tokenizer/vocab.txt"]
    )
    content, stat = file.read_bytes(), file.stat()
    match generator.choice(["bit", "bit", "cut", "gone", "renamed", "more", "all gone", "link"]):
        case "bit":
            changed = bytearray(content)
            changed[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
            file.write_bytes(changed)
            # A forger also puts the time back.
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        case "cut":
            file.write_bytes(content[: generator.randrange(len(content))])
        case "gone":
            file.unlink()
        case "renamed":
            file.rename(file.with_name("other"))
            return lambda: file.with_name("other").replace(file) and None
        case "more":
            (directory / "more.bin").write_bytes(b"")
            return (directory / "more.bin").unlink
        case "all gone":
            directory.rename(root / "away")
            return lambda: (root / "away").rename(directory) and None
        case "link":
            target = os.readlink(root / "live")
            (root / "live").unlink()
            (root / "live").symlink_to(f"versions/{'0' * 64}")

            def back() -> None:
                (root / "live").unlink()
                (root / "live").symlink_to(target)

            return back
    return lambda: file.write_bytes(content) and None


def test_changes_are_all_found(bench: Any, connection: sqlite3.Connection) -> None:
    bench.decide(3, incumbent=2)
    root, generator = bench.root, random.Random(0)
    sound, found = bench.events(), {}
    for number in range(NUM_CHANGES):
        if generator.random() < 0.25:
            what, put_back = "weights", damage_weights(root, generator)
        else:
            forge = generator.choice(FORGERIES)
            forged = forge(sound, generator)
            careful = all(isinstance(value, str) for each in forged for value in dataclasses.astuple(each)[1:])
            if careful and generator.random() < 0.3 and chained(forged) != sound:
                forged = chained(forged)
            assert forged != sound
            rewrite(connection, forged)
            what, put_back = forge.__name__, lambda: rewrite(connection, sound)
        assert problems(root), f"change {number}: {what}"
        found[what] = found.get(what, 0) + 1
        put_back()
    assert problems(root) == []
    assert sum(found.values()) == NUM_CHANGES and len(found) == 1 + len(FORGERIES)


def test_nothing_is_built_on_a_broken_chain(bench: Any, connection: sqlite3.Connection) -> None:
    rewrite(connection, bench.events()[:-1])
    for call in (
        lambda: bench.promote("helper:3"),
        lambda: list_versions(ListConfig(registry=str(bench.root))),
    ):
        with pytest.raises(Refusal, match=r"does not verify: head.json names event 6, .* event 5; see `prefloop model"):
            call()
    # It can still be read.
    assert len(history(HistoryConfig(registry=str(bench.root)))["events"]) == 5


def test_a_rewritten_chain_is_found_by_its_head_and_by_what_cannot_have_happened(
    bench: Any, connection: sqlite3.Connection
) -> None:
    # helper:2 is said to have been promoted without an override, which no gate allowed.
    events = bench.events()
    body = json.dumps({**events[5].values, "override": False})
    rewrite(connection, chained([*events[:5], dataclasses.replace(events[5], body=body)]))
    found = problems(bench.root)
    assert any("cannot have happened (no gate has decided about helper:2)" in each for each in found)
    assert any("head.json names event 6" in each for each in found)


@pytest.mark.parametrize(
    ("event", "values", "reason"),
    [
        ("created", {"ledger": 1}, "a ledger is created once"),
        ("launched", {}, "unknown kind 'launched'"),
        ("promoted", {"version": "helper:9", "weights_sha256": "0" * 64, "override": True}, "there is no such version"),
        ("promoted", {"version": "helper:2"}, "weights_sha256"),
        ("rolled_back", {"version": "helper:3"}, "not what was live before"),
        (
            "registered",
            {
                "version": {
                    "name": "helper",
                    "version": 9,
                    "role": "policy",
                    "parents": [],
                    "run": "",
                    "weights_sha256": "",
                }
            },
            "the next version of helper is 4",
        ),
        ("registered", {"version": {"name": "helper", "parents": []}}, "missing"),
    ],
)
def test_events_that_cannot_have_happened(bench: Any, event: Any, values: dict[str, Any], reason: str) -> None:
    with opened(bench.root) as registry:
        registry.append(event, values, who="x", why="")
    (problem,) = problems(bench.root)
    assert "cannot have happened" in problem and reason in problem


# Files that are no ledger, or not this one


def test_a_ledger_of_a_newer_version_is_refused(bench: Any, connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA user_version = 2")
    before = (bench.root / "ledger.sqlite").read_bytes()
    with pytest.raises(InputError) as caught:
        bench.promote("helper:3")
    assert str(caught.value) == (
        f"{bench.root / 'ledger.sqlite'}: this ledger has version 2, this prefloop knows 1; "
        "use the newer prefloop that wrote it"
    )
    assert (bench.root / "ledger.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"text" * 999, "cannot be read as a ledger"), (None, "is gone; restore it from a backup")],
)
def test_a_file_that_is_no_ledger(bench: Any, content: bytes | None, problem: str) -> None:
    path = bench.root / "ledger.sqlite"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=f"ledger.sqlite: {problem}"):
        bench.promote("helper:3")


def test_another_database_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "ledger.sqlite")
    other.execute("CREATE TABLE t (a)")
    other.close()
    with pytest.raises(InputError, match="is no ledger of prefloop"):
        Ledger(tmp_path / "ledger.sqlite")


def test_a_cut_off_ledger_does_not_verify(bench: Any) -> None:
    path = bench.root / "ledger.sqlite"
    whole = path.read_bytes()
    for size in (0, 1000, 4096, 6000, len(whole) - 4096):
        path.write_bytes(whole[:size])
        assert problems(bench.root), size


def test_an_event_that_cannot_be_added_leaves_the_ledger_as_it_was(bench: Any) -> None:
    last = bench.events()[-1]
    with contextlib.closing(Ledger(bench.root / "ledger.sqlite")) as ledger:
        with pytest.raises(InputError, match="UNIQUE constraint failed"):
            ledger.append(last)
        ledger.append(make_event(last, "decided", {}, at="", who="", why=""))
        assert len(ledger.events()) == 7


def test_an_interrupted_switch_on_a_broken_chain_is_not_finished(
    bench: Any, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if path.name == "live.next":
            raise OSError(errno.EIO, "broken")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="broken"):
        bench.promote("helper:3")
    monkeypatch.undo()
    # Committed, not switched; then somebody changes an earlier row.
    without_triggers(connection)
    connection.execute("UPDATE events SET who = 'x' WHERE number = 2")
    with pytest.raises(Refusal, match="event 2: was changed"):
        bench.promote("helper:3")
    assert bench.live_number() == 2


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert user_name() == f"user {os.getuid()}"


def test_a_damaged_ledger_can_still_be_read(bench: Any, connection: sqlite3.Connection) -> None:
    events = bench.events()
    rewrite(connection, [dataclasses.replace(events[0], body="{"), dataclasses.replace(events[1], body=b"x", why=b"y")])
    rows = history(HistoryConfig(registry=str(bench.root)))["events"]
    assert [row["what"] for row in rows] == ["created", "registered"] and rows[1]["why"] == "b'y'"
    assert history(HistoryConfig(registry=str(bench.root), event=1))["body"] == "{"


def test_a_first_event_of_another_version_is_found(bench: Any, connection: sqlite3.Connection) -> None:
    events = bench.events()
    rewrite(connection, chained([dataclasses.replace(events[0], body='{"ledger": 2}'), *events[1:]]))
    assert "cannot have happened (it is a ledger of version 2)" in problems(bench.root)[0]


def test_a_lost_head_is_found(bench: Any) -> None:
    (bench.root / "head.json").unlink()
    assert problems(bench.root) == ["head.json is gone: nothing tells whether the last events were deleted"]
    # Nor does an emptied registry pass for a new one.
    (bench.root / "ledger.sqlite").write_bytes(b"")
    assert problems(bench.root)


def test_no_registry(tmp_path: Path) -> None:
    assert problems(tmp_path) == [
        f"{tmp_path}: there is no registry here; `prefloop model register` makes one; --registry names another"
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_copied_registry_verifies(bench: Any, tmp_path: Path) -> None:
    shutil.copytree(bench.root, tmp_path / "copy", symlinks=True)
    assert problems(tmp_path / "copy") == []
