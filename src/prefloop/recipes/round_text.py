"""The answer of `round run` as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prefloop.console import Sheet
from prefloop.recipes.round_status import STAGES, stage_rows

COLUMNS = ("pairs", "KL", "accuracy", "95 % interval", "log-loss", "ECE")


def as_tables(answer: Mapping[str, Any]) -> str:
    """The stages, the shift by KL, both reward models, the alarms and the next commands."""
    # Loaded here: slow, and no help needs it.
    from rich.markup import escape

    shift, reward, tuned = answer["shift"], answer["reward"], answer["policy"]
    sheet = Sheet()
    sheet.draw(f"[bold]{escape(answer['run'])}[/bold]\n", wrapped=False)
    stages = {name: {**answer[name], "seconds": answer["seconds"][name]} for name in STAGES}
    rows = [(row["stage"], f"{row['seconds']:.0f} s", row["says"]) for row in stage_rows(stages)]
    sheet.draw(_table(("stage", "", ""), rows))
    bins = [(f"new, KL {each['from_kl']:.3g} to {each['to_kl']:.3g}", each) for each in shift["bins"]]
    measured = [(f"old, {shift['old_pairs_were']}", shift["old"]), ("new", shift["new"]), *bins]
    sheet.draw(_table(("the reward model in use, on", *COLUMNS), [_cells(*each) for each in measured]))
    less_old = shift["difference"]
    sheet.draw(f"new less old: {_change(less_old['accuracy'], less_old['accuracy_interval'])}")
    if "note" in shift:
        sheet.draw(escape(shift["note"]))
    models = [("in use", reward["in_use"]), ("retrained", reward["retrained"])]
    sheet.draw()
    sheet.draw(_table(("on new pairs that were held out", *COLUMNS), [_cells(*each) for each in models]))
    sheet.draw(f"retrained less in use: {_change(reward['gain']['difference'], reward['gain']['interval'])}\n")
    audited = answer["audit_reward"]
    sheet.draw(f"the audit of the retrained model: {audited['verdict']}")
    for each in audited["raised"]:
        sheet.draw(escape(f"{each['severity']}: {each['name']}: {each['message']}"))
    for alarm in tuned["alarms"]:
        sheet.draw(escape(f"alarm at step {alarm['step']}, {alarm['signal']} ({alarm['action']}): {alarm['message']}"))
    for command in answer["next"]:
        sheet.draw(escape(f"next: {command}"), wrapped=False)
    return sheet.text()


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=SIMPLE, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _cells(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (f"{row['mean_kl']:.1f}", f"{row['accuracy']:.3f}", _between(row["interval"], ".3f"))
    return (name, str(row["num_pairs"]), *numbers, f"{row['log_loss']:.3f}", f"{row['ece']:.3f}")


def _change(value: float, interval: Sequence[float | None]) -> str:
    told = _between(interval, "+.3f")
    return f"{value:+.3f}" + (f" ({told})" if told else "")


def _between(interval: Sequence[float | None], form: str) -> str:
    """An interval in words; nothing where a single conversation leaves it infinite, which is stored as null."""
    bounds = [format(bound, form) for bound in interval if bound is not None and math.isfinite(bound)]
    return " to ".join(bounds) if len(bounds) == 2 else ""
