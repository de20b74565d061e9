"""For who looks after the work: how good the labels are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from prefloop.app.pages import page
from prefloop.app.people_routes import names_of
from prefloop.app.station import station_of
from prefloop.label.attention import Rate
from prefloop.label.quality import AnnotatorQuality, QualityReport, quality
from prefloop.label.records import ItemKind
from prefloop.label.votes import items_of, votes_of
from prefloop.statistics.agreement import Agreement

router = APIRouter()

KINDS: Mapping[ItemKind, str] = {"pair": "Pairs", "review": "Reviews"}
UNKNOWN = "not known yet"


@dataclass(frozen=True)
class Line:
    """One number, and what it means."""

    name: str
    value: str
    meaning: str


@router.get("/quality")
def how_good(request: Request) -> HTMLResponse:
    """How good the labels are, by kind of item and by person."""
    station = station_of(request)
    items, votes = items_of(station.store), votes_of(station.store)
    reports = [
        quality(items, votes, kind=kind, seed=0, num_resamples=station.config.num_resamples)
        for kind in get_args(ItemKind)
        if any(items[vote.item_id].kind == kind for vote in votes)
    ]
    shown = [(KINDS[each.kind], each, lines_of(each), [columns_of(one) for one in each.annotators]) for each in reports]
    return page(
        request, "quality.html", shown=shown, names=names_of(station.store), resamples=station.config.num_resamples
    )


def lines_of(report: QualityReport) -> list[Line]:
    """What holds of everybody together."""
    alpha = "Krippendorff's, nominal: 1 is perfect, 0 is chance"
    again = "the same answer to the same question, asked again unannounced"
    lines = [
        Line("Alpha", _agreement(report.alpha_nominal), alpha),
        Line("Agreement", _rate(report.agreement), "of two who both decided"),
        Line("Self-consistency", _rate(report.consistency), again),
        Line("Gold questions", _rate(report.gold), "answered rightly"),
    ]
    if report.alpha_ordinal is None:
        return lines
    low, high = report.human_ceiling
    scale = "Krippendorff's, on the scale from a clearly to b clearly"
    ceiling = f"of two who both decided; people who were trained for it reach {low:.0%} to {high:.0%}"
    lines[1:2] = [
        Line("Alpha, ordinal", _agreement(report.alpha_ordinal), scale),
        Line("Agreement", _rate(report.agreement), ceiling),
    ]
    fair = f"was chosen; half is fair (p = {report.first_p:.3f})"
    return [*lines, Line("Shown on the left", _rate(report.first), fair)]


def columns_of(one: AnnotatorQuality) -> list[str]:
    """One person's row, after the name."""
    run = "" if one.run is None else f"{one.run.length} times {one.run.answer}".replace("_", " ")
    seconds = "" if one.seconds_median is None else f"{one.seconds_median:.0f}"
    influence = "" if one.influence.share is None else f"{one.influence.share:.0%}"
    rates = [_short(each) for each in (one.agreement, one.consistency, one.gold, one.first)]
    return [str(one.num_votes), str(one.num_silent), *rates, seconds, _short(one.fast), run, influence]


def _agreement(found: Agreement) -> str:
    if math.isnan(found.value):
        return UNKNOWN
    low, high = found.interval
    return f"{found.value:.2f} ({low:.2f} to {high:.2f}; {found.num_units} items)"


def _rate(found: Rate) -> str:
    if found.value is None:
        return UNKNOWN
    low, high = found.interval
    return f"{found.value:.0%} ({low:.0%} to {high:.0%}; {found.count} of {found.n})"


def _short(found: Rate) -> str:
    return "" if found.value is None else f"{found.value:.0%} of {found.n}"
