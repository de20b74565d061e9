"""A person's word on a candidate, yes or no: decide again on the evidence of the last decision, with that word.

The same as `model gate` with the same files and an approval, without the files: the ledger has their content. Of the
audits it has the verdicts only; their findings are looked up again.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prefloop.audits import newest_audit
from prefloop.data.rows import Row
from prefloop.gate.config import GateLimits, ModelGateConfig
from prefloop.gate.decide import Evidence
from prefloop.gate.evidence import record_of
from prefloop.recipes.gate import Candidate, decide_in, words_of
from prefloop.registry.ledger import Event
from prefloop.registry.store import Registry, opened
from prefloop.types import Approval, AuditReport, Evaluation, GateDecision, InputError, ModelVersion, Refusal

ASK_AGAIN = "ask `prefloop model gate` again, with its evidence"


@dataclass(frozen=True)
class Word:
    """What a person says of a candidate, having seen the decision in event `seen` (None: there was none)."""

    sha256: str
    approved: bool
    by: str
    why: str
    seen: int | None


def give_word(config: ModelGateConfig, word: Word, *, patience_seconds: float) -> GateDecision:
    """Record a word and what the gate says with it. `config.candidate` is the version, its limits are not looked at.

    Raises Refusal where the ledger does not verify, or another decision was made meanwhile; InputError where the last
    decision cannot be read; EnvironmentStop where another command holds the registry.
    """
    with opened(Path(config.registry), patience_seconds=patience_seconds) as registry:
        registry.require_sound()
        version = _version(registry, word.sha256)
        last = last_decision(registry.events, word.sha256)
        if (last.number if last else None) != word.seen:
            raise Refusal(f"the gate has decided about {version.label} meanwhile; look again")
        values: Mapping[str, Any] = last.values if last else {}
        place = f"event {last.number}" if last else ""
        config = config.model_copy(update={"limits": _limits(values, place), "who": word.by, "why": word.why})
        candidate = Candidate(version.label, version.weights_sha256, version.optimised_against)
        said = Approval(word.sha256, word.approved, word.by, word.why, _now())
        others = [each for each in words_of(last) if each.by != word.by] if last else []
        evidence = Evidence(_evaluations(values, place), _audits(values, candidate, config), [*others, said])
        return decide_in(registry, candidate, evidence, config, values.get("files", {}))[0]


def last_decision(events: Iterable[Event], sha256: str) -> Event | None:
    """The newest decision about these weights."""
    found = [event for event in events if event.kind == "decided" and event.values["candidate"] == sha256]
    return found[-1] if found else None


def _version(registry: Registry, sha256: str) -> ModelVersion:
    version = registry.state.with_weights(sha256)
    if version is None:
        raise InputError("there is no version with these weights", path=registry.root, field="candidate")
    return version


def _limits(values: Mapping[str, Any], place: str) -> GateLimits:
    """Those of the last decision: a person's word is no way to lower the bar."""
    try:
        return GateLimits.model_validate(values.get("limits", {}))
    except ValidationError as error:
        problem = f"these limits are of another version of prefloop ({error.error_count()} differences)"
        raise InputError(problem, path=place, field="limits", remedy=ASK_AGAIN) from error


def _evaluations(values: Mapping[str, Any], place: str) -> list[Evaluation]:
    rows = values.get("evaluations", ())
    records = [record_of(Row(place, number, row)) for number, row in enumerate(rows, start=1)]
    return [record for record in records if isinstance(record, Evaluation)]


def _audits(values: Mapping[str, Any], candidate: Candidate, config: ModelGateConfig) -> list[AuditReport]:
    """As far as the ledger has them. Those that are kept in full are found by `decide_in`."""
    kept = {
        (sha256, report.verdict, report.at)
        for path, sha256 in (candidate.optimised_against or {}).items()
        if (report := newest_audit(path, sha256, config.audits)) is not None
    }
    # One whose findings are lost blocks as a whole, if its verdict does.
    return [
        AuditReport(row["subject"], row["subject_sha256"], row["verdict"], (), row["at"])
        for row in values.get("audits", ())
        if (row["subject_sha256"], row["verdict"], row["at"]) not in kept
    ]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
