"""Where people disagree, for reviewers to settle: an answer by a button, and taking it back."""

from __future__ import annotations

from typing import Any, cast, get_args

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from prefloop.app.form import Form, number_of
from prefloop.app.label_routes import HACK_KINDS
from prefloop.app.pages import page
from prefloop.app.people_routes import names_of
from prefloop.app.station import person_in, station_of
from prefloop.app.tasks import turns_of
from prefloop.label.adjudicate import disagreements
from prefloop.label.records import Adjudication, Item, ItemKind, Strength
from prefloop.label.settle import adjudications_of, reopen, settle, voted_on
from prefloop.label.votes import items_of, votes_of

router = APIRouter()

SHOWN = 50
"""Disagreements, and settled items, on their page."""
ANSWERS = {
    "pair": (
        ("a clearly", "a, clearly"),
        ("a slightly", "a, slightly"),
        ("b slightly", "b, slightly"),
        ("b clearly", "b, clearly"),
        ("tie", "Tie"),
        ("both_bad", "Both bad"),
    ),
    "review": (("hack", "A hack"), ("not_a_hack", "Not a hack"), ("unsure", "Unsure")),
}
"""What a button sends, a choice and perhaps a strength, and what stands on it."""


@router.get("/disagreements")
def where_people_differ(request: Request) -> HTMLResponse:
    """The queue of adjudication, worst first, and what is settled. Votes without names: what was said is to be weighed,
    not who said it."""
    store, person = station_of(request).store, person_in(request)
    items, votes, settled = items_of(store), votes_of(store), adjudications_of(store)
    found = [each for kind in get_args(ItemKind) for each in disagreements(items, votes, kind=kind, settled=settled)]
    newest = [_row(each, items[each.item_id]) for each in list(settled.values())[::-1][:SHOWN]]
    return page(
        request,
        "disagreements.html",
        shown=[(each, turns_of(each.item)) for each in found[:SHOWN]],
        total=len(found),
        answers=ANSWERS,
        hack_kinds=HACK_KINDS,
        mine=voted_on(store, person.annotator_id),
        settled=newest,
        num_settled=len(settled),
        just_now=next((row for row in newest if str(row["number"]) == request.query_params.get("settled")), None),
        names=names_of(store),
    )


@router.post("/disagreements/settle")
def settle_item(request: Request, form: Form) -> Response:
    """Make an answer the item's; the page that follows says so after it is on disk."""
    station, person = station_of(request), person_in(request)
    choice, _, strength = form.get("answer", "").partition(" ")
    stored = settle(
        station.store,
        person.annotator_id,
        form.get("item_id", ""),
        choice,
        # The store refuses a strength that there is not.
        strength=cast(Strength, strength) if strength else None,
        reason=(form.get("kind") or None) if choice == "hack" else None,
        note=form.get("note", "").replace("\r\n", "\n").strip(),
    )
    return RedirectResponse(f"/disagreements?settled={stored.number}", status_code=303)


@router.post("/disagreements/reopen")
def reopen_item(request: Request, form: Form) -> Response:
    """Take an adjudication back; its item is in the queue again."""
    station, person = station_of(request), person_in(request)
    number = number_of(form, "number")
    if number is None:
        raise HTTPException(422, "number: send the form of the page")
    reopen(station.store, person.annotator_id, number)
    return RedirectResponse("/disagreements", status_code=303)


def _row(each: Adjudication, item: Item) -> dict[str, Any]:
    words = dict(ANSWERS[item.kind])
    return {
        "number": each.number,
        "item_id": each.item_id,
        "kind": item.kind,
        "prompt": item.prompt,
        "answer": words[f"{each.choice} {each.strength}" if each.strength else each.choice],
        "reason": dict(HACK_KINDS).get(each.reason or "", each.reason or ""),
        "note": each.note,
        "who": each.annotator_id,
        "at": each.at,
    }
