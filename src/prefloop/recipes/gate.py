"""`model gate`: evidence from files and audits, the incumbent from the registry, the decision into the ledger."""

from __future__ import annotations

import dataclasses
import datetime
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefloop.audits import newest_audit
from prefloop.console import say
from prefloop.data.rows import Row
from prefloop.fields import given_words
from prefloop.gate.config import ModelGateConfig
from prefloop.gate.decide import Case, Evidence, decide, moment
from prefloop.gate.evidence import read_evidence, record_of
from prefloop.gate.text import as_table, as_values
from prefloop.registry.ledger import Event
from prefloop.registry.lineage import lineage_of
from prefloop.registry.store import Registry, is_registry, opened
from prefloop.rundir import resolve_model, sha256_of
from prefloop.types import Approval, Evaluation, GateDecision, InputError, ModelVersion, Told


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Who is judged, by whatever name it was given."""

    label: str
    sha256: str
    optimised_against: Mapping[str, str] | None


def gate(config: ModelGateConfig) -> Told:
    """Decide about a candidate, and record the decision where there is a registry. Refused unless "promote".

    Raises InputError for evidence that cannot be read, and a candidate that does not exist.
    """
    given = read_evidence(config.evidence)
    root = Path(config.registry)
    # Before the lock: reading a large model takes its time.
    read = sha256_of(resolve_model(config.candidate, "candidate")) if Path(config.candidate).exists() else None
    if not is_registry(root):
        if read is None:
            remedy = f"give a model directory or a finished run; there is no registry at {root}"
            raise InputError("no such model", path=config.candidate, field="candidate", remedy=remedy)
        candidate = Candidate(config.candidate, read, lineage_of(config.candidate).optimised_against)
        incumbent = None if config.incumbent is None else sha256_of(resolve_model(config.incumbent, "incumbent"))
        case = Case(candidate.sha256, _now(), incumbent, optimised_against=candidate.optimised_against)
        decision = decide(case, _with_more(given, candidate, config), config.limits)
        say(f"there is no registry at {root}: the decision is not recorded, and allows no promotion")
        return _told(decision, candidate, config, None)
    if config.incumbent is not None:
        raise InputError("what is live in the registry is the incumbent", field="incumbent", remedy="leave it out")
    with opened(root) as registry:
        registry.require_sound()
        candidate = _candidate(registry, config, read)
        files = {file: sha256_of(Path(file)) for file in config.evidence}
        decision, event = decide_in(registry, candidate, given, config, files)
    return _told(decision, candidate, config, event)


def decide_in(
    registry: Registry, candidate: Candidate, given: Evidence, config: ModelGateConfig, files: Mapping[str, str]
) -> tuple[GateDecision, int | None]:
    """Decide, with what the registry knows, and record it where asked to; returns the event's number too.

    `files`: path -> sha256 of the files that the evidence is from.
    """
    evidence = _with_more(given, candidate, config, registry.events)
    decision = decide(_case(registry, candidate), evidence, config.limits)
    if not config.record:
        return decision, None
    values = _recorded(decision, candidate, evidence, config, files)
    return decision, registry.append("decided", values, who=config.who, why=config.why).number


def refusals(events: Sequence[Event], sha256: str) -> list[Approval]:
    """Of everybody whose newest recorded word about these weights is no, that word."""
    newest: dict[str, Approval] = {}
    for event in events:
        for word in words_of(event) if event.kind == "decided" else ():
            if word.candidate_sha256 == sha256 and (word.by not in newest or _is_newer(word, newest[word.by])):
                newest[word.by] = word
    return [word for word in newest.values() if not word.approved]


def words_of(event: Event) -> list[Approval]:
    """What people had said, as a decision in the ledger keeps it. Raises InputError for what cannot be read."""
    rows = event.values.get("approvals", ())
    records = [record_of(Row(f"event {event.number}", number, row)) for number, row in enumerate(rows, start=1)]
    return [record for record in records if isinstance(record, Approval)]


def _is_newer(word: Approval, other: Approval) -> bool:
    return moment(word.at) >= moment(other.at)


def _candidate(registry: Registry, config: ModelGateConfig, read: str | None) -> Candidate:
    """A registered version, also where a directory with its weights is given; else that directory."""
    if read is None:
        version: ModelVersion | None = registry.state.find(config.candidate, path=registry.root, field="candidate")
    else:
        version = registry.state.with_weights(read)
    if version is not None:
        return Candidate(version.label, version.weights_sha256, version.optimised_against)
    assert read is not None
    return Candidate(config.candidate, read, lineage_of(config.candidate).optimised_against)


def _case(registry: Registry, candidate: Candidate) -> Case:
    state = registry.state
    live, previous = state.live, state.previous
    is_live = live is not None and live.weights_sha256 == candidate.sha256
    incumbent = previous if is_live else live
    return Case(
        candidate=candidate.sha256,
        incumbent=None if incumbent is None else incumbent.weights_sha256,
        live=is_live,
        optimised_against=candidate.optimised_against,
        known={version.weights_sha256: version.label for version in state.versions},
        now=_now(),
    )


def _with_more(
    given: Evidence, candidate: Candidate, config: ModelGateConfig, events: Sequence[Event] = ()
) -> Evidence:
    """With the kept audits of what the candidate was optimised against, the approval by flag, and earlier refusals: who
    refused is the only one who can take that back, with a newer word."""
    audits = list(given.audits)
    if config.limits.audit.required:
        for path, sha256 in (candidate.optimised_against or {}).items():
            report = newest_audit(path, sha256, config.audits)
            if report is not None and report not in audits:
                audits.append(report)
    approvals = list(given.approvals)
    if config.approved_by is not None:
        at = _now().isoformat(timespec="seconds")
        approvals.append(Approval(candidate.sha256, True, config.approved_by, config.why, at))
    said = [each for each in approvals if each.candidate_sha256 == candidate.sha256]
    for refusal in refusals(events, candidate.sha256):
        if not any(each.by == refusal.by and _is_newer(each, refusal) for each in said):
            approvals.append(refusal)
    return Evidence(given.evaluations, audits, approvals)


def _recorded(
    decision: GateDecision,
    candidate: Candidate,
    evidence: Evidence,
    config: ModelGateConfig,
    files: Mapping[str, str],
) -> dict[str, Any]:
    """What the ledger keeps: the decision, the evidence and the limits that it rests on."""
    audits = [
        {"subject": each.subject, "subject_sha256": each.subject_sha256, "verdict": each.verdict, "at": each.at}
        for each in evidence.audits
    ]
    return {
        **as_values(decision),
        "label": candidate.label,
        "evaluations": [_plain(each) for each in evidence.evaluations],
        "audits": audits,
        "approvals": [dataclasses.asdict(each) for each in evidence.approvals],
        "files": dict(files),
        "limits": config.limits.model_dump(mode="json"),
    }


def _plain(evaluation: Evaluation) -> dict[str, Any]:
    """As in a file of evidence: null for an end of the interval of which nothing is known."""
    ends = evaluation.interval and [end if math.isfinite(end) else None for end in evaluation.interval]
    return {**dataclasses.asdict(evaluation), "interval": ends}


def _told(decision: GateDecision, candidate: Candidate, config: ModelGateConfig, event: int | None) -> Told:
    flag = "" if config.registry == "registry" else f" --registry {shlex.quote(config.registry)}"
    given = given_words(config, leave_out=("candidate", "evidence"))
    more = ["--evidence", *config.evidence, "MORE.jsonl", *given]
    following = {
        "promote": f"prefloop model promote {candidate.sha256[:12]}{flag}",
        "rollback": f"prefloop model rollback{flag}",
        "hold": shlex.join(["prefloop", "model", "gate", config.candidate, *more]),
    }[decision.verdict]
    values = {**as_values(decision), "event": event, "next": following}
    text = f"{as_table(decision, candidate.label)}\n\nnext: {following}"
    return Told(values, text, refused=decision.verdict != "promote")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
