"""The loop by itself, around step functions of a few lines: what is restored, what a stop leaves, what is best."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from prefloop.rundir import RunDir
from prefloop.train.checkpoint import checkpoints, newest_verified, restore, save_checkpoint, verify, written_on_stop
from prefloop.train.config import TrainConfig
from prefloop.train.loop import TrainState, fit, result_checkpoint
from prefloop.train.randomness import random_state, seed_all, set_random_state
from prefloop.types import EnvironmentStop, InputError


def new_state():
    """No models: the loop does not look at them."""
    return TrainState({}, None, {})


def train(out, step_function, state=None, *, num_steps=10, every=4, keep=2, **settings):
    """Run `fit` in a run directory; gives why it stopped, the state and the rows of metrics.jsonl without times."""
    state = state or new_state()
    config = TrainConfig(out=str(out), seed=5, checkpoint_every=every, keep_checkpoints=keep)
    with RunDir("train thing", config, {}) as run:
        stopped = fit(run, config, state, step_function, num_steps=num_steps, **settings)
    return stopped, state, rows_of(out)


def rows_of(out):
    rows = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def steps_on_disk(out):
    return [int(path.name[5:]) for path in checkpoints(Path(out) / "checkpoints")]


def draw(state):
    """A step like that of a user's function: from the global generators of Python, numpy and torch."""
    return {
        "draw/python": random.random() + random.gauss(0, 1),
        "draw/numpy": float(np.random.rand() + np.random.randn()),
        "draw/torch": float(torch.rand(()) + torch.randn(())),
    }


def at(step, action, then=draw):
    """A step function that does `action` before the step that follows `step` finished ones, once."""
    waiting = [action]

    def step_function(state):
        if state.step == step and waiting:
            waiting.pop()()
        return then(state)

    return step_function


def raises(error):
    def action():
        raise error

    return action


def send(*signals):
    def action():
        for number in signals:
            os.kill(os.getpid(), number)

    return action


def test_generators_come_back_also_between_the_two_draws_of_a_pair():
    seed_all(1)
    random.gauss(0, 1), np.random.randn()
    state = random_state()
    drawn = [draw(None) for _ in range(3)]
    seed_all(2)
    set_random_state(state)
    assert [draw(None) for _ in range(3)] == drawn
    seed_all(1)
    random.gauss(0, 1), np.random.randn()
    assert draw(None) == drawn[0]


def test_a_run_that_draws_from_the_global_generators_is_resumed_exactly(tmp_path):
    _, _, whole = train(tmp_path / "whole", draw)
    assert len({row["draw/python"] for row in whole}) == len(whole) == 10
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", at(6, raises(KeyboardInterrupt)))
    random.seed(99), np.random.seed(98), torch.manual_seed(97)
    assert steps_on_disk(tmp_path / "broken") == [4]
    assert train(tmp_path / "broken", draw)[2] == whole


def test_draws_outside_the_steps_do_not_show(tmp_path, monkeypatch):
    """A tracker or a progress bar may draw; it draws another number of times in a resumed run."""
    _, _, whole = train(tmp_path / "whole", draw)
    log = RunDir.log

    def drawing(self, step, metrics):
        log(self, step, metrics)
        draw(None)

    monkeypatch.setattr(RunDir, "log", drawing)
    assert train(tmp_path / "drawing", draw)[2] == whole


def averaging(state):
    """A step that keeps an average of what it drew in a tensor, a list in `extras`, and a group made on the way."""
    value = torch.randn(3)
    state.tensors["ema"]["weight"].mul_(0.9).add_(0.1 * value)
    state.extras["seen"] = [*state.extras.get("seen", []), float(value[0])]
    if state.step == 2:
        state.tensors["late"] = {"value": value.double()}
    late = state.tensors["late"]["value"].sum() if state.step >= 2 else 0.0
    return {
        "x/ema": float(state.tensors["ema"]["weight"].sum()),
        "x/seen": sum(state.extras["seen"]),
        "x/l": float(late),
    }


def with_average():
    state = new_state()
    state.tensors["ema"] = {"weight": torch.zeros(3), "view": torch.arange(6.0).view(2, 3).t()}
    return state


def test_extras_and_named_tensors_are_part_of_a_checkpoint(tmp_path):
    _, _, whole = train(tmp_path / "whole", averaging, with_average())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", at(6, raises(KeyboardInterrupt), averaging), with_average())
    state = with_average()
    held = state.tensors["ema"]["weight"]
    _, state, rows = train(tmp_path / "broken", averaging, state)
    assert rows == whole
    assert state.tensors["ema"]["weight"] is held, "whoever holds the tensor sees what was restored"
    assert state.tensors["late"]["value"].dtype == torch.float64
    assert state.tensors["ema"]["view"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_the_environment_stops_a_run_after_a_checkpoint_of_the_last_finished_step(tmp_path):
    _, _, whole = train(tmp_path / "whole", draw)
    with pytest.raises(EnvironmentStop, match="away"):
        train(tmp_path / "broken", at(6, raises(EnvironmentStop("the server stays away"))))
    assert steps_on_disk(tmp_path / "broken") == [4, 6]
    done = []
    _, _, rows = train(tmp_path / "broken", lambda state: done.append(state.step) or draw(state))
    assert done == [6, 7, 8, 9], "no finished step is done twice"
    assert rows == whole
    assert steps_on_disk(tmp_path / "broken") == steps_on_disk(tmp_path / "whole") == [8, 10]


def test_a_stop_before_the_first_step_leaves_the_directory_to_whoever_comes_next(tmp_path):
    with pytest.raises(EnvironmentStop):
        train(tmp_path, at(0, raises(EnvironmentStop("away"))))
    assert steps_on_disk(tmp_path) == []
    with RunDir("train other", TrainConfig(out=str(tmp_path), seed=6), {}):
        pass


@pytest.mark.parametrize("change", ["weights", "plain", "extras"])
def test_a_stop_amid_a_change_writes_no_checkpoint(tmp_path, change):
    """Such a step function breaks its contract; the run goes on from the checkpoint before."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])

    def step(state):
        if state.step == 6:
            if change == "plain":
                state.kl_coef += 1
            if change == "extras":
                state.extras["x"] = 1
        if state.step != 6 or change == "weights":
            weight.grad = torch.ones(2)
            optimizer.step()
        if state.step == 6:
            raise EnvironmentStop("away")
        return {}

    with pytest.raises(EnvironmentStop):
        train(tmp_path, step, TrainState({}, None, {"policy": optimizer}))
    assert steps_on_disk(tmp_path) == [4]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_step_end_and_saves_it(tmp_path, number, capfd):
    _, _, whole = train(tmp_path / "whole", draw)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", at(5, send(number)))
    assert signal.getsignal(number) is before
    assert "interrupted: stopping after this step" in capfd.readouterr().err
    assert rows_of(tmp_path / "broken") == whole[:6]
    assert steps_on_disk(tmp_path / "broken") == [4, 6]
    assert written_on_stop(tmp_path / "broken" / "checkpoints" / "step-000006")
    assert train(tmp_path / "broken", draw)[2] == whole
    assert steps_on_disk(tmp_path / "broken") == steps_on_disk(tmp_path / "whole")


def test_a_second_signal_cuts_in(tmp_path):
    _, _, whole = train(tmp_path / "whole", draw)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", at(5, send(signal.SIGINT, signal.SIGTERM)))
    assert len(rows_of(tmp_path / "broken")) == 5
    assert steps_on_disk(tmp_path / "broken") == [4]
    assert train(tmp_path / "broken", draw)[2] == whole


def test_a_signal_in_the_last_step_is_not_lost(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, at(9, send(signal.SIGTERM)))
    assert train(tmp_path, raises(AssertionError))[0] == "done"


def test_an_ignored_signal_stays_ignored(tmp_path):
    """As `nohup` and a shell's background jobs want it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert train(tmp_path, at(5, send(signal.SIGINT)))[0] == "done"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_loop_runs_in_any_thread(tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(train(tmp_path, draw)[0]))
    thread.start()
    thread.join()
    assert found == ["done"]


def leaves_at_seven(state):
    return "kl_budget" if state.step == 7 else draw(state)


def test_what_a_stop_leaves_is_no_result(tmp_path):
    """Otherwise a run that was interrupted inside the budget would end with other weights than an unbroken one."""

    def outcome(out):
        stopped, state, _ = train(out, leaves_at_seven)
        assert stopped == "kl_budget"
        config = TrainConfig(out=str(out), seed=5, checkpoint_every=4)
        with RunDir("train thing", config, {}) as run:
            return str(result_checkpoint(run, before=state.step)), steps_on_disk(out)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", at(5, send(signal.SIGINT), leaves_at_seven))
    assert steps_on_disk(tmp_path / "broken") == [4, 6]
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole") == ("checkpoints/step-000004", [4])


def test_a_step_that_the_run_itself_keeps_is_written_anew(tmp_path):
    state = new_state()
    state.step = 3
    root = tmp_path / "checkpoints"
    root.mkdir()
    save_checkpoint(state, root, on_stop=True)
    assert newest_verified(root) is not None and newest_verified(root, as_result=True) is None
    save_checkpoint(state, root)
    assert newest_verified(root, as_result=True) == root / "step-000003"
    save_checkpoint(state, root, on_stop=True)
    assert not written_on_stop(root / "step-000003")


def held_out(values):
    return lambda state: {"loss": 1.0, "win_rate": values[state.step]}


def test_the_best_step_is_that_of_the_held_out_measurement(tmp_path):
    values = {2: 0.5, 4: 0.7, 6: 0.7, 8: 0.6, 10: 0.4}
    measured = {"evaluate": held_out(values), "eval_every": 2, "best_metric": "win_rate", "higher_is_better": True}
    stopped, state, rows = train(tmp_path / "a", draw, every=100, keep=1, **measured)
    assert (stopped, state.best_step, state.best_value) == ("done", 4, 0.7), "a tie is no improvement"
    assert steps_on_disk(tmp_path / "a") == [4, 10]
    assert [row["eval/win_rate"] for row in rows if "eval/win_rate" in row] == list(values.values())
    lower = measured | {"higher_is_better": False}
    assert train(tmp_path / "b", draw, every=100, keep=1, **lower)[1].best_step == 10
    stopped, state, _ = train(tmp_path / "c", draw, every=100, keep=1, patience=2, **measured)
    assert (stopped, state.step, state.best_step) == ("early_stopping", 8, 4)


def test_the_start_may_be_the_best(tmp_path):
    measured = {
        "evaluate": held_out({0: 0.9, 5: 0.8, 10: 0.7}),
        "eval_every": 5,
        "best_metric": "win_rate",
        "higher_is_better": True,
        "evaluate_start": True,
    }
    _, state, whole = train(tmp_path / "whole", draw, every=100, keep=1, **measured)
    assert state.best_step == 0 and steps_on_disk(tmp_path / "whole") == [0, 10]
    assert whole[0] == {"step": 0, "eval/loss": 1.0, "eval/win_rate": 0.9}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", at(3, raises(KeyboardInterrupt)), every=100, keep=1, **measured)
    assert train(tmp_path / "broken", draw, every=100, keep=1, **measured)[2] == whole


def test_a_held_out_scorer_that_stays_away_costs_no_finished_step(tmp_path):
    """The step before the evaluation is done; the run goes on with the evaluation."""

    def evaluate(state):
        return {"loss": random.random()}

    measured = {"eval_every": 3, "every": 4}
    _, _, whole = train(tmp_path / "whole", draw, evaluate=evaluate, **measured)
    away = at(6, raises(EnvironmentStop("away")), evaluate)
    with pytest.raises(EnvironmentStop):
        train(tmp_path / "broken", draw, evaluate=away, **measured)
    assert len(rows_of(tmp_path / "broken")) == 5 and steps_on_disk(tmp_path / "broken")[-1] == 6
    done = []
    # Once more, before there is another checkpoint: the evaluation is done and logged again, not twice.
    with pytest.raises(KeyboardInterrupt):
        train(
            tmp_path / "broken",
            at(7, raises(KeyboardInterrupt), lambda state: done.append(state.step) or draw(state)),
            evaluate=evaluate,
            **measured,
        )
    assert done == [6] and len(rows_of(tmp_path / "broken")) == 7
    assert train(tmp_path / "broken", draw, evaluate=evaluate, **measured)[2] == whole
    assert steps_on_disk(tmp_path / "broken") == steps_on_disk(tmp_path / "whole")


def test_the_log_is_on_disk_before_the_checkpoint_of_its_steps(tmp_path, monkeypatch):
    """A machine that loses power may lose what was not synced: never the lines of steps that a checkpoint has."""
    done = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file))[1])
    monkeypatch.setattr(Path, "rename", lambda self, to: (done.append(f"rename {to}"), rename(self, to))[1])
    train(tmp_path, draw, num_steps=4)
    checkpoint = f"rename {tmp_path}/checkpoints/step-000004"
    before, after = done[: done.index(checkpoint)], done[done.index(checkpoint) + 1 :]
    temporary = f"{tmp_path}/checkpoints/.step-000004.tmp"
    assert f"{tmp_path}/metrics.jsonl" in before and str(tmp_path) in before
    written = {f"{temporary}/state/rng.safetensors", f"{temporary}/state/state.json", f"{temporary}/state", temporary}
    assert written <= set(before)
    assert str(tmp_path / "checkpoints") in after


def test_a_checkpoint_is_whole_or_absent_also_when_it_is_deleted(tmp_path, monkeypatch):
    train(tmp_path, draw, keep=1)

    def killed(path, *arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "broken", draw, keep=1)
    root = tmp_path / "broken" / "checkpoints"
    assert [verify(path) for path in checkpoints(root)] == [None] * len(checkpoints(root))
    assert train(tmp_path / "broken", draw, keep=1)[2] == rows_of(tmp_path)
    assert sorted(path.name for path in root.iterdir()) == ["step-000010"]


def test_a_crash_before_the_last_deletions_leaves_no_more_checkpoints(tmp_path, monkeypatch):
    """Found by `make test-crash-full`."""

    def killed(root, *, keep, protect):
        if (root / "step-000010").exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("prefloop.train.loop.prune", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, draw)
    assert steps_on_disk(tmp_path) == [4, 8, 10]
    train(tmp_path, draw)
    assert steps_on_disk(tmp_path) == [8, 10]


def test_what_a_user_put_beside_the_checkpoints_is_left_alone(tmp_path):
    train(tmp_path, draw, num_steps=4)
    (tmp_path / "checkpoints" / "step-000004.bak").mkdir()
    (tmp_path / "checkpoints" / "step-best").write_text("4")
    assert steps_on_disk(tmp_path) == [4]


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(tmp_path):
    train(tmp_path, draw, num_steps=4)
    root = tmp_path / "checkpoints"
    (root / "step-000004").rename(root / "step-000007")
    assert verify(root / "step-000007") == "broken manifest (it is not of this checkpoint)"


def test_a_damaged_line_of_the_log_is_named(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, at(6, raises(KeyboardInterrupt)))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\0" * 40 + b"\n", *lines[3:]]))
    with pytest.raises(InputError, match=rf"{path}:3: this line of the run's log is damaged .*; restore the file"):
        train(tmp_path, draw)


def test_a_restored_tensor_must_have_its_shape(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, at(6, raises(KeyboardInterrupt), averaging), with_average())
    state = with_average()
    state.tensors["ema"]["weight"] = torch.zeros(1)
    with pytest.raises(AssertionError, match="weight"):
        restore(state, newest_verified(tmp_path / "checkpoints"))


@pytest.mark.parametrize(("times", "told"), [(30.0, True), (1.2, False)])
def test_bf16_that_costs_more_than_fp32_is_told(tmp_path, monkeypatch, capsys, times, told):
    monkeypatch.setattr("prefloop.train.loop.bf16_over_fp32", lambda device: times)
    for precision in ("fp32", "bf16"):
        with RunDir("train thing", TrainConfig(out=str(tmp_path / precision)), {}) as run:
            fit(run, TrainConfig(precision=precision), new_state(), draw, num_steps=1)
        assert ("takes 30 times as long in bf16" in capsys.readouterr().err) == (told and precision == "bf16")
