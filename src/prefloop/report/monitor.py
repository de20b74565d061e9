"""The page of the monitor: the alarms with what the policy wrote, and every signal against its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefloop.report import figures
from prefloop.report.figures import PALETTE, Line
from prefloop.report.page import Answer, Block, Exchange, PageSection, Plot, Plots, Points, Prose, render_page
from prefloop.report.wording import count, number, plain
from prefloop.types import Alarm

Series = Mapping[str, Sequence[Mapping[str, float | int | None]]]
"""By signal a row for each look: step, value, and the limits `low` and `high` where it has some."""
ACTIONS = {"note": "to be noted", "review": "read these responses", "stop": "stop the run", "rewind": "go back"}


def render_monitor(file: str, alarms: Sequence[Alarm], series: Series) -> str:
    """The page as one HTML string."""
    sections = [
        PageSection("Alarms", "alarms", _summary(alarms)),
        *(
            PageSection(f"Step {alarm.step}: {plain(alarm.signal)}", f"alarm-{place}", _alarm(alarm))
            for place, alarm in enumerate(alarms)
        ),
        PageSection("Every signal", "signals", [Plots([_plot(name, rows, alarms) for name, rows in series.items()])]),
    ]
    return render_page(sections, title="What the policy writes, watched", subtitle=file)


def _summary(alarms: Sequence[Alarm]) -> list[Block]:
    if not alarms:
        return [
            Prose(
                "No signal left its limits. The limits are for what chance does to the responses of the reference; "
                "that nothing was seen is no proof that the responses are good."
            )
        ]
    named = [
        Prose(f"{alarm.message}.", lead=f"Step {alarm.step}, {plain(alarm.signal)} ({ACTIONS[alarm.action]}):")
        for alarm in alarms
    ]
    return [
        Points(named, numbered=True),
        Prose(
            "A signal of the text says that the policy writes differently, not that it writes worse: read the "
            "responses below. Only a score that nothing was optimised against tells which of the two it is."
        ),
    ]


def _alarm(alarm: Alarm) -> list[Block]:
    exchanges = [
        Exchange(
            str(example["prompt"]),
            [
                Answer(
                    f"step {example['step']}", str(example["response"]), [("score", f"{example['score']:g}")], "hacked"
                )
            ],
        )
        for example in alarm.examples
    ]
    return [Prose(f"{alarm.message}; the limit is {number(alarm.limit)}."), *exchanges]


def _plot(name: str, rows: Sequence[Mapping[str, float | int | None]], alarms: Sequence[Alarm]) -> Plot:
    steps = [float(row["step"] or 0) for row in rows]
    lines = [Line(plain(name), steps, [float(row["value"] or 0.0) for row in rows], PALETTE[0])]
    for end, said in (("low", "lower limit"), ("high", "upper limit")):
        known = [(step, float(value)) for step, row in zip(steps, rows, strict=True) if (value := row[end]) is not None]
        if known:
            lines.append(Line(said, [step for step, _ in known], [value for _, value in known], PALETTE[-1]))
    fired = [alarm.step for alarm in alarms if alarm.signal == name]
    told = f"{count(len(rows), 'look')}, from {number(lines[0].y[0])} to {number(lines[0].y[-1])}"
    if fired:
        told += f"; alarm at step {', '.join(map(str, fired))}"
    return Plot(figures.curves(lines), plain(name), f"{told}.")
