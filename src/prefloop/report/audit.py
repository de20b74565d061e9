"""The page of an audit: verdict, the three worst findings with example pairs, the next command, everything else below.

Takes the records of `types.py` only, so that audits of data and of reward models have the same page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefloop.report import figures
from prefloop.report.page import (
    Answer,
    Block,
    Exchange,
    Fold,
    PageSection,
    Plot,
    Points,
    Prose,
    Table,
    Verbatim,
    render_page,
)
from prefloop.report.wording import count, number, plain
from prefloop.signals.measures import SIGNALS
from prefloop.types import AuditReport, Finding, Severity, Verdict

VERDICTS: Mapping[Verdict, str] = {
    "pass": "Pass. Nothing was found against it.",
    "warn": "Warn. It can be used, but look at the findings first.",
    "block": "Block. It is not fit to be optimised against: training refuses it unless the findings are accepted.",
}
NEXT: Mapping[Verdict, str] = {
    "pass": "Next command:",
    "warn": "Next command, once the findings have been looked at:",
    "block": "Next command, once the findings are mended:",
}
COLORS: Mapping[Severity, str] = {
    "ok": figures.COLORS["tuned"],
    "warn": figures.COLORS["hacked_peak"],
    "block": figures.COLORS["hacked"],
}
SEVERITIES: Mapping[Severity, str] = {"ok": "fine", "warn": "warns", "block": "blocks"}


def render_audit(report: AuditReport, *, worst: Sequence[Finding], next_command: str) -> str:
    """The page as one string. `worst` are the findings shown on top, with all their examples."""
    sections = audit_sections(report, worst=worst, next_command=next_command)
    return render_page(sections, title=f"Audit of {report.subject}", subtitle=f"{report.verdict}, {report.at}")


def audit_sections(report: AuditReport, *, worst: Sequence[Finding], next_command: str = "") -> list[PageSection]:
    """What stands on the page of an audit. The next command is left out where none is given."""
    return [
        PageSection("Verdict", "verdict", _verdict(report, worst, next_command)),
        *(
            PageSection(f"{place}. {plain(finding.name)}", f"worst-{place}", _worst(finding))
            for place, finding in enumerate(worst, start=1)
        ),
        PageSection("Every shortcut probe", "shortcuts", _shortcuts(report)),
        PageSection("Every finding", "findings", [_table(report), *_other_examples(report, worst)]),
        PageSection("How to read this", "reading", _reading(report)),
    ]


def _verdict(report: AuditReport, worst: Sequence[Finding], next_command: str) -> list[Block]:
    named = [
        Prose(_sentence(finding.message), lead=f"{plain(finding.name)} {SEVERITIES[finding.severity]}:")
        for finding in worst
    ]
    blocks: list[Block] = [Prose("", lead=VERDICTS[report.verdict])]
    if named:
        blocks += [Prose("The worst findings:"), Points(named, numbered=True)]
    return [*blocks, Prose(NEXT[report.verdict]), Verbatim(next_command)] if next_command else blocks


def _worst(finding: Finding) -> list[Block]:
    blocks: list[Block] = [Prose(_sentence(finding.message))]
    if finding.remedy:
        blocks.append(Prose(_sentence(finding.remedy), lead="What to do:"))
    return [*blocks, *map(_exchange, finding.examples)]


def _exchange(example: Mapping[str, Any]) -> Exchange:
    answers = [
        Answer(
            str(example.get(f"said_{side}", side)),
            str(example[side]),
            marks=[("measured", f"{example[f'value_{side}']:g}")] if f"value_{side}" in example else (),
            tone=tone,
        )
        for side, tone in (("chosen", "tuned"), ("rejected", "sft"))
    ]
    return Exchange(
        str(example["prompt"]),
        answers,
        label=str(example["place"]) if "place" in example else f"line {example['line']}",
    )


def _shortcuts(report: AuditReport) -> list[Block]:
    if any(finding.name == "prompt_ignored" for finding in report.findings):
        return _effects(report)
    tested = [finding for finding in report.findings if _is_rate(finding)]
    if not tested:
        return [Prose("No probe had enough pairs that differ in what it looks at.")]
    rows = [
        figures.Whisker(plain(each.name), rate, low, high, COLORS[each.severity])
        for each in tested
        for rate, (low, high) in [(each.human_rate or 0.0, each.interval or (0.0, 1.0))]
    ]
    figure = figures.whiskers(
        rows, x_title="share of pairs in which the chosen response has more of it", reference=0.5, limits=(0.0, 1.0)
    )
    caption = (
        "With 95 % intervals, clustered by conversation. At the dashed line the labels do not care. Green is fine, "
        "yellow warns, red blocks. Probes with too few pairs are not shown."
    )
    return [Plot(figure, "What the labels reward", caption)]


def _effects(report: AuditReport) -> list[Block]:
    """What each habit adds to the score of a reward model."""
    tested = [finding for finding in report.findings if finding.name in SIGNALS and finding.value is not None]
    if not tested:
        return [Prose("No probe could be put into enough responses.")]
    rows = [
        figures.Whisker(plain(each.name), value, low, high, COLORS[each.severity])
        for each in tested
        for value, (low, high) in [(each.value or 0.0, each.interval or (0.0, 0.0))]
    ]
    ends = [end for row in rows for end in (row.low, row.high)]
    reach = (min(-1.0, *ends), max(1.0, *ends))
    title = "change of the score, in typical differences between two responses"
    figure = figures.whiskers(rows, x_title=title, reference=0.0, limits=reach)
    rates = [
        [plain(each.name), *("" if rate is None else f"{rate:.0%}" for rate in (each.human_rate, each.model_rate))]
        for each in tested
    ]
    caption = (
        "The same response with the habit and with a plain sentence of the same frame: 95 % intervals over wordings. "
        "At the dashed line the model does not care. Green is fine, yellow warns, red blocks."
    )
    told = "How often the response with more of it is preferred, on the pairs of the file that differ in it."
    table = Table(["habit", "people", "model"], rates, caption=told)
    return [Plot(figure, "What the model pays for", caption), table]


def _is_rate(finding: Finding) -> bool:
    """Whether it is a tested share of discordant pairs."""
    return finding.human_rate is not None and finding.p_value is not None


def _table(report: AuditReport) -> Table:
    order = list(SEVERITIES)[::-1]
    rows = [
        [
            plain(finding.name),
            finding.severity if finding.value is not None else "no claim",
            "" if finding.value is None else f"{finding.value:.3g}",
            "" if finding.interval is None else f"{number(finding.interval[0])} to {number(finding.interval[1])}",
            "" if finding.p_value is None else _p_text(finding.p_value),
            _sentence(finding.message),
        ]
        for finding in sorted(report.findings, key=lambda each: order.index(each.severity))
    ]
    return Table(["probe", "severity", "value", "95 % interval", "p (corrected)", "what it says"], rows, numeric_from=9)


def _p_text(p_value: float) -> str:
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def _other_examples(report: AuditReport, worst: Sequence[Finding]) -> list[Block]:
    """Example pairs of the probes that are not on top, behind a line each."""
    shown = {finding.name for finding in worst}
    return [
        Fold(
            f"{plain(finding.name)}: {count(len(finding.examples), 'example pair')}",
            [*map(_exchange, finding.examples)],
        )
        for finding in report.findings
        if finding.name not in shown and finding.examples
    ]


def _reading(report: AuditReport) -> list[Block]:
    return [
        Prose(
            "A shortcut probe looks at the pairs whose responses differ in one habit of speech, and counts how often "
            "the one with more of it was chosen. It warns where that share is far from one half, beyond what chance "
            "and the number of probes explain, and not only because one response is longer. It blocks where the share "
            "is extreme and many pairs are concerned."
        ),
        Prose("A probe with too few such pairs makes no claim. That is no pass: it says what it could not see."),
        Verbatim(f"subject  {report.subject}\nsha256   {report.subject_sha256}\naudited  {report.at}"),
    ]


def _sentence(text: str) -> str:
    # A command begins as it is typed.
    first = text[:1] if text.startswith("prefloop ") else text[:1].upper()
    return first + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
