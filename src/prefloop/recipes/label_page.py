"""The page of `label stats`: no names on it, since a page goes round."""

from __future__ import annotations

from collections.abc import Sequence

from prefloop.label.adjudicate import Disagreement
from prefloop.label.attention import Rate
from prefloop.label.quality import QualityReport
from prefloop.recipes.label_stats import (
    ANNOTATOR_COLUMNS,
    FLAGS,
    KINDS,
    MAX_QUEUE,
    annotator_cells,
    coefficient,
    measures_of,
)
from prefloop.report import figures
from prefloop.report.page import Answer, Block, Exchange, PageSection, Plot, Prose, Table, Terms, render_page


def render_stats(reports: Sequence[QualityReport], queues: Sequence[Sequence[Disagreement]], *, database: str) -> str:
    """The page as one string."""
    sections = []
    for report, queue in zip(reports, queues, strict=True):
        kind = report.kind
        sections += [
            PageSection(KINDS[kind], kind, _together(report)),
            PageSection(f"{KINDS[kind]}: annotators", f"{kind}-annotators", _annotators(report)),
            PageSection(f"{KINDS[kind]}: to adjudicate", f"{kind}-queue", _queue(queue)),
        ]
    return render_page(sections, title="Quality of the votes", subtitle=database)


def _together(report: QualityReport) -> list[Block]:
    counted = (
        f"{report.num_votes} votes by {len(report.annotators)} annotators on {report.num_items} items, of which "
        f"{report.num_shared} were judged by two or more. In brackets: 95 % intervals."
    )
    blocks: list[Block] = [
        Prose(counted),
        Table(["measure", "value", "beside it"], [list(row) for row in measures_of(report)], numeric_from=9),
    ]
    if report.kappas:
        rows = [
            [each.first, each.second, coefficient(each.agreement), str(each.agreement.num_units)]
            for each in report.kappas
        ]
        blocks.append(Table(["annotator", "and", "Cohen's kappa", "items"], rows, numeric_from=3))
    return blocks


def _annotators(report: QualityReport) -> list[Block]:
    rows = [[one.annotator_id, *annotator_cells(one)] for one in report.annotators]
    caption = "Moves: share of the labels by majority that would change or be lost without this annotator."
    blocks: list[Block] = [
        Table(["annotator", *ANNOTATOR_COLUMNS], rows, caption=caption, numeric_from=99),
        *_whiskers("How often each agrees with the others", [(o.annotator_id, o.agreement) for o in report.annotators]),
    ]
    if report.kind == "pair":
        blocks += _whiskers(
            "How often each chose what was shown first", [(o.annotator_id, o.first) for o in report.annotators]
        )
    raised = [(name, FLAGS[name]) for name in FLAGS if any(name in one.flags for one in report.annotators)]
    return [*blocks, Terms(raised)] if raised else blocks


def _whiskers(title: str, rates: Sequence[tuple[str, Rate]]) -> list[Block]:
    rows = [
        figures.Whisker(name, rate.value, *rate.interval, figures.COLORS["tuned"])
        for name, rate in rates
        if rate.value is not None
    ]
    if not rows:
        return []
    figure = figures.whiskers(rows, x_title="share of votes", reference=0.5, limits=(0.0, 1.0))
    return [Plot(figure, title, "With 95 % intervals. The dashed line is a coin.")]


def _queue(queue: Sequence[Disagreement]) -> list[Block]:
    if not queue:
        return [Prose("Nothing is left to adjudicate.")]
    shown = [_exchange(each) for each in queue[:MAX_QUEUE]]
    rest = f"; here the first {len(shown)}" if len(shown) < len(queue) else ""
    return [Prose(f"Number of items: {len(queue)}. Those furthest apart come first{rest}."), *shown]


def _exchange(each: Disagreement) -> Exchange:
    said = ", ".join(" ".join(filter(None, (vote.choice, vote.strength))) for vote in each.votes)
    item = each.item
    answers = [Answer("a" if item.response_b is not None else "response", item.response_a)]
    if item.response_b is not None:
        answers.append(Answer("b", item.response_b))
    return Exchange(item.prompt, answers, label=said)
