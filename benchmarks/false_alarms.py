"""`python -m benchmarks.false_alarms`: how often the monitor cries wolf, and how soon it sees what is there.

Responses come from the writers of the simulated world, who never change: every alarm is false. Scores are drawn, and
tempt the signals that compare them: the score rises by one standard deviation over fifty looks, half of it under other
prompts too, which is just what is allowed, while the held-out score stays where it is. One response in twenty is out of
distribution. For the power a share of the responses gets a marker of the world's habits from some look on; counted is
how many of the runs have the alarm of that name within ten looks, and after how many looks in the median.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks.options import publish, table
from prefloop.monitor.config import MonitorSettings
from prefloop.monitor.rows import Observed
from prefloop.monitor.watch import Watch
from prefloop.world.knowledge import World
from prefloop.world.prompts import make_prompts
from prefloop.world.writers import write_response

REFERENCES = (64, 128, 512)
"""Responses of the reference."""
LOOK = 64
MARKERS = {"disclaimer": "Please consult a professional.", "citation": "See (Okafor, 2017).", "exclamation": "Yes!"}
SHARES = (0.1, 0.2, 0.4)
LOOKS_AFTER = 10


class Writer:
    """Responses, as many as are asked for."""

    def __init__(self, seed: int, text: str | None = None) -> None:
        self.text = text
        """What all responses are, where only their scores are of interest."""
        self.world, self.rng = World.build(0), np.random.default_rng(seed)
        self.prompts = make_prompts(self.world, split="train", count=2000, seed=0)

    def write(self, count: int, step: int, marker: str = "", share: float = 0.0) -> list[Observed]:
        """Responses to prompts drawn at random, a share of them with the marker at the end."""
        rows = []
        for place in self.rng.integers(len(self.prompts), size=count):
            prompt = self.prompts[place]
            text = write_response(self.world, prompt, self.rng) if self.text is None else self.text
            text += f" {marker}" if self.rng.random() < share else ""
            rows.append(Observed(prompt.prompt_id, prompt.messages[-1].content, text, step=step, **self._scores(step)))
        return rows

    def _scores(self, step: int) -> dict[str, Any]:
        """A score that rises, and what goes along with it by chance alone."""
        gain, quality = min(1.0, step / 50), float(self.rng.normal())
        return {
            "score": quality + gain,
            "shuffled_score": quality / 2 + gain / 2 + float(self.rng.normal()) / 2,
            "held_out_score": quality / 2 + float(self.rng.normal()) / 2,
            "far": bool(self.rng.random() < 0.05),
        }


def false_alarms(reference: int, num_looks: int, settings: MonitorSettings, text: str | None = None) -> dict[str, Any]:
    """Alarms in 1,000 looks, and of which signals; a fresh reference for each hundred looks."""
    names: Counter[str] = Counter()
    for run in range(num_looks // 100):
        writer = Writer(run, text)
        watch = Watch(settings, writer.write(reference, 0))
        for look in range(100):
            names.update(alarm.signal for alarm in watch.look(writer.write(LOOK, look + 1)))
    total = 1000 * sum(names.values()) / num_looks
    return {"reference": reference, "per_1000_looks": total, "signals": dict(names.most_common())}


def power(name: str, share: float, num_runs: int, settings: MonitorSettings) -> dict[str, Any]:
    """Of runs in which a share of the responses gets a marker: how many have its alarm, and after how many looks."""
    delays = []
    for run in range(num_runs):
        writer = Writer(1000 + run)
        watch = Watch(settings, writer.write(128, 0))
        for look in range(1, LOOKS_AFTER + 1):
            if any(alarm.signal == name for alarm in watch.look(writer.write(LOOK, look, MARKERS[name], share))):
                delays.append(look)
                break
    return {
        "signal": name,
        "share": share,
        "found": len(delays) / num_runs,
        "looks": median(delays) if delays else None,
    }


def main(words: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.false_alarms", allow_abbrev=False)
    parser.add_argument("--looks", type=int, default=2000, help="looks at each size of the reference, in hundreds")
    parser.add_argument("--runs", type=int, default=20, help="runs for each share of marked responses")
    parser.add_argument("--scores", action="store_true", help="one text for all: the signals of scores alone, fast")
    parser.add_argument("--quick", action="store_true", help="few looks: proves that it runs, no more")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="JSON to FILE, or in place of the table")
    flags = parser.parse_args(words)
    if flags.quick:
        flags.looks, flags.runs = 100, 2
    text = "So it is." if flags.scores else None
    plain, bare = MonitorSettings(), MonitorSettings(share=0.001, growth=0.001)
    answer = {
        "false_alarms": [
            {"margins": settings is plain, **false_alarms(reference, flags.looks, settings, text)}
            for settings in (plain, bare)
            for reference in REFERENCES
        ],
        "power": [power(name, share, flags.runs, plain) for name in MARKERS for share in SHARES if not flags.scores],
    }
    rows = [
        [str(row["reference"]), "yes" if row["margins"] else "no", f"{row['per_1000_looks']:.1f}", str(row["signals"])]
        for row in answer["false_alarms"]
    ]
    found = [
        [
            row["signal"],
            f"{row['share']:.0%}",
            f"{row['found']:.0%}",
            "" if row["looks"] is None else f"{row['looks']:g}",
        ]
        for row in answer["power"]
    ]
    publish(
        flags,
        answer,
        [
            table(["reference", "margins", "false alarms in 1,000 looks", "signals"], rows),
            *([table(["marker", "of the responses", "runs with the alarm", "looks, median"], found)] if found else []),
        ],
    )


if __name__ == "__main__":
    main()
