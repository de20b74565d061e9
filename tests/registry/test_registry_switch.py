"""Registering, promoting and rolling back: who may, what is live then, and what a full disk leaves."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefloop.registry import store, weights
from prefloop.registry.config import (
    HistoryConfig,
    ListConfig,
    PromoteConfig,
    RegisterConfig,
    RollbackConfig,
    VerifyConfig,
)
from prefloop.registry.ledger import Ledger
from prefloop.registry.look import history, list_versions, verify
from prefloop.registry.register import register
from prefloop.registry.store import opened
from prefloop.registry.switch import rollback
from prefloop.rundir import sha256_of
from prefloop.types import InputError, Refusal


def verifies(root: Path) -> bool:
    return not verify(VerifyConfig(registry=str(root))).refused


def statuses(root: Path) -> dict[str, str]:
    return {each["version"]: each["status"] for each in list_versions(ListConfig(registry=str(root)))["versions"]}


def roll_back(bench: Any, **settings: Any) -> dict[str, Any]:
    return rollback(RollbackConfig(registry=str(bench.root), **settings))


# Registering


def test_a_version_is_a_copy_under_its_hash(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(1)
    sha256 = sha256_of(bench.models[0])
    kept = bench.root / "versions" / sha256
    assert (kept / "model.safetensors").read_bytes() == (bench.models[0] / "model.safetensors").read_bytes()
    (bench.models[0] / "model.safetensors").write_bytes(b"trained on")
    assert sha256_of(kept) == sha256 and verifies(bench.root)
    assert statuses(bench.root) == {"helper:1": "candidate"}
    assert sorted(path.name for path in bench.root.iterdir()) == [
        *("copying", "hashes.json", "head.json", "ledger.sqlite", "lock", "versions")
    ]


def test_the_same_weights_under_the_same_name_are_the_same_version(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(2)

    def again(model: Path, name: str) -> dict[str, Any]:
        return register(RegisterConfig(registry=str(bench.root), model=str(model), name=name))

    num = len(bench.events())
    assert again(bench.models[0], "helper")["version"] == "helper:1"
    assert again(bench.models[0], "helper")["new"] is False
    assert len(bench.events()) == num
    other = again(bench.models[0], "other")
    assert (other["version"], other["new"]) == ("other:1", True)
    assert len(list((bench.root / "versions").iterdir())) == 2


def test_what_a_model_was_made_from(make_bench: Callable[..., Any], tmp_path: Path) -> None:
    bench = make_bench(1)
    (tmp_path / "data.jsonl").write_text("d")
    config = RegisterConfig(
        registry=str(bench.root),
        model=str(bench.models[0]),
        name="tuned",
        parents=("helper:1", str(bench.models[0])),
        data=(str(tmp_path / "data.jsonl"),),
        reward=(str(bench.models[0]),),
        who="Ada",
        why="first try",
    )
    register(config)
    event = bench.events()[-1]
    sha256 = sha256_of(bench.models[0])
    assert (event.who, event.why, event.kind) == ("Ada", "first try", "registered")
    assert event.values["version"] == {
        "name": "tuned",
        "version": 1,
        "role": "policy",
        "parents": [sha256, sha256],
        "run": str(bench.models[0]),
        "weights_sha256": sha256,
        "data": {str(tmp_path / "data.jsonl"): sha256_of(tmp_path / "data.jsonl")},
        "optimised_against": {str(bench.models[0]): sha256},
    }


@pytest.mark.parametrize(
    ("command", "role", "against"),
    [
        ("train policy", "policy", {"runs/reward": "4" * 64, "runs/other": "5" * 64}),
        ("train preference", "policy", {"pairs.jsonl": "2" * 64}),
        ("train reward", "reward", {"pairs.jsonl": "2" * 64}),
        ("train sft", "policy", {}),
    ],
)
def test_a_run_tells_what_its_model_was_made_from(
    command: str, role: str, against: dict[str, str], make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    bench = make_bench(1)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    bench.models[0].rename(run / "checkpoints" / "policy")
    inputs = {"model": ("start", "1" * 64), "data:pairs.jsonl": ("pairs.jsonl", "2" * 64)}
    if command == "train policy":
        inputs |= {"prompts:p": ("p.jsonl", "3" * 64)}
        inputs |= {"reward:0": ("runs/reward", "4" * 64), "reward:1": ("runs/other", "5" * 64)}
    entries = {name: {"path": path, "sha256": sha256, "audit": "none"} for name, (path, sha256) in inputs.items()}
    (run / "inputs.json").write_text(json.dumps({"command": command, "inputs": entries}))
    with pytest.raises(InputError, match="this run is not finished"):
        register(RegisterConfig(registry=str(bench.root), model=str(run), name="new"))
    (run / "result.json").write_text(json.dumps({"outputs": {"model": "checkpoints/policy"}}))
    register(RegisterConfig(registry=str(bench.root), model=str(run), name="new"))
    version = bench.events()[-1].values["version"]
    assert (version["role"], version["optimised_against"]) == (role, against)
    assert version["parents"] == ["1" * 64]
    assert version["data"] == {entry["path"]: entry["sha256"] for name, entry in entries.items() if name[0] in "dp"}


def test_models_that_cannot_be_registered(make_bench: Callable[..., Any], tmp_path: Path) -> None:
    bench = make_bench(1)
    (tmp_path / "empty").mkdir()
    for settings_, problem in [
        ({"model": str(tmp_path / "none")}, "model: no such directory"),
        ({"model": str(tmp_path / "empty")}, "model: holds no files"),
        ({"model": str(bench.models[0]), "parents": ("helper:7",)}, "parents: there is no version helper:7"),
        ({"model": str(bench.models[0]), "reward": ("none",)}, "none: reward: no such file"),
    ]:
        with pytest.raises(InputError, match=problem):
            register(RegisterConfig(registry=str(bench.root), name="new", **settings_))
    assert len(bench.events()) == 2 and not (bench.root / ".incoming").exists()
    with pytest.raises(ValueError, match="name"):
        RegisterConfig(model="m", name="a:b")


def test_altered_weights_are_put_right_by_registering_again(bench: Any) -> None:
    kept = bench.root / "versions" / sha256_of(bench.models[2])
    (kept / "model.safetensors").write_bytes(b"other")
    with pytest.raises(Refusal, match="helper:3 cannot go live: the weights were altered"):
        bench.promote("helper:3")
    assert bench.live_number() == 2 and len(bench.events()) == 6
    register(RegisterConfig(registry=str(bench.root), model=str(bench.models[2]), name="helper"))
    assert verifies(bench.root)
    bench.promote("helper:3")
    assert bench.live_number() == 3


# Promoting


def test_only_what_a_gate_allows_goes_live(bench: Any) -> None:
    def attempt() -> str:
        with pytest.raises(Refusal) as caught:
            bench.promote("helper:3", override=False)
        assert bench.live_number() == 2
        return str(caught.value)

    assert attempt().startswith("no gate has decided about helper:3; `prefloop model gate helper:3 --evidence")
    bench.decide(3, "hold", incumbent=2)
    assert attempt().startswith("the gate says of helper:3: hold (event 7)")
    bench.decide(3, "promote", incumbent=1)
    assert "compared helper:3 with another model than what is live now (helper:2)" in attempt()
    bench.decide(3, "promote", incumbent=2)
    bench.decide(3, "hold", incumbent=2)
    assert "hold (event 10)" in attempt()
    bench.decide(3, "promote", incumbent=2)
    answer = bench.promote("helper:3", override=False, why="")
    assert (answer["live"], answer["previous"]) == ("helper:3", "helper:2")
    assert bench.live_number() == 3
    event = bench.events()[-1]
    assert event.values == {
        **{"version": "helper:3", "weights_sha256": sha256_of(bench.models[2]), "previous": "helper:2"},
        **{"decision": 11, "override": False, "overrode": ""},
    }


def test_a_decision_allows_one_promotion(bench: Any) -> None:
    bench.decide(3, incumbent=2)
    bench.promote("helper:3", override=False)
    roll_back(bench)
    with pytest.raises(Refusal, match=r"decision about helper:3 \(event 7\) is older than the last switch"):
        bench.promote("helper:3", override=False)


def test_an_override_is_recorded_with_who_and_why(bench: Any) -> None:
    bench.decide(3, "hold", incumbent=2)
    bench.promote("helper:3", who="Ada", why="the old one leaks")
    event = bench.events()[-1]
    assert (event.who, event.why) == ("Ada", "the old one leaks")
    assert event.values["override"] is True
    assert event.values["overrode"] == "the gate says of helper:3: hold (event 7)"
    row = history(HistoryConfig(registry=str(bench.root)))["events"][-1]
    assert row["what"] == "promoted helper:3, overriding: the gate says of helper:3: hold (event 7)"
    # Where the gate allows it there is nothing to override.
    bench.decide(1, incumbent=3)
    bench.promote("helper:1")
    assert bench.events()[-1].values["override"] is False
    with pytest.raises(ValueError, match="an override needs --why"):
        PromoteConfig(version="helper:1", override=True, why=" ")


def test_what_no_override_can_do(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"^helper:2 is live already$"):
        bench.promote("helper:2")
    register(RegisterConfig(registry=str(bench.root), model=str(bench.models[0]), name="scorer", role="reward"))
    with pytest.raises(Refusal, match="scorer:1 is a reward, and what is live is a policy"):
        bench.promote("scorer")
    with pytest.raises(InputError, match=r"version: there is no version helpr; did you mean helper:3\? registered: h"):
        bench.promote("helpr")


def test_a_version_has_several_names(bench: Any) -> None:
    assert bench.promote("helper")["live"] == "helper:3"
    roll_back(bench)
    assert bench.promote(sha256_of(bench.models[2])[:8])["live"] == "helper:3"


def test_a_link_that_somebody_changed_is_made_again(bench: Any) -> None:
    (bench.root / "live").unlink()
    assert not verifies(bench.root)
    assert bench.promote("helper:2")["live"] == "helper:2"
    assert bench.live_number() == 2 and verifies(bench.root) and len(bench.events()) == 6
    (bench.root / "live").unlink()
    (bench.root / "live").mkdir()
    with pytest.raises(InputError, match="live: is no link; move it away"):
        bench.promote("helper:3")
    assert len(bench.events()) == 6


def test_who_waited_while_another_promoted_is_refused(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = store.locked

    def overtaken(path: Path, **patience: float) -> Any:
        monkeypatch.setattr(store, "locked", locked)
        bench.promote("helper:1")
        return locked(path)

    for late in (lambda: bench.promote("helper:3"), lambda: roll_back(bench)):
        monkeypatch.setattr(store, "locked", overtaken)
        with pytest.raises(Refusal, match="what is live changed meanwhile: helper:1 is live now; look again"):
            late()
        assert bench.live_number() == 1
        bench.promote("helper:2")


# Rolling back


def test_a_rollback_goes_back_and_no_further_than_the_first(bench: Any) -> None:
    bench.promote("helper:3")
    before = bench.live_bytes()
    assert roll_back(bench, who="Bob", why="too long")["live"] == "helper:2"
    assert statuses(bench.root) == {"helper:1": "previous", "helper:2": "live", "helper:3": "retired"}
    assert roll_back(bench)["live"] == "helper:1"
    assert bench.live_number() == 1 and bench.live_bytes() != before
    with pytest.raises(InputError, match="nothing to roll back to: helper:1 is the first version that was ever live"):
        roll_back(bench)
    assert bench.live_number() == 1
    event = bench.events()[-2]
    assert (event.who, event.why, event.kind) == ("Bob", "too long", "rolled_back")
    assert verifies(bench.root)


def test_nothing_live_cannot_be_rolled_back(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(1)
    with pytest.raises(InputError, match="nothing to roll back to: nothing is live; promote"):
        roll_back(bench)


def test_altered_weights_do_not_come_back(bench: Any) -> None:
    kept = bench.root / "versions" / sha256_of(bench.models[0])
    content, stat = (kept / "model.safetensors").read_bytes(), (kept / "model.safetensors").stat()
    (kept / "model.safetensors").write_bytes(bytes([content[0] ^ 1]) + content[1:])
    # The same size and the same time: the change of state still tells.
    os.utime(kept / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(Refusal, match="helper:1 cannot go live: the weights were altered"):
        roll_back(bench)
    assert bench.live_number() == 2


def test_weights_are_read_again_only_where_they_may_have_changed(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(weights, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    roll_back(bench)
    assert read == []
    bench.promote("helper:2")
    os.utime(bench.root / "versions" / sha256_of(bench.models[0]) / "config.json")
    roll_back(bench)
    assert len(read) == 1
    # Remembered, also where the memory had been damaged.
    (bench.root / "hashes.json").write_text("{")
    bench.promote("helper:2")
    roll_back(bench)
    bench.promote("helper:2")
    assert len(read) == 3


def test_a_switch_takes_less_than_a_second_however_large_the_model(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(2, size=30_000_000)
    bench.promote("helper:1")
    bench.promote("helper:2")
    started = time.perf_counter()
    answer = roll_back(bench)
    assert time.perf_counter() - started < 1 and answer["seconds"] < 1
    assert bench.live_number() == 1


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.sampled_from(["1", "2", "3", "back"]), max_size=10))
def test_promotions_and_rollbacks_are_a_stack(
    make_bench: Callable[..., Any], unsynced: Callable[..., Any], moves: list[str]
) -> None:
    """Rolling back after a promotion is the identity, byte for byte, whatever came before."""
    bench = make_bench(3, name=f"registry-{time.monotonic_ns()}")
    stack: list[int] = []
    with unsynced():
        for move in moves:
            if move == "back" and len(stack) < 2:
                with pytest.raises(InputError):
                    roll_back(bench)
            elif move == "back":
                stack.pop()
                roll_back(bench)
            elif stack and stack[-1] == int(move):
                with pytest.raises(Refusal):
                    bench.promote(f"helper:{move}")
            else:
                bench.promote(f"helper:{move}")
                stack.append(int(move))
            assert bench.live_number() == (stack[-1] if stack else None)
    assert verifies(bench.root)


def test_a_trained_run_goes_live_and_can_be_sampled(
    prefloop: Callable[..., Any], sft_run: Any, data: Path, tmp_path: Path
) -> None:
    at = ("--registry", tmp_path / "registry")
    assert prefloop("model register", sft_run.run, "--name", "helper", *at).answer["version"] == "helper:1"
    checks = prefloop("model gate", "helper:1", *at).answer["checks"]
    assert checks[-1]["passed"] and checks[-1]["reason"] == "the candidate was optimised against nothing"
    assert prefloop("model promote", "helper:1", "--override", "--why", "the first", *at).code == 0
    assert sha256_of(tmp_path / "registry" / "live") == sha256_of(sft_run.model)
    out = ("--out", tmp_path / "responses.jsonl", "--max-new-tokens", 4)
    assert prefloop("sample", tmp_path / "registry" / "live", data / "prompts.jsonl", *out).code == 0


# A full disk


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """From the n-th write on, every way to write finds the disk full; renames need no room. Gives the writes made."""

    def start(which: int) -> list[str]:
        made: list[str] = []
        for owner, name in ((os, "fsync"), (Path, "open"), (Path, "symlink_to"), (Ledger, "append")):
            real = getattr(owner, name)

            def counted(*args: Any, _real: Any = real, _name: str = name, **settings_: Any) -> Any:
                if _name == "open" and (args[1:2] != ("w",) or args[0].name == "lock"):
                    return _real(*args, **settings_)
                made.append(_name)
                return full() if len(made) >= which else _real(*args, **settings_)

            monkeypatch.setattr(owner, name, counted)
        return made

    return start


@pytest.mark.parametrize("which", range(1, 7))
def test_a_full_disk_at_any_write_leaves_the_old_version_live(
    bench: Any, which: int, full_from: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bench.live_bytes()
    made = full_from(which)
    with pytest.raises(OSError, match="No space"):
        bench.promote("helper:3")
    monkeypatch.undo()
    assert made == ["symlink_to", "fsync", "open", "fsync", "fsync", "append"][:which]
    assert bench.live_bytes() == before
    assert len(bench.events()) == 6 and verifies(bench.root)
    # With room again, the same command does it.
    bench.promote("helper:3")
    assert bench.live_number() == 3


def test_once_committed_a_full_disk_is_too_late(
    bench: Any, full_from: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the sync of the renames can fail then: the new version is live, and the ledger says so."""
    made = full_from(7)
    with pytest.raises(OSError, match="No space"):
        bench.promote("helper:3")
    monkeypatch.undo()
    assert made[6:] == ["fsync"]
    assert bench.live_number() == 3 and len(bench.events()) == 7 and verifies(bench.root)


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("move", ["promote", "back"])
def test_a_rename_that_failed_is_made_up_for_by_the_next_command(
    bench: Any, which: int, move: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, left = Path.replace, which + 1

    def replace(path: Path, target: Path) -> Path:
        nonlocal left
        # The first one makes head.next.json, before the commit.
        left -= 1
        return real(path, target) if left else full()

    def call() -> dict[str, Any]:
        return bench.promote("helper:3") if move == "promote" else roll_back(bench)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="No space"):
        call()
    monkeypatch.undo()
    new = 3 if move == "promote" else 1
    # The link is renamed first, then the head.
    assert bench.live_number() == (2 if which == 1 else new)
    # The same command again finishes; it does not do it twice.
    assert call()["live"] == f"helper:{new}"
    assert "finished what was interrupted" in capsys.readouterr().err
    assert bench.live_number() == new and len(bench.events()) == 7 and verifies(bench.root)


def test_a_full_database_is_a_full_disk(bench: Any, prefloop: Callable[..., Any]) -> None:
    """SQLite itself finds no room: said as such, exit code 3, and the old version is live."""
    append = Ledger.append

    def without_room(ledger: Any, event: Any) -> None:
        connection = ledger._connection
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
        append(ledger, event)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "append", without_room)
        words = ("--registry", bench.root, "--override", "--why", "x" * 5000)
        outcome = prefloop("model promote", "helper:3", *words)
    assert outcome.code == 3
    assert f"stopped: disk full at {bench.root / 'ledger.sqlite'}; make room" in outcome.said
    assert bench.live_number() == 2 and len(bench.events()) == 6 and verifies(bench.root)


def test_a_full_disk_while_registering_leaves_nothing(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        register(RegisterConfig(registry=str(bench.root), model=str(bench.models[0]), name="new"))
    monkeypatch.undo()
    assert not (bench.root / ".incoming").exists()
    assert len(bench.events()) == 6 and verifies(bench.root)


def test_a_full_disk_costs_only_the_memory_of_hashes(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(bench.root) as registry:
        sha256 = sha256_of(bench.models[0])
        (bench.root / "hashes.json").unlink()
        monkeypatch.setattr(weights, "write_json", full)
        assert registry.weights.problem(sha256) == ""


# The commands, as people give them


def test_the_commands_answer(make_bench: Callable[..., Any], prefloop: Callable[..., Any]) -> None:
    bench = make_bench(2)
    at = ("--registry", bench.root)
    refused = prefloop("model promote", "helper:1", *at)
    assert refused.code == 1 and refused.said.startswith("refused: no gate has decided about helper:1")
    assert prefloop("model promote", "helper:1", "--override", *at).problem.endswith("an override needs --why")
    for version in ("helper:1", "helper:2"):
        done = prefloop("model promote", version, *at, "--override", "--why", "a start")
        assert done.code == 0 and done.answer["live"] == version
        assert done.answer["next"].startswith("prefloop model ")
    assert prefloop("model rollback", *at).answer["live"] == "helper:1"
    problem = prefloop("model rollback", *at).problem
    assert problem.startswith(f"{bench.root}: there is nothing to roll back to")
    listed = prefloop("model list", *at).answer
    assert (listed["live"], listed["previous"]) == ("helper:1", None)
    assert [each["status"] for each in listed["versions"]] == ["live", "retired"]
    events = prefloop("model history", *at).answer["events"]
    assert [each["what"].split()[0] for each in events] == [
        *("created", "registered", "registered", "promoted", "promoted", "rolled")
    ]
    one = prefloop("model history", *at, "--event", 6).answer
    assert one["body"] == {
        **{"version": "helper:1", "weights_sha256": sha256_of(bench.models[0]), "from": "helper:2"},
    }
    assert "event: there is no event 9; 1 to 6" in prefloop("model history", *at, "--event", 9).problem
    assert prefloop("model verify", *at).code == 0
    (bench.root / "versions" / sha256_of(bench.models[1]) / "config.json").write_text("{}")
    broken = prefloop("model verify", *at)
    assert broken.code == 1 and broken.answer["verified"] is False
    assert broken.answer["problems"] == [{"event": None, "problem": "helper:2: the weights were altered"}]


def test_what_the_terminal_shows(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from prefloop.cli import main

    assert main(["model", "verify", "--registry", str(bench.root)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  everything verifies"
    assert main(["model", "list", "--registry", str(bench.root)]) == 0
    assert "helper:2  live" in capsys.readouterr().out
