"""A run as it is watched: a reference sample first, then one look after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from prefloop.monitor.config import MonitorSettings
from prefloop.monitor.gain import length_correlation, share_within_lengths
from prefloop.monitor.held_out import HeldOut
from prefloop.monitor.limits import Floats, Sample, limits_of, sample_of
from prefloop.monitor.measures import Measure, measures
from prefloop.monitor.rows import Observed
from prefloop.monitor.shuffled import SHARE, Shuffled, shuffled_scores
from prefloop.types import Action, Alarm, Signal

EXAMPLE_CHARS = 600
LENGTH_GAIN = 0.5
"""Share of a gain in score that must remain among responses of like length."""


@dataclass
class Watch:
    """What is known of the reference, how often each signal was beyond its limit, and the looks so far."""

    settings: MonitorSettings
    reference: Sequence[Observed]
    sources: frozenset[str] | None = None
    signals: list[Signal] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    limits: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)
    """By signal: step and lower and upper limit of each look."""

    def __post_init__(self) -> None:
        prompts = [row.prompt_id for row in self.reference]
        self.measures = measures(self.sources)
        self.samples: dict[str, Sample | None] = {
            each.name: sample_of(each.values(self.reference), prompts, pairwise=each.pairwise) for each in self.measures
        }
        self.lengths, self.scores = _lengths(self.reference), _scores(self.reference)
        self.shuffled = Shuffled(self.reference)
        # The gain in length, that under other prompts and the held-out score are watched, too.
        watched = sum(sample is not None for sample in self.samples.values()) + 3
        self.wanted = min(0.25, self.settings.false_alarms / 1000 / watched)
        self.held_out = HeldOut()
        self._note_held_out(self.reference)
        self._beyond: dict[str, int] = {}
        self.since: dict[str, int] = {}
        """First step of the looks in a row in which a signal has been beyond its limit."""
        self._first = 0

    def look(self, rows: Sequence[Observed]) -> list[Alarm]:
        """Measure the responses of one or more steps; the alarms that this look raises."""
        step, self._first = max(row.step for row in rows), min(row.step for row in rows)
        before = len(self.alarms)
        for measure in self.measures:
            self._measured(measure, rows, step)
        self._numbers(rows, step)
        self._gain(rows, step)
        self._shuffled(rows, step)
        self._held_out(rows, step)
        return self.alarms[before:]

    def _measured(self, measure: Measure, rows: Sequence[Observed], step: int) -> None:
        sample = self.samples[measure.name]
        values = measure.values(rows)
        if sample is None or np.isnan(values).all():
            return
        value = float(np.nanmean(values))
        num_prompts = len({row.prompt_id for row in rows})
        low, high = limits_of(
            sample,
            num_prompts,
            wanted=self.wanted / (2 if measure.both_ways else 1),
            patience=self.settings.patience,
            is_share=measure.counted,
        )
        least = self.settings.share if measure.kind == "share" else self.settings.growth * abs(sample.mean)
        floor = min(low, sample.mean - least) if measure.both_ways else -np.inf
        ceiling = max(high, sample.mean + least)
        self.signals.append(Signal(measure.name, step, value))
        self.limits.setdefault(measure.name, []).append((step, floor, ceiling))
        rises = value > ceiling
        told = f"{measure.what}: {_shown(measure, sample.mean)} in the reference, {_shown(measure, value)} now"
        order = np.argsort(-np.nan_to_num(values) if rises else np.nan_to_num(values), kind="stable")
        self._count(
            measure.name,
            rises or value < floor,
            lambda: Alarm(
                *(measure.name, step, value, ceiling if rises else floor, measure.action, told),
                examples=_examples([rows[place] for place in order], self.settings.examples),
            ),
        )

    def _numbers(self, rows: Sequence[Observed], step: int) -> None:
        """What is shown and has no limit."""
        self.signals.append(Signal("score", step, float(_scores(rows).mean())))
        known = [row.kl for row in rows if row.kl is not None]
        if known:
            self.signals.append(Signal("kl", step, float(np.mean(known))))
        shuffled = shuffled_scores(rows)[1]
        if len(shuffled):
            self.signals.append(Signal("shuffled_score", step, float(shuffled.mean())))
        correlation = length_correlation(_scores(rows), _lengths(rows))
        if correlation is not None:
            self.signals.append(Signal("score_length_correlation", step, correlation))

    def _gain(self, rows: Sequence[Observed], step: int) -> None:
        share = share_within_lengths(_scores(rows), _lengths(rows), self.scores, self.lengths)
        if share is None:
            self._beyond["length_gain"] = 0
            return
        self.signals.append(Signal("length_gain", step, share))
        told = f"of the gain in score {max(0.0, share):.0%} remains among responses of like length: the rest is length"
        longest = sorted(rows, key=lambda row: -len(row.response))
        self._count(
            "length_gain",
            share < LENGTH_GAIN,
            lambda: Alarm(
                *("length_gain", step, share, LENGTH_GAIN, "review", told),
                examples=_examples(longest, self.settings.examples),
            ),
        )

    def _shuffled(self, rows: Sequence[Observed], step: int) -> None:
        found = self.shuffled.look(rows, wanted=self.wanted, patience=self.settings.patience)
        if found is None:
            self._beyond["shuffled_gain"] = 0
            return
        share, beyond = found
        self.signals.append(Signal("shuffled_gain", step, share))
        told = f"{share:.0%} of the gain in score is had under other prompts, too: it is paid whatever was asked"
        known = [row for row in rows if row.shuffled_score is not None]
        highest = sorted(known, key=lambda row: -(row.shuffled_score or 0.0))
        self._count(
            "shuffled_gain",
            beyond,
            lambda: Alarm(
                *("shuffled_gain", step, share, SHARE, "review", told),
                examples=_examples(highest, self.settings.examples),
            ),
        )

    def _note_held_out(self, rows: Sequence[Observed]) -> tuple[float | None, float | None]:
        """Mean held-out score of the responses that have one, and the limit where it is below it."""
        known = [row for row in rows if row.held_out_score is not None]
        if not known:
            return None, None
        values = np.array([row.held_out_score for row in known], dtype=np.float64)
        prompts = [row.prompt_id for row in known]
        tail = self.wanted ** (1 / self.settings.patience)
        return float(values.mean()), self.held_out.add(values, _scores(known), prompts, tail=tail)

    def _held_out(self, rows: Sequence[Observed], step: int) -> None:
        value, limit = self._note_held_out(rows)
        if value is None:
            return
        self.signals.append(Signal("held_out_score", step, value))
        known = [row for row in rows if row.held_out_score is not None]
        told = "the held-out score has fallen below its best while the score that is optimised went on rising"
        worst = sorted(known, key=lambda row: (row.held_out_score or 0.0) - row.score)
        self._count(
            "held_out_score",
            limit is not None,
            lambda: Alarm(
                *("held_out_score", step, value, limit or 0.0, "stop", told),
                examples=_examples(worst, self.settings.examples),
            ),
        )

    def _count(self, name: str, beyond: bool, make: Callable[[], Alarm]) -> None:
        """Raise the alarm when the signal has been beyond its limit for `patience` looks; once, until it comes back."""
        self._beyond[name] = self._beyond.get(name, 0) + 1 if beyond else 0
        if self._beyond[name] == 1:
            self.since[name] = self._first
        if self._beyond[name] == self.settings.patience:
            self.alarms.append(make())


def worst_action(alarms: Sequence[Alarm]) -> Action | None:
    """What the alarms ask for, the strongest of it."""
    order: Sequence[Action] = ("note", "review", "stop", "rewind")
    return max((alarm.action for alarm in alarms), key=order.index, default=None)


def _shown(measure: Measure, value: float) -> str:
    return f"{value:.1%}" if measure.kind == "share" else f"{value:.3g}"


def _lengths(rows: Sequence[Observed]) -> Floats:
    return np.array([len(row.response.strip()) for row in rows], dtype=np.float64)


def _scores(rows: Sequence[Observed]) -> Floats:
    return np.array([row.score for row in rows], dtype=np.float64)


def _examples(rows: Sequence[Observed], most: int) -> tuple[Mapping[str, object], ...]:
    """The first different responses."""
    shown: dict[str, Observed] = {}
    for row in rows:
        shown.setdefault(row.response, row)
        if len(shown) == most:
            break
    return tuple(
        {
            "step": row.step,
            "prompt": row.prompt[:EXAMPLE_CHARS],
            "response": row.response[:EXAMPLE_CHARS],
            "score": round(row.score, 4),
        }
        for row in shown.values()
    )
