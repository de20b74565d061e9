"""For who looks after the work: how good the labels are, and where people disagree."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from prefloop.app.pages import page
from prefloop.app.people_routes import names_of
from prefloop.app.station import station_of
from prefloop.app.tasks import Turn, turns_of
from prefloop.label.records import SKIP, Item, Vote
from prefloop.label.store import Store
from prefloop.label.votes import items_of, votes_of

router = APIRouter()

SHOWN = 50
"""Disagreements on their page."""


@dataclass(frozen=True)
class Disputed:
    """An item on which people do not agree, or that somebody flagged, with all that was said of it."""

    item: Item
    turns: list[Turn]
    votes: list[Vote]


@router.get("/quality")
def quality(request: Request) -> HTMLResponse:
    """How good the labels are."""
    return page(request, "quality.html")


@router.get("/disagreements")
def disagreements(request: Request) -> HTMLResponse:
    """Where people disagree, with what each of them said."""
    store = station_of(request).store
    found = disputed(store)
    return page(request, "disagreements.html", found=found[:SHOWN], total=len(found), names=names_of(store))


def disputed(store: Store) -> list[Disputed]:
    """Items whose answers differ or that were flagged."""
    items = items_of(store)
    by_item: dict[str, list[Vote]] = {}
    for vote in votes_of(store):
        by_item.setdefault(vote.item_id, []).append(vote)
    found = []
    for item_id, votes in by_item.items():
        answers = {vote.choice for vote in votes if vote.choice != SKIP}
        if len(answers) > 1 or any(vote.flag for vote in votes):
            found.append(Disputed(items[item_id], turns_of(items[item_id]), votes))
    return found
