"""`label stats`: the quality of the votes, for people at a terminal, as a page, and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prefloop.console import Sheet, in_a_line, say
from prefloop.label.commands import opened
from prefloop.label.records import ItemKind
from prefloop.recipes.label_config import LabelStatsConfig
from prefloop.rundir import atomic_file, output_file, write_rows
from prefloop.types import InputError, Told

if TYPE_CHECKING:
    from prefloop.label.adjudicate import Disagreement
    from prefloop.label.attention import Rate
    from prefloop.label.quality import AnnotatorQuality, QualityReport
    from prefloop.statistics.agreement import Agreement

KINDS: Mapping[ItemKind, str] = {"pair": "Comparisons", "review": "Review queue"}
MAX_QUEUE = 5
"""Disagreements shown on the terminal and on the page; programs get `MAX_LISTED`, --queue all."""
MAX_LISTED = 50
FLAGS: Mapping[str, str] = {
    "fast": "more than a quarter of the votes came faster than anybody reads (10 words a second)",
    "straight_lining": "a run of the same answer that chance gives in fewer than 1 of 1000 such sequences",
    "position": "the side shown first was chosen too often or too rarely (exact binomial, Holm, p < 0.01)",
    "gold": "accuracy on gold questions surely below 70 %",
    "inconsistent": "agrees with the own earlier votes surely less than strangers do with one another (73 %)",
}


def stats(config: LabelStatsConfig) -> Told:
    """Measure, and tell. Raises InputError where nobody has voted yet."""
    page = None if config.html is None else output_file(config.html, "html")
    queue = None if config.queue is None else output_file(config.queue, "queue")
    with opened(config) as store:
        from prefloop.label.people import people
        from prefloop.label.settle import adjudications_of
        from prefloop.label.votes import items_of, votes_of

        items, votes = items_of(store), votes_of(store)
        names = {person.annotator_id: person.name for person in people(store)}
        settled = adjudications_of(store)
    from prefloop.label.adjudicate import disagreements
    from prefloop.label.quality import quality

    kinds = [kind for kind in KINDS if any(items[vote.item_id].kind == kind for vote in votes)]
    if not kinds:
        raise InputError("holds no votes yet", path=config.database, remedy="prefloop label serve")
    reports = [quality(items, votes, kind=kind, seed=config.seed, num_resamples=config.num_resamples) for kind in kinds]
    queues = [disagreements(items, votes, kind=kind, settled=settled) for kind in kinds]
    places: dict[str, Any] = {}
    if queue is not None:
        write_rows(queue, [each.as_row() for found in queues for each in found])
        say(f"queue: {queue}")
        places["queue"] = str(queue)
    if page is not None:
        from prefloop.recipes.label_page import render_stats

        with atomic_file(page) as file:
            file.write(render_stats(reports, queues, database=config.database))
        say(f"page: {page}")
        places["html"] = str(page)
    values: dict[str, Any] = {
        report.kind: {
            **report.as_values(),
            "num_disagreements": len(found),
            "num_adjudicated": sum(items[name].kind == report.kind for name in settled),
            "disagreements": [each.as_row() for each in found[:MAX_LISTED]],
        }
        for report, found in zip(reports, queues, strict=True)
    }
    return Told({**values, **places}, _text(reports, queues, names))


def _text(reports: Sequence[QualityReport], queues: Sequence[Sequence[Disagreement]], names: Mapping[str, str]) -> str:
    sheet = Sheet()
    for report, queue in zip(reports, queues, strict=True):
        votes = f"{report.num_votes} votes by {len(report.annotators)} on {report.num_items} items"
        sheet.draw(f"[bold]{KINDS[report.kind]}[/bold]: {votes}, {report.num_shared} of them judged by two or more")
        sheet.draw()
        sheet.draw(_measures(report), indent=2)
        sheet.draw()
        sheet.draw(_people(report.annotators, names), indent=2)
        _draw_flags(sheet, report.annotators)
        _draw_kappas(sheet, report, names)
        _draw_queue(sheet, queue)
    return sheet.text()


def measures_of(report: QualityReport) -> list[tuple[str, str, str]]:
    """Name, value and remark of each measure of all votes together."""
    low, high = report.human_ceiling
    rows = [("Krippendorff's alpha, choices", coefficient(report.alpha_nominal), "1 perfect, 0 as by chance")]
    if report.alpha_ordinal is not None:
        rows.append(("Krippendorff's alpha, ordinal", coefficient(report.alpha_ordinal), "a clearly ... b clearly"))
    ceiling = f"trained people: {low:.0%} to {high:.0%}" if report.kind == "pair" else ""
    rows += [
        ("two annotators agree", share(report.agreement), ceiling),
        ("agree with themselves", share(report.consistency), "hidden repetitions"),
        ("gold questions right", share(report.gold), ""),
    ]
    if report.kind == "pair":
        rows.append(("shown first is chosen", share(report.first), f"exact binomial p = {report.first_p:.2g}"))
    return rows


def coefficient(agreement: Agreement) -> str:
    """A coefficient with its interval; what is undefined as a dash."""
    if agreement.value != agreement.value:
        return "-"
    low, high = agreement.interval
    return f"{agreement.value:.2f} ({low:.2f} to {high:.2f})"


def share(rate: Rate) -> str:
    """A share with its interval and what it is of; a dash where nothing was counted."""
    if rate.value is None:
        return "-"
    low, high = rate.interval
    return f"{rate.value:.0%} ({low:.0%} to {high:.0%}) of {rate.n}"


def annotator_cells(one: AnnotatorQuality) -> list[str]:
    """An annotator in a table: see `ANNOTATOR_COLUMNS`."""
    brief = [f"{rate.value:.0%} of {rate.n}" if rate.value is not None else "-" for rate in _rates(one)]
    pace = "-" if one.seconds_median is None else f"{one.seconds_median:.0f} s"
    moved = "-" if one.influence.share is None else f"{one.influence.share:.0%}"
    run = "-" if one.run is None else f"{one.run.length} {one.run.answer}"
    return [str(one.num_votes), *brief, pace, run, moved, ", ".join(one.flags)]


ANNOTATOR_COLUMNS = ("votes", "agrees", "repeats", "gold", "first", "median", "longest run", "moves", "flags")


def _rates(one: AnnotatorQuality) -> tuple[Rate, ...]:
    return one.agreement, one.consistency, one.gold, one.first


def _measures(report: QualityReport) -> Any:
    table = _table("", "", "")
    for row in measures_of(report):
        table.add_row(*row)
    return table


def _people(annotators: Sequence[AnnotatorQuality], names: Mapping[str, str]) -> Any:
    from rich.markup import escape

    table = _table("annotator", *ANNOTATOR_COLUMNS, shows_header=True)
    for one in annotators:
        table.add_row(escape(names.get(one.annotator_id, one.annotator_id)), *annotator_cells(one))
    return table


def _table(*columns: str, shows_header: bool = False) -> Any:
    from rich.table import Table

    table = Table(box=None, show_header=shows_header, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column)
    return table


def _draw_flags(sheet: Sheet, annotators: Sequence[AnnotatorQuality]) -> None:
    raised = [name for name in FLAGS if any(name in one.flags for one in annotators)]
    if raised:
        sheet.draw()
    for name in raised:
        sheet.draw(f"{name}: {FLAGS[name]}", indent=2)


def _draw_kappas(sheet: Sheet, report: QualityReport, names: Mapping[str, str]) -> None:
    from rich.markup import escape

    if not report.kappas:
        return
    sheet.draw()
    sheet.draw("Cohen's kappa of those with the most items in common", indent=2)
    table = _table("", "", "")
    for each in report.kappas[:MAX_QUEUE]:
        who = " and ".join(escape(names.get(one, one)) for one in (each.first, each.second))
        table.add_row(who, coefficient(each.agreement), f"{each.agreement.num_units} items")
    sheet.draw(table, indent=2)


def _draw_queue(sheet: Sheet, queue: Sequence[Disagreement]) -> None:
    from rich.markup import escape

    sheet.draw()
    if not queue:
        sheet.draw("nothing is left to adjudicate", indent=2)
        return
    sheet.draw(f"to adjudicate: {len(queue)} items, the worst first (--queue FILE writes all)", indent=2)
    for each in queue[:MAX_QUEUE]:
        said = ", ".join(" ".join(filter(None, (vote.choice, vote.strength))) for vote in each.votes)
        flag = ", flagged" if each.flagged else ""
        sheet.draw(f"{said}{flag}: {escape(in_a_line(each.item.prompt))}", indent=4)
