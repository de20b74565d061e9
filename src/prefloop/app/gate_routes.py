"""Candidates before the gate: its last decision with all reasons, the evidence, and an owner's word, yes or no."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import Field

from prefloop.app.boards import BOARDS, MAX_REASON, PATIENCE_SECONDS, is_offered
from prefloop.app.form import Form, number_of
from prefloop.app.ledger_routes import Look, look_at, reason_of, registry_of
from prefloop.app.pages import page
from prefloop.app.station import person_in, station_of
from prefloop.gate.config import ModelGateConfig
from prefloop.gate.text import SAID
from prefloop.label.people import note_event
from prefloop.recipes.word import Word, give_word, last_decision
from prefloop.registry.ledger import Event
from prefloop.registry.look import versions_of
from prefloop.report.policy import StoredDecision, observed_text
from prefloop.report.records import Record, parse
from prefloop.report.wording import compact
from prefloop.types import GateVerdict, ModelVersion

router = APIRouter()


class StoredEvaluation(Record):
    """An evaluation in a decision of the ledger."""

    name: str
    value: float
    interval: tuple[float | None, float | None] | None = None
    n: int
    at: str


class StoredApproval(Record):
    """A person's word in it."""

    by: str
    approved: bool
    why: str = ""
    at: str


class StoredAudit(Record):
    """An audit that it rests on."""

    subject: str
    subject_sha256: str
    verdict: str
    at: str


class Decision(StoredDecision):
    """What the page shows of it."""

    verdict: GateVerdict
    candidate: str
    incumbent: str | None = None
    evaluations: tuple[StoredEvaluation, ...] = ()
    approvals: tuple[StoredApproval, ...] = ()
    audits: tuple[StoredAudit, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)


@router.get("/gate")
def all_candidates(request: Request) -> HTMLResponse:
    """All versions, newest first, and what the gate said last."""
    if not is_offered(station_of(request).config, "/gate"):
        return page(request, "absent.html", board=BOARDS["/gate"])
    look = look_at(request)
    versions = versions_of(look.state, look.events)["versions"]
    return page(request, "gate.html", look=look, versions=versions[::-1])


@router.get("/gate/{sha256}")
def one_candidate(request: Request, sha256: str) -> HTMLResponse:
    """One version: the last decision about it, check by check, and what that rests on."""
    look = look_at(request)
    version = _version(look, sha256)
    event = last_decision(look.events, sha256) if not look.problems else None
    decision = None if event is None else _decision(event, registry_of(request))
    standing = next(
        each["status"] for each in versions_of(look.state, look.events)["versions"] if each["version"] == version.label
    )
    beside = None if decision is None or decision.incumbent is None else look.state.with_weights(decision.incumbent)
    return page(
        request,
        "candidate.html",
        look=look,
        version=version,
        standing=standing,
        event=event,
        decision=decision,
        beside=beside,
        said=None if decision is None else SAID[decision.verdict],
        checks=[] if decision is None else sorted(decision.checks, key=lambda check: check.passed),
        observed=observed_text,
        value=compact,
        interval=_interval,
        may_decide=person_in(request).role == "owner" and not look.problems,
        longest=MAX_REASON,
    )


@router.post("/gate/{sha256}")
def say(request: Request, sha256: str, form: Form) -> Response:
    """An owner's word: recorded, and the gate asked again with it on the same evidence."""
    station, person = station_of(request), person_in(request)
    words = {"approve": True, "hold": False}
    if form.get("word") not in words:
        raise HTTPException(422, "word: give approve or hold")
    root, reason, seen = registry_of(request), reason_of(form), number_of(form, "seen")
    version = _version(look_at(request), sha256)
    approved = words[form["word"]]
    config = ModelGateConfig(candidate=version.label, registry=str(root))
    if station.config.audits is not None:
        config = config.model_copy(update={"audits": station.config.audits})
    word = Word(sha256, approved, by=person.name, why=reason, seen=seen)
    decision = give_word(config, word, patience_seconds=PATIENCE_SECONDS)
    what = "approved" if approved else "held"
    about = f"{version.label} (the gate: {decision.verdict}): {reason}"
    note_event(station.store, who=person.annotator_id, what=what, about=about)
    return RedirectResponse(f"/gate/{version.weights_sha256}", status_code=303)


def _version(look: Look, sha256: str) -> ModelVersion:
    """Raises HTTPException 404 for weights that are not in the ledger."""
    version = look.state.with_weights(sha256)
    if version is None:
        raise HTTPException(404, "no such version")
    return version


def _decision(event: Event, root: Path) -> Decision:
    return parse(event.values, Decision, root / f"event {event.number}")


def _interval(ends: tuple[float | None, float | None] | None) -> str:
    if ends is None:
        return "unknown"
    low, high = ("unknown" if end is None else compact(end) for end in ends)
    return f"{low} to {high}"
