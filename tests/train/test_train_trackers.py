"""Experiment trackers get what metrics.jsonl has, under the same steps, and never stop a run."""

from __future__ import annotations

import json
import struct

import accelerate.tracking
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from prefloop.rundir import RunDir
from prefloop.train.config import TRACKER_PACKAGES, SFTConfig, TrainConfig
from prefloop.train.trackers import flat_config


@pytest.fixture
def reward(prefloop, sft_run, data, tmp_path):
    """`train reward` in ten steps, a checkpoint every fourth."""

    def call(*settings):
        return prefloop(
            *("train reward", "--model", sft_run.run, "--data", data / "pairs.jsonl", "--eval-fraction", 0.1),
            *("--eval-every", 3, "--checkpoint-every", 4, "--out", tmp_path / "run", *settings),
        )

    return call


def events(path):
    """The records of a TensorBoard file: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    content, place = path.read_bytes(), 0
    while place < len(content):
        (length,) = struct.unpack("<Q", content[place : place + 8])
        yield Event.FromString(content[place + 12 : place + 12 + length])
        place += 16 + length


def shown(directory):
    """Step -> metric -> value as TensorBoard shows them: a session that starts at a step takes back what it had."""
    found: list[tuple[int, str, float]] = []
    for path in sorted(directory.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        for event in events(path):
            if event.session_log.status == SessionLog.START:
                found = [point for point in found if point[0] < event.step]
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    rows: dict[int, dict[str, float]] = {}
    for step, name, value in found:
        assert name not in rows.setdefault(step, {}), "a step is shown once"
        rows[step][name] = value
    return rows


def assert_tracked(outcome):
    """TensorBoard keeps 32-bit floats."""
    rows = shown(outcome.run / "trackers" / "tensorboard")
    assert list(rows) == [row["step"] for row in outcome.metrics()]
    for row in outcome.metrics():
        assert rows[row.pop("step")] == pytest.approx(row, rel=1e-6)


def test_tensorboard_has_every_metric_of_every_step(reward):
    outcome = reward("--report-to", "tensorboard")
    assert outcome.code == 0, outcome.said
    assert_tracked(outcome)
    config = next((outcome.run / "trackers" / "tensorboard").glob("*/hparams.yml")).read_text()
    assert "optimizer.lr: 0.0001" in config and "batch_size: 32" in config


@pytest.fixture
def interrupted(reward, monkeypatch):
    """The same, broken off while it recorded step 7."""

    def call(*settings):
        log = RunDir.log

        def until(self, step, metrics):
            log(self, step, metrics)
            if step == 7:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(RunDir, "log", until)
            assert reward(*settings).code == 130

    return call


def test_a_resumed_run_goes_on_under_its_step(reward, interrupted):
    interrupted("--report-to", "tensorboard")
    outcome = reward("--report-to", "tensorboard")
    assert "resuming from" in outcome.said
    assert_tracked(outcome)
    files = list((outcome.run / "trackers" / "tensorboard").glob("events.*"))
    assert len(files) == 2
    assert len(list((outcome.run / "trackers" / "tensorboard").glob("*/hparams.yml"))) == 1


def test_reporting_elsewhere_is_no_other_config(reward, interrupted, tmp_path):
    interrupted("--report-to", "tensorboard")
    without = reward()
    assert without.code == 0 and "resuming from" in without.said
    assert list(shown(tmp_path / "run" / "trackers" / "tensorboard")) == [1, 2, 3, 4, 5, 6]
    assert len(without.metrics()) == 9


def test_the_default_directory_does_not_depend_on_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunDir("train thing", TrainConfig(), {}) as a, RunDir("train other", TrainConfig(), {}):
        first = a.path
    with RunDir("train thing", TrainConfig(report_to=("tensorboard",)), {}) as b:
        assert b.path == first


class Fake:
    """A tracker of accelerate's shape that notes what is done to it, and fails at the steps it is told to."""

    fails_at: frozenset[str | int] = frozenset()
    calls: list

    def __init__(self, run_name, **settings):
        self._do("init", run_name, settings)

    def _do(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name in self.fails_at:
            raise ConnectionError("nobody\nanswers")

    def start(self):
        self._do("start")

    def store_init_configuration(self, values):
        self._do("config", values)

    def log(self, values, step):
        self._do(step, values)

    def finish(self):
        self._do("finish")


@pytest.fixture
def fake(monkeypatch):
    """Puts a fake in TensorBoard's place; gives its calls."""

    def make(*fails_at):
        calls = []
        made = type("Made", (Fake,), {"calls": calls, "fails_at": frozenset(fails_at)})
        monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", made)
        return calls

    return make


def test_a_tracker_is_started_told_the_config_fed_and_finished(reward, fake):
    calls = fake()
    outcome = reward("--report-to", "tensorboard")
    assert outcome.code == 0
    assert [call[0] for call in calls] == ["init", "start", "config", *range(1, 10), "finish"]
    assert calls[2][1]["optimizer.lr"] == 1e-4
    assert [{"step": call[0], **call[1]} for call in calls[3:-1]] == outcome.metrics()


def test_a_tracker_that_fails_later_warns_once_and_is_dropped(reward, fake):
    calls = fake(3, 4)
    outcome = reward("--report-to", "tensorboard")
    assert outcome.code == 0
    warnings = [line for line in outcome.said.splitlines() if line.startswith("warning") and "no audit" not in line]
    assert warnings == [
        "warning: tensorboard failed (ConnectionError: nobody answers); the run goes on without it, "
        "metrics.jsonl has everything"
    ]
    assert [call[0] for call in calls[3:]] == [1, 2, 3]
    assert len(outcome.metrics()) == 9


def test_one_that_fails_at_the_end_does_not_take_the_result_away(reward, fake):
    fake("finish")
    outcome = reward("--report-to", "tensorboard")
    assert outcome.code == 0 and outcome.said.count("warning: tensorboard failed") == 1


@pytest.mark.parametrize("where", ["init", "start", "config"])
def test_one_that_does_not_start_is_refused_in_one_line(reward, fake, where):
    fake(where)
    refused = reward("--report-to", "tensorboard")
    assert refused.problem == (
        "report_to: tensorboard does not start: ConnectionError: nobody answers; set it up, or leave it out"
    )
    assert reward("--seed", 3).code == 0, "nothing was made, so another config may have the directory"


def test_a_missing_package_is_named_before_anything_is_done(reward, tmp_path):
    refused = reward("--report-to", "tensorboard", "wandb")
    assert refused.problem == "--report-to: wandb is not installed; pip install wandb"
    assert not (tmp_path / "run").exists()
    refused = reward("--report-to", "tensorbored")
    assert refused.problem.startswith('--report-to: is "tensorbored"; should be one of')
    assert "'tensorboard'" in refused.problem


def test_only_the_first_process_reports(reward, fake, monkeypatch):
    calls = fake()
    monkeypatch.setenv("RANK", "1")
    assert reward("--report-to", "tensorboard").code == 0
    assert calls == []


def test_the_packages_are_those_of_accelerate():
    assert TRACKER_PACKAGES.keys() == accelerate.tracking.LOGGER_TYPE_TO_CLASS.keys()


def test_a_config_becomes_scalars():
    flat = flat_config(SFTConfig(data=("a.jsonl", "b.jsonl@2"), patience=None))
    assert flat["data"] == "a.jsonl b.jsonl@2" and flat["patience"] == "none" and flat["report_to"] == "(empty)"
    assert flat["optimizer.lr"] == 2e-3 and flat["scratch.num_layers"] > 0 and flat["skip_bad"] is False
    assert json.loads(json.dumps(flat)) == flat
