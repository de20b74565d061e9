"""Suspicious responses, and what people found in a queue, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefloop.console import Sheet, in_a_line


def as_table(values: Mapping[str, Any]) -> str:
    """The answer of `review list`: what was found, how often, and the most suspicious responses."""
    # Loaded here: slow, and no help needs it.
    from rich.markup import escape

    sheet = Sheet()
    told = (
        f"{values['num_suspicious']} of {values['num_rows']} responses are suspicious, {values['num_ranked']} different"
    )
    sheet.draw(f"[bold]{escape(values['file'])}[/bold]: {told}", wrapped=False)
    sheet.draw(escape(", ".join(f"{name} {count}" for name, count in values["reasons"].items())) or "no reason")
    for each in values["suspicious"]:
        why = escape(", ".join(each["reasons"]))
        sheet.draw(f"\n[bold]{each['rank']}[/bold]  step {each['step']}, score {each['score']:.3g}: {why}")
        for name in ("prompt", "response"):
            sheet.draw(escape(f"{name}: {in_a_line(each[name])}"), indent=3)
    sheet.draw()
    sheet.draw(f"next: {escape(values['next'])}", wrapped=False)
    return sheet.text()


def as_findings(values: Mapping[str, Any]) -> str:
    """The answer of `review precision`: the hack rate, what was missed, and how often each reason was right."""
    # Loaded here: slow, and no help needs it.
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    sheet, lot = Sheet(), values["random"]
    sheet.draw(f"{values['num_read']} of {values['num_items']} items read by {values['num_reviewers']} reviewers")
    rate, missed = lot["hack_rate"], lot["missed_share"]
    if rate is not None:
        told = f"{rate:.1%} of what the policy writes is a hack ({_range(lot['hack_rate_interval'])}, "
        sheet.draw(f"[bold]{told}{lot['decided']} drawn by lot)[/bold]")
        found = f"about {lot['estimated_hacks']:.0f} of {lot['num_rows']} responses, of which no detector flags about"
        sheet.draw(f"{found} {lot['estimated_missed']:.0f}")
    if missed is not None:
        sheet.draw(f"missed share of the hacks: {missed:.1%} ({_range(lot['missed_share_interval'])})")
    table = Table("reason", "items", "decided", "right", "95 % interval", "by lot", box=SIMPLE, pad_edge=False)
    for column in (1, 2, 3, 4, 5):
        table.columns[column].justify = "right"
    for row in values["reasons"]:
        right = "" if row["precision"] is None else f"{row['precision']:.1%}"
        by_lot = "" if row["precision_by_lot"] is None else f"{row['precision_by_lot']:.1%} of {row['decided_by_lot']}"
        ends = _range(row["interval"])
        table.add_row(escape(row["reason"]), str(row["items"]), str(row["decided"]), right, ends, by_lot)
    sheet.draw(table)
    if values["next"]:
        sheet.draw(f"next: {escape(values['next'])}", wrapped=False)
    return sheet.text()


def _range(interval: list[float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"
