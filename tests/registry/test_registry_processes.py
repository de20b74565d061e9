"""Processes that are killed in the middle of a switch, and processes that switch at the same time."""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.registry.config import VerifyConfig
from prefloop.registry.look import verify
from prefloop.registry.store import opened
from prefloop.rundir import sha256_of

NUM_KILLS = int(os.environ.get("PREFLOOP_KILLS", "10"))
NUM_AT_ONCE = 16


def words(bench: Any, command: str, *rest: str) -> list[str]:
    return ["model", *command.split(), *rest, "--registry", str(bench.root), "--json"]


def override(bench: Any, version: str) -> list[str]:
    return words(bench, "promote", version, "--override", "--why", "a test")


def require_sound(bench: Any) -> dict[str, Any]:
    """The chain verifies, the head is that of the last event, and the link names what the ledger says is live."""
    told = verify(VerifyConfig(registry=str(bench.root)))
    assert told.values["problems"] == []
    return dict(told.values)


@pytest.mark.parametrize("how", ["at a call", "at a time"])
def test_a_killed_switch_has_happened_or_not(
    bench: Any, server: Any, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL during promote and rollback: at a certain call or return inside the change, or at a random time."""
    generator = random.Random(how)
    counted = bench.root.parent / "count"
    server.start(words(bench, "list"))
    assert server.codes() == [0], server.said()
    started = time.perf_counter()
    server.start(override(bench, "helper:3"), count=str(counted))
    assert server.codes() == [0], server.said()
    seconds, num_calls = time.perf_counter() - started, int(counted.read_text())
    landed: collections.Counter[str] = collections.Counter()
    live, num_events = [1, 2, 3], 7
    while sum(landed.values()) < NUM_KILLS // 2:
        promotes = len(live) < 2 or generator.random() < 0.5
        aim = generator.choice([number for number in (1, 2, 3) if number != live[-1]])
        after = [*live, aim] if promotes else live[:-1]
        command = override(bench, f"helper:{aim}") if promotes else words(bench, "rollback")
        if how == "at a call":
            server.start(command, strike=generator.randint(1, num_calls))
        else:
            (pid,) = server.start(command)
            time.sleep(generator.uniform(0, 1.2) * seconds)
            # It may have ended already, but its process id is not free before `codes` has been asked.
            os.kill(pid, signal.SIGKILL)
        (code,) = server.codes()
        # Before anything is mended, a serving process finds exactly one version, whole.
        seen = bench.live_number()
        assert seen in (live[-1], after[-1])
        found = require_sound(bench)
        now = int(found["live"].partition(":")[2])
        assert now == bench.live_number()
        # What was seen live stays so; what had been committed is finished.
        assert now == after[-1] if seen == after[-1] else now in (live[-1], after[-1])
        happened = found["num_events"] == num_events + 1
        assert now == (after if happened else live)[-1] and found["num_events"] - num_events in (0, 1)
        assert code in (0, -signal.SIGKILL) and (happened or code)
        if code:
            landed["done" if seen == after[-1] else "finished later" if happened else "not done"] += 1
        live, num_events = after if happened else live, found["num_events"]
    if NUM_KILLS > 10:
        with capsys.disabled():
            print(f"\nkilled {how}: {dict(landed)}")
    with opened(bench.root) as registry:
        assert registry.state.was_live == tuple(f"helper:{number}" for number in live)


@pytest.mark.parametrize("which", ["gate", "override", "same"])
def test_of_sixteen_promotions_at_once_exactly_one_wins(
    make_bench: Callable[..., Any], unsynced: Callable[..., Any], server: Any, which: str
) -> None:
    bench = make_bench(NUM_AT_ONCE + 1, size=200)
    with unsynced():
        bench.promote("helper:1")
        for version in range(2, NUM_AT_ONCE + 2):
            bench.decide(version, incumbent=1)
    candidates = [f"helper:{2 if which == 'same' else number}" for number in range(2, NUM_AT_ONCE + 2)]
    before = len(bench.events())
    make = override if which == "override" else lambda bench, version: words(bench, "promote", version)
    server.start(*(make(bench, version) for version in candidates))
    codes = server.codes()
    won = [version for version, code in zip(candidates, codes, strict=True) if code == 0]
    said = [server.said(number) for number in range(NUM_AT_ONCE)]
    found = require_sound(bench)
    assert sorted(set(codes)) == [0, 1], said
    if which == "override":
        # Who began after a switch was done may switch again; each that waited is refused.
        assert len(won) >= 1
    else:
        assert len(won) == 1, said
    # Nothing is lost: every winner is in the ledger, in the order of the chain, and the last of them is live.
    events = bench.events()[before:]
    assert [event.kind for event in events] == ["promoted"] * len(won)
    assert sorted(event.values["version"] for event in events) == sorted(won)
    assert found["live"] == events[-1].values["version"]
    assert bench.live_number() == int(found["live"].partition(":")[2])
    refused = [line for line in said if "refused: " in line]
    assert len(refused) == NUM_AT_ONCE - len(won)


def test_sixteen_rollbacks_at_once_go_back_once_each_or_not_at_all(bench: Any, server: Any) -> None:
    bench.promote("helper:3")
    before = len(bench.events())
    server.start(*(words(bench, "rollback") for _ in range(NUM_AT_ONCE)))
    codes = server.codes()
    require_sound(bench)
    events = bench.events()[before:]
    assert len(events) == codes.count(0) in (1, 2)
    assert bench.live_number() == 3 - len(events)


def test_everything_at_once_is_recorded_once(bench: Any, server: Any, tmp_path: Path) -> None:
    """Registrations and decisions of many processes: none is lost, and the versions have different numbers."""
    models = []
    for number in range(6):
        model = tmp_path / f"new-{number}"
        model.mkdir()
        (model / "model.safetensors").write_text(str(number))
        models.append(model)
    registrations = [words(bench, "register", str(model), "--name", "helper") for model in models]
    decisions = [words(bench, "gate", "helper:3") for _ in range(6)]
    before = len(bench.events())
    server.start(*registrations, *decisions)
    assert server.codes() == [0] * 6 + [1] * 6, server.said()
    require_sound(bench)
    kinds = collections.Counter(event.kind for event in bench.events()[before:])
    assert kinds == {"registered": 6, "decided": 6}
    with opened(bench.root) as registry:
        assert [version.version for version in registry.state.versions] == list(range(1, 10))
        new = {version.weights_sha256 for version in registry.state.versions[3:]}
    assert new == {sha256_of(model) for model in models}


def test_a_registration_that_was_killed_is_begun_again(
    make_bench: Callable[..., Any], server: Any, tmp_path: Path
) -> None:
    """Also that of the very first version, which makes the registry."""
    bench = make_bench(0, name="new")
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(bytes(3000))
    bench.models = [model]
    generator = random.Random(0)
    register = words(bench, "register", str(model), "--name", "helper")
    for _ in range(max(3, NUM_KILLS // 5)):
        (pid,) = server.start(register)
        time.sleep(generator.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        server.codes()
    server.start(register)
    assert server.codes() == [0], server.said()
    assert require_sound(bench)["num_events"] == 2
    assert not (bench.root / ".incoming").exists()
    assert [path.name for path in (bench.root / "versions").iterdir()] == [sha256_of(model)]
    assert json.loads(server.said().splitlines()[-1])["version"] == "helper:1"
