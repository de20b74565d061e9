"""Metrics files -> series."""

import json
import math

import numpy as np
import pytest

from prefloop.report import metrics
from prefloop.report.metrics import Series


def write(path, rows):
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_series_keep_their_own_steps_and_gaps(tmp_path):
    write(tmp_path, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": math.nan, "eval/loss": 3}, {"step": 3, "loss": 1.0}])
    found = metrics.read_metrics(tmp_path)
    assert found["eval/loss"] == Series([2.0], [3.0])
    assert found["loss"].steps == [1.0, 2.0, 3.0] and math.isnan(found["loss"].values[1])
    assert list(found) == ["loss", "eval/loss"]


def test_a_run_without_metrics_has_none(tmp_path):
    assert metrics.read_metrics(tmp_path) == {}


def test_rows_without_a_step_count_by_line(tmp_path):
    write(tmp_path, [{"loss": 2.0}, {"loss": 1.0}])
    assert metrics.read_metrics(tmp_path)["loss"].steps == [1.0, 2.0]


def test_groups_leave_time_out():
    keys = {key: Series() for key in ("loss", "kl/full", "kl/coef", "time/rollout_seconds")}
    assert metrics.grouped_keys(keys) == {"training": ["loss"], "kl": ["kl/full", "kl/coef"]}


@pytest.mark.parametrize("length", [399, 400, 401, 1000, 12345])
def test_thinning_keeps_the_mean_and_the_line(length):
    series = Series(list(np.arange(length, dtype=float)), list(3.0 * np.arange(length)))
    steps, values = metrics.thinned(series)
    assert len(steps) == len(values) == min(length, metrics.MAX_POINTS)
    # A straight line stays on itself, whatever the blocks.
    assert np.allclose(values, 3 * np.asarray(steps))
    assert steps[0] >= 0 and steps[-1] <= length - 1


def test_a_metric_has_a_line_for_each_run_that_logged_it():
    runs = {"a": {"sft/loss": Series([1.0], [2.0])}, "b": {}, "c": {"sft/loss": Series([1.0], [3.0])}}
    plot = metrics.metric_plot("sft/loss", runs, {"a": "#123456"})
    assert [(trace["name"], trace["y"], trace["line"]["color"]) for trace in plot.figure["data"]] == [
        ("a", [2.0], "#123456"),
        ("c", [3.0], metrics.PALETTE[2]),
    ]
    assert (plot.title, plot.caption) == ("Loss, nats per token", "sft/loss")


def test_seconds_are_summed_by_phase():
    found = metrics.seconds_by_phase(
        {
            "time/rollout_seconds": Series([1, 2, 3], [0.5, math.nan, 1.0]),
            "time/steps": Series([1], [9.0]),
            "loss": Series([1], [9.0]),
        }
    )
    assert found == {"rollout": 1.5}


def test_what_no_phase_claims_is_the_rest():
    seconds = {
        name: Series([1, 2], [value, value]) for name, value in (("rollout", 1.0), ("update", 2.0), ("step", 3.5))
    }
    found = metrics.seconds_by_phase({f"time/{name}_seconds": series for name, series in seconds.items()})
    assert found == {"rollout": 2.0, "update": 4.0, "rest": 1.0}
    assert metrics.seconds_by_phase({"time/step_seconds": seconds["step"]}) == {"step": 7.0}


def test_no_heading_is_the_jargon_of_a_key():
    assert metrics.heading_of("kl") == "KL"
    assert metrics.heading_of("sft") == "Supervised fine-tuning"
    assert metrics.heading_of("my_group") == "My group"
