"""What the monitor saw, for a terminal."""

from __future__ import annotations

from prefloop.console import Sheet, in_a_line
from prefloop.monitor.watch import Watch


def as_table(file: str, watch: Watch, following: str) -> str:
    """The alarms with an example each, every signal at the beginning and at the end, and the next command."""
    # Loaded here: slow, and no help needs it.
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    sheet, count = Sheet(), len(watch.alarms)
    sheet.draw(
        f"[bold]{escape(file)}[/bold]: [bold]{count or 'no'} alarm{'' if count == 1 else 's'}[/bold]", wrapped=False
    )
    for alarm in watch.alarms:
        sheet.draw(f"\nstep {alarm.step}: [bold]{alarm.signal}[/bold] ({alarm.action}): {escape(alarm.message)}")
        for example in alarm.examples[:1]:
            for name in ("prompt", "response"):
                sheet.draw(escape(f"{name}: {in_a_line(str(example[name]))}"), indent=3)
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
    sheet.draw()
    sheet.draw(table)
    if following:
        sheet.draw(f"next: {escape(following)}", wrapped=False)
    return sheet.text()
