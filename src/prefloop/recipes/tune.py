"""`train policy`: the on-policy loop with the monitor on its log."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from prefloop.console import say
from prefloop.monitor.config import TrainingMonitor
from prefloop.monitor.log import LogWatch
from prefloop.rundir import ALARMS, write_rows
from prefloop.train import policy as policy_trainer
from prefloop.train.config import PolicyConfig
from prefloop.train.rollouts import Seen
from prefloop.types import Alarm, InputError, RunResult


def policy(config: PolicyConfig, *, look_up_audits: bool = True) -> RunResult:
    """Tune a policy, watched where the config says so. Takes and raises what `train.policy.train` does."""
    settings: Any = config
    monitor: TrainingMonitor = settings.monitor
    if monitor.enabled and not config.save_rollouts:
        raise InputError(
            "the monitor watches the stored responses, and none are stored",
            field="save_rollouts",
            remedy="store some, or give --monitor.enabled false",
        )
    observe = Observer(monitor) if monitor.enabled else None
    return policy_trainer.train(config, look_up_audits=look_up_audits, observe=observe)


class Observer:
    """Reads a run's log on after each round; keeps `alarms.jsonl` in the run directory."""

    def __init__(self, settings: TrainingMonitor) -> None:
        self.settings, self.log = settings, LogWatch(settings)

    def __call__(self, rollouts: Path, step: int) -> Seen:
        """Look at what was added up to `step`."""
        alarms = self.log.read_on(rollouts)
        # A run that goes on reads its log again, with the alarms that were told before.
        for alarm in (alarm for alarm in alarms if alarm.step == step):
            say(f"alarm at step {alarm.step}, {alarm.signal} ({alarm.action}): {alarm.message}")
        watch = self.log.watch
        if alarms and watch is not None:
            write_rows(rollouts.parents[1] / ALARMS, map(dataclasses.asdict, watch.alarms))
        metrics = {f"monitor/{name}": value for name, value in self.log.newest(step).items()}
        if watch is None:
            return Seen(metrics)
        return Seen(metrics | {"monitor/num_alarms": float(len(watch.alarms))}, self._rewind(alarms))

    def _rewind(self, alarms: list[Alarm]) -> int | None:
        """The step of the first policy that wrote what an alarm is about, if the alarm is to end the run.

        Responses of step n are those of the policy after n - 1 updates.
        """
        watch = self.log.watch
        assert watch is not None
        since = [watch.since[alarm.signal] - 1 for alarm in alarms if alarm.signal in self.settings.stop_on]
        return min(since, default=None)
