"""`model gate`: evidence from files and audits, the incumbent from the registry, the decision into the ledger."""

from __future__ import annotations

import dataclasses
import datetime
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefloop.audits import newest_audit
from prefloop.console import say
from prefloop.gate.config import ModelGateConfig
from prefloop.gate.decide import Case, Evidence, decide
from prefloop.gate.evidence import read_evidence
from prefloop.gate.text import as_table, as_values
from prefloop.registry.lineage import lineage_of
from prefloop.registry.store import Registry, is_registry, opened
from prefloop.rundir import resolve_model, sha256_of
from prefloop.types import Approval, Evaluation, GateDecision, InputError, ModelVersion, Told


@dataclasses.dataclass(frozen=True)
class _Candidate:
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
        candidate = _Candidate(config.candidate, read, lineage_of(config.candidate).optimised_against)
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
        evidence = _with_more(given, candidate, config)
        decision = decide(_case(registry, candidate), evidence, config.limits)
        event = None
        if config.record:
            values = _recorded(decision, candidate, evidence, config)
            event = registry.append("decided", values, who=config.who, why=config.why).number
    return _told(decision, candidate, config, event)


def _candidate(registry: Registry, config: ModelGateConfig, read: str | None) -> _Candidate:
    """A registered version, also where a directory with its weights is given; else that directory."""
    if read is None:
        version: ModelVersion | None = registry.state.find(config.candidate, path=registry.root, field="candidate")
    else:
        version = registry.state.with_weights(read)
    if version is not None:
        return _Candidate(version.label, version.weights_sha256, version.optimised_against)
    assert read is not None
    return _Candidate(config.candidate, read, lineage_of(config.candidate).optimised_against)


def _case(registry: Registry, candidate: _Candidate) -> Case:
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


def _with_more(given: Evidence, candidate: _Candidate, config: ModelGateConfig) -> Evidence:
    """With the kept audits of what the candidate was optimised against, and with the approval by flag."""
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
    return Evidence(given.evaluations, audits, approvals)


def _recorded(
    decision: GateDecision, candidate: _Candidate, evidence: Evidence, config: ModelGateConfig
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
        "files": {file: sha256_of(Path(file)) for file in config.evidence},
        "limits": config.limits.model_dump(mode="json"),
    }


def _plain(evaluation: Evaluation) -> dict[str, Any]:
    """As in a file of evidence: null for an end of the interval of which nothing is known."""
    ends = evaluation.interval and [end if math.isfinite(end) else None for end in evaluation.interval]
    return {**dataclasses.asdict(evaluation), "interval": ends}


def _told(decision: GateDecision, candidate: _Candidate, config: ModelGateConfig, event: int | None) -> Told:
    flag = "" if config.registry == "registry" else f" --registry {shlex.quote(config.registry)}"
    following = {
        "promote": f"prefloop model promote {candidate.sha256[:12]}{flag}",
        "rollback": f"prefloop model rollback{flag}",
        "hold": f"prefloop model gate {shlex.quote(config.candidate)} --evidence MORE.jsonl{flag}",
    }[decision.verdict]
    values = {**as_values(decision), "event": event, "next": following}
    text = f"{as_table(decision, candidate.label)}\n\nnext: {following}"
    return Told(values, text, refused=decision.verdict != "promote")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
