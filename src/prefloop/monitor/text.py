"""What the monitor saw, for a terminal."""

from __future__ import annotations

import io
import shutil

from prefloop.monitor.watch import Watch

PIPE_WIDTH = 120
SHOWN_CHARS = 160


def as_table(file: str, watch: Watch, following: str) -> str:
    """The alarms with an example each, every signal at the beginning and at the end, and the next command."""
    # Loaded here: slow, and no help needs it.
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    stream = io.StringIO()
    console = Console(file=stream, width=max(80, shutil.get_terminal_size((PIPE_WIDTH, 24)).columns), highlight=False)
    count = len(watch.alarms)
    console.print(f"[bold]{escape(file)}[/bold]: [bold]{count or 'no'} alarm{'' if count == 1 else 's'}[/bold]")
    for alarm in watch.alarms:
        console.print(f"\nstep {alarm.step}: [bold]{alarm.signal}[/bold] ({alarm.action}): {escape(alarm.message)}")
        for example in alarm.examples[:1]:
            for name in ("prompt", "response"):
                console.print(Padding(escape(f"{name}: {_cut(str(example[name]))}"), (0, 0, 0, 3)))
    table = Table("signal", "reference", "first look", "last look", "limits", box=SIMPLE, pad_edge=False)
    for column in (1, 2, 3, 4):
        table.columns[column].justify = "right"
    for name in dict.fromkeys(signal.name for signal in watch.signals):
        values = [signal.value for signal in watch.signals if signal.name == name]
        sample, limits = watch.samples.get(name), watch.limits.get(name)
        low, high = (None, None) if limits is None else limits[-1][1:]
        told = " to ".join(f"{end:.3g}" for end in (low, high) if end is not None and end != float("-inf"))
        before = "" if sample is None else f"{sample.mean:.3g}"
        table.add_row(name, before, f"{values[0]:.3g}", f"{values[-1]:.3g}", told)
    console.print()
    console.print(table)
    if following:
        console.print(f"next: {escape(following)}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def _cut(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= SHOWN_CHARS else f"{words[: SHOWN_CHARS - 1]}\u2026"
