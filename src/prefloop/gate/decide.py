"""Evidence in, decision out: a pure function, with the reasons in plain words.

Three rules hold it together. What is missing holds. What is given counts: an evaluation of other weights, of an older
incumbent, too old or too small holds too, instead of being passed over, so that nobody can pick. And worse evidence
never makes a promotion of a hold. The limits are compared with the whole interval, never with the value alone.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from prefloop.audits import blocking
from prefloop.gate.config import ApprovalRequirement, AuditRequirement, GateLimits, Requirement
from prefloop.types import Approval, AuditReport, Check, Evaluation, GateDecision, GateVerdict

SHORT = 8
"""Digits of a sha256 that a reason shows."""


@dataclass(frozen=True)
class Evidence:
    """All that speaks for and against a candidate."""

    evaluations: Sequence[Evaluation] = ()
    audits: Sequence[AuditReport] = ()
    approvals: Sequence[Approval] = ()


@dataclass(frozen=True)
class Case:
    """Who is judged, and what is known about it."""

    candidate: str
    """sha256 of its weights."""
    now: datetime.datetime
    """What the age of evidence is measured from."""
    incumbent: str | None = None
    """sha256 of what it must be better than; None where nothing is live. Of a live candidate: what was live before."""
    live: bool = False
    """Whether the candidate is live already: then evidence against it asks for a rollback."""
    optimised_against: Mapping[str, str] | None = None
    """As in ModelVersion."""
    known: Mapping[str, str] = field(default_factory=dict)
    """sha256 -> what to call these weights."""


@dataclass(frozen=True)
class _Answer:
    """A check, and whether independent evidence shows the contrary, rather than too little."""

    check: Check
    refuted: bool = False


def decide(case: Case, evidence: Evidence, limits: GateLimits) -> GateDecision:
    """Promote where every check passes, roll back where the candidate is live and a check shows that it is worse than
    allowed, and hold otherwise. Pure: the same evidence gives the same decision."""
    answers: list[_Answer] = []
    for name, requirement in requirements(limits).items():
        if requirement.required:
            answers += _measured(name, requirement, case, evidence.evaluations, limits.max_age_days)
    if limits.audit.required:
        answers += _audited(case, evidence.audits, limits.audit)
    if limits.approval.people or evidence.approvals:
        answers.append(_approved(case, evidence.approvals, limits.approval, limits.max_age_days))
    if not answers:
        answers.append(_Answer(Check("checks", False, None, "at least one check", "no check is asked for")))
    verdict: GateVerdict = "hold"
    if all(answer.check.passed for answer in answers):
        verdict = "promote"
    elif case.live and any(answer.refuted for answer in answers):
        verdict = "rollback"
    return GateDecision(case.candidate, case.incumbent, tuple(answer.check for answer in answers), verdict)


def requirements(limits: GateLimits) -> dict[str, Requirement]:
    """The checks of evaluations by name, those of the user's own after the built-in ones."""
    own = {name: getattr(limits, name) for name in GateLimits.model_fields}
    return {name: each for name, each in own.items() if isinstance(each, Requirement)} | dict(limits.more)


def _measured(
    name: str, requirement: Requirement, case: Case, given: Sequence[Evaluation], max_age_days: float | None
) -> Iterator[_Answer]:
    """One answer for each evaluation that the requirement asks for by name, and one for each name that is not there."""
    required = _limit_text(requirement)
    matching: dict[str, list[Evaluation]] = {}
    for pattern in requirement.evaluations:
        found = [each for each in given if fnmatchcase(each.name, pattern)]
        for each in found:
            matching.setdefault(each.name, []).append(each)
        if not found:
            reason = f"no evaluation called {pattern} was given, so {_words(name)} is not known"
            yield _Answer(Check(pattern, False, None, required, reason))
    for evaluations in matching.values():
        answers = [_one(each, requirement, required, case, max_age_days) for each in _distinct(evaluations)]
        yield min(answers, key=lambda answer: (answer.check.passed, not answer.refuted))


def _one(
    evaluation: Evaluation, requirement: Requirement, required: str, case: Case, max_age_days: float | None
) -> _Answer:
    low, high = evaluation.interval or (-math.inf, math.inf)
    said = f"{evaluation.name} is {_number(evaluation.value)} ({_range(low, high)}, {evaluation.n} rows)"

    def answer(passed: bool, reason: str, *, refuted: bool = False) -> _Answer:
        return _Answer(Check(evaluation.name, passed, evaluation.value, required, reason), refuted)

    unusable = _unusable(evaluation, requirement, case) or _stale(evaluation.at, max_age_days, case)
    if unusable:
        return answer(False, f"{evaluation.name} does not count: {unusable}")
    if evaluation.n < requirement.min_rows:
        return answer(False, f"{said}: too few rows, {requirement.min_rows} are needed")
    above = requirement.at_least is None or low >= requirement.at_least
    below = requirement.at_most is None or high <= requirement.at_most
    if above and below:
        return answer(True, f"{said}: the whole interval is {_allowed(requirement)}")
    under = requirement.at_least is not None and high < requirement.at_least
    over = requirement.at_most is not None and low > requirement.at_most
    if under or over:
        return answer(False, f"{said}: the whole interval is {'below' if under else 'above'} the limit", refuted=True)
    return answer(False, f"{said}: not shown to be {_allowed(requirement)}, the interval crosses the limit")


def _unusable(evaluation: Evaluation, requirement: Requirement, case: Case) -> str:
    """Why an evaluation says nothing of this candidate beside this incumbent; empty where it does."""
    if evaluation.candidate_sha256 != case.candidate:
        return f"it is of {_called(evaluation.candidate_sha256, case)}, not of these weights"
    baseline = evaluation.baseline_sha256
    if baseline == case.candidate:
        return "it compares the candidate with itself"
    if not requirement.against_incumbent:
        return ""
    if not baseline:
        return "it compares with nothing"
    if case.incumbent is not None and baseline != case.incumbent:
        return f"it compares with {_called(baseline, case)}, not with {_called(case.incumbent, case)}"
    return ""


def _stale(at: str, max_age_days: float | None, case: Case) -> str:
    if max_age_days is None:
        return ""
    age = (case.now - moment(at)).total_seconds() / 86400
    if age < -1:
        return f"it is dated {at}, which is still to come"
    return f"it is stale, {age:.0f} days old, {max_age_days:g} are allowed" if age > max_age_days else ""


def moment(at: str) -> datetime.datetime:
    """ISO 8601 as a moment; in UTC where it names no zone. Raises ValueError."""
    found = datetime.datetime.fromisoformat(at)
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def _audited(case: Case, reports: Sequence[AuditReport], requirement: AuditRequirement) -> Iterator[_Answer]:
    """One answer for each thing that the candidate was optimised against, and one for each report on something else."""
    required = "an audit that does not block"
    if case.optimised_against is None:
        reason = "it is not known what the candidate was optimised against; register it with --reward, or from its run"
        yield _Answer(Check("audit", False, None, required, reason))
        return
    for path, sha256 in case.optimised_against.items():
        found = [report for report in reports if report.subject_sha256 == sha256]
        if not found:
            yield _Answer(Check(f"audit:{path}", False, None, required, f"there is no audit of {path}"))
            continue
        blocks = [(report, names) for report in found if (names := _blocking(report, requirement))]
        verdicts = ", ".join(dict.fromkeys(report.verdict for report in found))
        if blocks:
            report, names = blocks[0]
            reason = f"the audit of {path} blocks: {', '.join(names)} ({report.at})"
            yield _Answer(Check(f"audit:{path}", False, verdicts, required, reason))
        else:
            accepted = "; what blocks was accepted" if "block" in verdicts else ""
            reason = f"the audit of {path} says: {verdicts}{accepted}"
            yield _Answer(Check(f"audit:{path}", True, verdicts, required, reason))
    for report in reports:
        if report.subject_sha256 not in case.optimised_against.values():
            reason = f"the audit of {report.subject} does not count: the candidate was not optimised against that"
            yield _Answer(Check(f"audit:{report.subject}", False, report.verdict, required, reason))
    if not case.optimised_against and not reports:
        yield _Answer(Check("audit", True, None, required, "the candidate was optimised against nothing"))


def _blocking(report: AuditReport, requirement: AuditRequirement) -> list[str]:
    names = [finding.name for finding in blocking(report, requirement.accept_findings)]
    # A report whose verdict is worse than its findings has lost some of them.
    lost = report.verdict == "block" and not blocking(report)
    return ["unknown findings"] if lost else names


def _approved(
    case: Case, approvals: Sequence[Approval], requirement: ApprovalRequirement, max_age_days: float | None
) -> _Answer:
    required = f"{requirement.people} {'person' if requirement.people == 1 else 'people'}, and nobody against it"
    people = sorted({each.by for each in approvals if each.approved and each.candidate_sha256 == case.candidate})
    observed = ", ".join(people) or None
    about = [each for each in approvals if each.candidate_sha256 == case.candidate]
    if refusal := next((each for each in about if not each.approved), None):
        why = f": {refusal.why}" if refusal.why else ""
        return _Answer(Check("approval", False, observed, required, f"{refusal.by} said no{why}"), refuted=True)
    for each in approvals:
        other = f"it is about {_called(each.candidate_sha256, case)}, not about these weights"
        if problem := _stale(each.at, max_age_days, case) if each in about else other:
            reason = f"the word of {each.by} does not count: {problem}"
            return _Answer(Check("approval", False, observed, required, reason))
    if len(people) < requirement.people:
        said = f"{', '.join(people)} said yes, which is too few" if people else "nobody has said yes"
        return _Answer(Check("approval", False, observed, required, said))
    return _Answer(Check("approval", True, observed, required, f"{', '.join(people)} said yes"))


def _distinct(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    return list(dict.fromkeys(evaluations))


def _called(sha256: str, case: Case) -> str:
    name = case.known.get(sha256, "another model")
    return f"{name} ({sha256[:SHORT]})"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _limit_text(requirement: Requirement) -> str:
    return f"95 % interval {_allowed(requirement)}, {requirement.min_rows} rows"


def _allowed(requirement: Requirement) -> str:
    ends = [("at least", requirement.at_least), ("at most", requirement.at_most)]
    return " and ".join(f"{words} {_number(limit)}" for words, limit in ends if limit is not None)


def _range(low: float, high: float) -> str:
    return f"95 % interval {_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{value:.4g}"
