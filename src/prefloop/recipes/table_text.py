"""The sandbox table as text: Markdown for a page, and a sheet for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefloop.console import Sheet
from prefloop.recipes.table_columns import false_alarm_rate

HEADINGS: Mapping[str, str] = {
    "unguarded": "unguarded failure",
    "audit": "the audit of the data named",
    "alarm": "first right alarm, and its KL",
    "guard": "what the guard did",
    "after": "true utility after the remedy",
}
CHECKS: Mapping[str, str] = {
    "hacked": "unguarded, true utility falls and the proxy rises",
    "hacked_each": "so at every seed by itself",
    "audit": "the audit names what was expected, and nothing unrelated",
    "alarm": "a right alarm is raised at every seed",
    "unguarded_held": "the gate holds the unguarded candidate at every seed",
    "better_live": "what is live in the end is better than the unguarded end",
    "better_live_each": "so at every seed by itself",
    "above_incumbent": "what is live in the end is better than SFT",
}


def as_markdown(answer: Mapping[str, Any]) -> str:
    """The table, the expectations line by line, and what is missing."""
    heads = ["scenario", "seeds", *HEADINGS.values()]
    lines = [_row(heads), _row(["---"] * len(heads))]
    lines += [_row([_name(line), _seeds(line), *(line["cells"][key] for key in HEADINGS)]) for line in answer["lines"]]
    heads = ["expected", *(_name(line) for line in answer["lines"])]
    lines += ["", _row(heads), _row(["---"] * len(heads))]
    lines += [_row([text, *(said(line["checks"][key]) for line in answer["lines"])]) for key, text in CHECKS.items()]
    return "\n".join([*lines, "", *_notes(answer)]) + "\n"


def as_sheet(answer: Mapping[str, Any]) -> str:
    """Each line of the table as a block: its columns are sentences, too wide for a terminal side by side."""
    from rich.markup import escape
    from rich.table import Table

    sheet = Sheet()
    for line in answer["lines"]:
        table = Table(title=f"{_name(line)}, seeds {_seeds(line)}", title_justify="left", show_header=False)
        table.add_column(max_width=24)
        table.add_column(overflow="fold")
        for key, heading in HEADINGS.items():
            table.add_row(heading, escape(line["cells"][key]))
        table.add_row("as expected", escape(_summary(line["checks"])))
        sheet.draw(table)
    for note in _notes(answer):
        sheet.draw(escape(note))
    return sheet.text()


def said(check: bool | None) -> str:
    """An expectation that was met, was not, or was not held."""
    return "-" if check is None else "yes" if check else "no"


def _summary(checks: Mapping[str, bool | None]) -> str:
    missed = [text for key, text in CHECKS.items() if checks[key] is False]
    return "yes" if not missed else "NOT: " + "; NOT: ".join(missed)


def _notes(answer: Mapping[str, Any]) -> list[str]:
    notes = [
        f"{answer['num_rows']} of {answer['num_wanted']} rows; {answer['num_reported_prompts']} reported prompts a "
        f"seed; KL budget {answer['kl_budget']:g} nats; {answer['panel_comparisons']} comparisons of the panel a "
        f"decision, {answer['fresh_comparisons']} fresh ones a round of the remedy. In brackets: 95 % intervals.",
        f"False alarms: {false_alarm_rate(answer['lines'])}.",
    ]
    return notes + [f"FAILED: {name}: {reason}" for name, reason in answer["failed"].items()]


def _name(line: Mapping[str, Any]) -> str:
    return f"{line['scenario']} (PPO)" if line["algorithm"] == "ppo" else str(line["scenario"])


def _seeds(line: Mapping[str, Any]) -> str:
    return ", ".join(map(str, line["seeds"]))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
