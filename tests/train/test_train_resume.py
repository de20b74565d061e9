"""Runs that were broken off go on where they were and end with the same bits; damaged checkpoints are passed over."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
from safetensors import SafetensorError

from prefloop.cli import main
from prefloop.models.load import disk_errors
from prefloop.rundir import RunDir
from prefloop.train import checkpoint
from prefloop.train.checkpoint import checkpoints, newest_verified, verify

COMMANDS = ("sft", "reward", "preference", "policy")


@pytest.fixture(scope="module")
def command(data, sft_run, reward_run):
    """Words of each training command: dozens of short steps with a checkpoint every fourth."""
    tiny = ("--scratch.hidden-size", "32", "--scratch.num-layers", "1", "--scratch.num-heads", "2")
    offline = ("--batch-size", "16", "--eval-every", "10", "--optimizer.lr", "3e-3", "--eval-fraction", "0.1")
    settings = {
        "sft": (*tiny, "--scratch.vocab-size", "330", "--data", data / "demonstrations.jsonl", "--num-epochs", "2"),
        "reward": ("--model", sft_run.run, "--data", data / "pairs.jsonl", "--num-epochs", "2"),
        "preference": ("--model", sft_run.run, "--data", data / "pairs.jsonl", "--num-epochs", "2"),
        "policy": (
            *("--model", sft_run.run, "--reward", reward_run.run, "--prompts", data / "prompts.jsonl"),
            *("--num-steps", "24", "--prompts-per-step", "16", "--max-new-tokens", "8", "--optimizer.lr", "1e-3"),
            *(
                "--kl-target",
                "1.0",
                "--kl-budget",
                "8",
                "--settings.num-minibatches",
                "3",
                "--settings.num-epochs",
                "2",
            ),
        ),
    }

    def words(name, out):
        more = () if name == "policy" else offline
        return ["train", name, *map(str, (*settings[name], *more)), "--checkpoint-every", "4", "--out", str(out)]

    return words


@pytest.fixture(scope="module")
def unbroken(prefloop, command, tmp_path_factory):
    """Each command run in one go, once."""
    done = {}

    def outcome(name):
        if name not in done:
            done[name] = prefloop(" ".join(command(name, tmp_path_factory.mktemp(f"unbroken-{name}") / "run")))
            assert done[name].code == 0, done[name].said
        return done[name]

    return outcome


def without_times(rows):
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def assert_same_end(resumed, whole):
    assert resumed.code == 0, resumed.said
    assert without_times(resumed.metrics()) == without_times(whole.metrics())
    assert resumed.answer["outputs"] == whole.answer["outputs"]
    for output in whole.answer["outputs"].values():
        same = [(outcome.run / output / "model.safetensors").read_bytes() for outcome in (resumed, whole)]
        assert same[0] == same[1], output


def wait_for(condition, exit_code):
    give_up = time.monotonic() + 60
    while not condition():
        assert exit_code() is None, "it ended before it could be stopped"
        assert time.monotonic() < give_up
        time.sleep(0.005)


@pytest.fixture(scope="module")
def forks():
    """Processes that need not import torch anew: forked from a server that has done so and nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"prefloop.train.{name}" for name in COMMANDS])
    return context


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_run_ends_with_the_bits_of_an_unbroken_one(prefloop, command, unbroken, forks, tmp_path, name):
    words = command(name, tmp_path / "run")
    process = forks.Process(target=main, args=(words,))
    process.start()
    wait_for(lambda: len(checkpoints(tmp_path / "run" / "checkpoints")) >= 2, lambda: process.exitcode)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "run" / "result.json").exists()
    resumed = prefloop(" ".join(words))
    assert "resuming from" in resumed.said
    assert_same_end(resumed, unbroken(name))


def test_ctrl_c_exits_with_130_and_is_resumable(prefloop, command, unbroken, tmp_path):
    words = command("reward", tmp_path / "run")
    program = [sys.executable, "-m", "prefloop", *words]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_for(lambda: len(checkpoints(tmp_path / "run" / "checkpoints")) >= 2, process.poll)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, said
    assert said.strip().splitlines()[-1] == "interrupted; run the same command again to go on"
    assert "interrupted: stopping after this step, with a checkpoint; once more stops at once" in said
    assert "Traceback" not in said
    assert_same_end(prefloop(" ".join(words)), unbroken("reward"))


def kept(run):
    """The names of a run's checkpoints."""
    return [path.name for path in checkpoints(run / "checkpoints")]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_loses_no_finished_step_and_leaves_no_trace(prefloop, command, unbroken, tmp_path, monkeypatch, name):
    """SIGTERM as a scheduler sends it, while step 6 is recorded."""
    words, log = command(name, tmp_path / "run"), RunDir.log

    def preempted(self, step, metrics):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        log(self, step, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "log", preempted)
        stopped = prefloop(" ".join(words))
    assert stopped.code == 130
    assert "run the same command again to go on" in stopped.said.splitlines()[-1]
    assert kept(tmp_path / "run")[-1] == "step-000006"
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 6
    resumed = prefloop(" ".join(words))
    assert f"resuming from {tmp_path / 'run' / 'checkpoints' / 'step-000006'}" in resumed.said
    assert_same_end(resumed, unbroken(name))
    assert kept(resumed.run) == kept(unbroken(name).run)


REWARD_SERVER = """
import os, random
import numpy as np, torch
from prefloop.types import EnvironmentStop

calls = []

def ask(prompts, responses):
    calls.append(1)
    if len(calls) == 7 and os.environ.get("SERVER_AWAY"):
        raise EnvironmentStop("the reward server stays away")
    noise = [random.gauss(0, 1) + np.random.rand() + float(torch.randn(())) for _ in responses]
    return [response.count("e") + each for response, each in zip(responses, noise)]
"""


def test_a_reward_server_that_stays_away_costs_no_finished_step(prefloop, sft_run, data, tmp_path, monkeypatch):
    """Nor does a reward function that draws random numbers of its own keep a run from going on exactly."""
    (tmp_path / "server.py").write_text(REWARD_SERVER)

    def tune(out):
        return prefloop(
            *("train policy", "--model", sft_run.run, "--reward", f"{tmp_path / 'server.py'}:ask"),
            *("--prompts", data / "prompts.jsonl", "--num-steps", 10, "--prompts-per-step", 8, "--kl-budget", "none"),
            *("--max-new-tokens", 8, "--optimizer.lr", 1e-3, "--checkpoint-every", 4, "--out", tmp_path / out),
        )

    whole = tune("whole")
    monkeypatch.setenv("SERVER_AWAY", "1")
    stopped = tune("run")
    assert stopped.code == 3 and "Traceback" not in stopped.said
    assert stopped.said.splitlines()[-1] == (
        "stopped: the reward server stays away; run the same command again to go on"
    )
    assert kept(tmp_path / "run")[-1] == "step-000006"
    monkeypatch.delenv("SERVER_AWAY")
    resumed = tune("run")
    assert "step-000006" in resumed.said
    assert_same_end(resumed, whole)
    rollouts = [run / "rollouts" / "rollouts.jsonl" for run in (resumed.run, whole.run)]
    assert rollouts[0].read_bytes() == rollouts[1].read_bytes()
    assert kept(resumed.run) == kept(whole.run)


@pytest.fixture
def broken_off(prefloop, command, tmp_path, monkeypatch):
    """A run of the command that was interrupted while it recorded a step."""

    def run(name, step):
        log = RunDir.log

        def interrupted(self, number, metrics):
            if number == step:
                raise KeyboardInterrupt
            log(self, number, metrics)

        words = command(name, tmp_path / "run")
        with monkeypatch.context() as patch:
            patch.setattr(RunDir, "log", interrupted)
            assert prefloop(" ".join(words)).code == 130
        return words, tmp_path / "run" / "checkpoints"

    return run


def flip_a_bit(directory):
    path = next(directory.rglob("model.safetensors"))
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    return "model.safetensors does not match its checksum"


def cut_off(directory):
    path = next(directory.rglob("optimizer-*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    return f"{path.name} does not match its checksum"


def remove_a_file(directory):
    next(directory.rglob("tokenizer.json")).unlink()
    return "tokenizer.json is missing"


def break_the_manifest(directory):
    (directory / "manifest.json").write_text("{")
    return "broken manifest"


def remove_the_manifest(directory):
    (directory / "manifest.json").unlink()
    return "no manifest"


@pytest.mark.parametrize("damage", [flip_a_bit, cut_off, remove_a_file, break_the_manifest, remove_the_manifest])
def test_a_damaged_newest_checkpoint_is_passed_over(prefloop, unbroken, broken_off, damage):
    words, root = broken_off("preference", 18)
    newest, before = checkpoints(root)[:-3:-1]
    problem = damage(newest)
    resumed = prefloop(" ".join(words))
    warning = next(line for line in resumed.said.splitlines() if line.startswith("warning") and "no audit" not in line)
    assert str(newest) in warning and problem in warning and warning.endswith("using the one before")
    assert f"resuming from {before}" in resumed.said
    assert_same_end(resumed, unbroken("preference"))


def test_with_all_checkpoints_damaged_a_run_begins_again(prefloop, unbroken, broken_off):
    words, root = broken_off("reward", 14)
    for directory in checkpoints(root):
        flip_a_bit(directory)
    resumed = prefloop(" ".join(words))
    assert "resuming from" not in resumed.said
    assert_same_end(resumed, unbroken("reward"))


def test_a_damaged_best_checkpoint_is_made_again(prefloop, unbroken, broken_off):
    words, root = broken_off("preference", 18)
    state = json.loads((newest_verified(root) / "state" / "state.json").read_text())
    assert state["best_step"] == 10 and state["step"] == 16
    flip_a_bit(root / "step-000010")
    resumed = prefloop(" ".join(words))
    assert "the best one, step-000010, is lost" in resumed.said
    assert_same_end(resumed, unbroken("preference"))


def test_half_written_checkpoints_and_lines_do_not_count(prefloop, unbroken, broken_off):
    words, root = broken_off("policy", 14)
    leftover = root / ".step-000016.tmp" / "policy"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    with (root.parent / "metrics.jsonl").open("a") as file:
        file.write('{"step": 14, "score/mean": 0.2')
    with (root.parent / "rollouts" / "rollouts.jsonl").open("ab") as file:
        file.write(b'{"step": 14, "response": "caf}' + b"\xc3")
    for place in (root.parent / ".metrics.jsonl.31946.tmp", root.parent / "rollouts" / ".rollouts.jsonl.31946.tmp"):
        place.write_text("half")
    assert_same_end(prefloop(" ".join(words)), unbroken("policy"))
    assert not leftover.exists()
    for run in (root.parent, unbroken("policy").run):
        assert sorted(os.listdir(run / "rollouts")) == ["rollouts.jsonl"]
    assert not [name for name in os.listdir(root.parent) if name.endswith(".tmp")]
    rollouts = [run / "rollouts" / "rollouts.jsonl" for run in (root.parent, unbroken("policy").run)]
    assert rollouts[0].read_bytes() == rollouts[1].read_bytes()


def test_the_policy_run_used_its_budget_state_and_controller(unbroken):
    """What makes the comparison of resumed policy runs worth something: the state beside the weights was in use."""
    rows = unbroken("policy").metrics()
    assert len({row["kl/coef"] for row in rows}) > 10
    newest = json.loads((unbroken("policy").run / "checkpoints/step-000024/state/state.json").read_text())
    assert len(newest["recent_kl"]) == 256 and newest["budget_eighth"] >= 1


def test_a_finished_run_says_so(prefloop, command, unbroken):
    first = unbroken("reward")
    before = {path: path.stat().st_mtime_ns for path in first.run.rglob("*") if path.is_file() and path.name != "lock"}
    again = prefloop(" ".join(command("reward", first.run)))
    assert again.code == 0
    assert f"already finished: {first.run / 'result.json'}" in again.said
    assert again.answer == first.answer
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_config_is_refused_naming_the_keys(prefloop, command, unbroken):
    run = unbroken("policy").run
    refused = prefloop(" ".join([*command("policy", run), "--seed", "7", "--settings.gamma", "0.9"]))
    assert refused.problem == (
        f"{run}: out: this directory belongs to another config; these differ: seed, settings.gamma; "
        "give another --out, or the config it was started with"
    )
    other = prefloop(" ".join(command("reward", run)))
    assert other.problem == f"{run}: out: this directory belongs to `train policy`; give another --out"


def test_a_changed_input_is_refused(prefloop, command, broken_off, data):
    words, root = broken_off("reward", 6)
    pairs = data / "pairs.jsonl"
    content = pairs.read_bytes()
    try:
        pairs.write_bytes(content.replace(b"moon", b"noon", 1))
        refused = prefloop(" ".join(words))
    finally:
        pairs.write_bytes(content)
    assert refused.problem == (
        f"{root.parent}: out: this directory belongs to another config; these differ: "
        f"data:{pairs} (its content changed); give another --out, or the config it was started with"
    )


def test_pruning_keeps_the_newest_the_best_and_no_more(unbroken):
    run = unbroken("preference").run
    state = json.loads((checkpoints(run / "checkpoints")[-1] / "state" / "state.json").read_text())
    steps = [int(directory.name[5:]) for directory in checkpoints(run / "checkpoints")]
    assert steps == sorted({state["best_step"], *steps[-2:]})
    assert [verify(directory) for directory in checkpoints(run / "checkpoints")] == [None] * len(steps)
    assert Path(unbroken("preference").answer["outputs"]["model"]).parent.name == f"step-{state['best_step']:06d}"


def test_a_second_process_in_one_directory_is_refused(prefloop, command, tmp_path):
    words = command("sft", tmp_path / "run")
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = prefloop(" ".join(words))
    assert refused.problem == f"{tmp_path / 'run'}: another process is running here; wait for it, or give another --out"
    assert os.listdir(tmp_path / "run") == ["lock"]


def full_disk_at_the_weights(patch, num_checkpoints):
    serialize, calls = safetensors.torch.serialize_file, itertools.count(1)

    def serialize_file(*arguments, **settings):
        # Weights, optimiser, random generators.
        if next(calls) > 3 * num_checkpoints:
            # The text of safetensors itself on a full tmpfs.
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        return serialize(*arguments, **settings)

    patch.setattr(safetensors.torch, "serialize_file", serialize_file)


def full_disk_at_the_manifest(patch, num_checkpoints):
    write, calls = checkpoint.write_json, itertools.count(1)

    def write_json(path, value):
        if path.name == "manifest.json" and next(calls) > num_checkpoints:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, value)

    patch.setattr(checkpoint, "write_json", write_json)


def full_disk_at_a_metrics_line(patch, num_checkpoints):
    log = RunDir.log

    def half_a_line(self, step, metrics):
        if step == 4 * num_checkpoints + 1:
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write('{"step": ')
            raise OSError(errno.ENOSPC, "No space left on device", str(self.path / "metrics.jsonl"))
        log(self, step, metrics)

    patch.setattr(RunDir, "log", half_a_line)


@pytest.mark.parametrize("fill", [full_disk_at_the_weights, full_disk_at_the_manifest, full_disk_at_a_metrics_line])
def test_a_full_disk_stops_the_run_and_the_checkpoint_before_stays_whole(
    prefloop, command, unbroken, tmp_path, monkeypatch, fill
):
    words = command("preference", tmp_path / "run")
    with monkeypatch.context() as patch:
        fill(patch, 2)
        stopped = prefloop(" ".join(words))
    assert stopped.code == 3
    line = stopped.said.strip().splitlines()[-1]
    assert line.startswith(f"stopped: disk full at {tmp_path / 'run'}")
    assert line.endswith("; make room and run the same command again to go on")
    assert "Traceback" not in stopped.said
    assert not (tmp_path / "run" / "result.json").exists()
    assert [verify(directory) for directory in checkpoints(tmp_path / "run" / "checkpoints")] == [None, None]
    resumed = prefloop(" ".join(words))
    assert f"resuming from {tmp_path / 'run' / 'checkpoints' / 'step-000008'}" in resumed.said
    assert_same_end(resumed, unbroken("preference"))


def test_a_file_limit_is_no_full_disk_but_names_the_file(tmp_path):
    """An error of the operating system keeps its number; any other one passes through as it is."""
    with pytest.raises(OSError) as caught, disk_errors(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: File too large (os error 27)")
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path))
    with pytest.raises(SafetensorError, match="header too small"), disk_errors(tmp_path):
        raise SafetensorError("Error while deserializing header: header too small")
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "none" / "file").write_text("")
