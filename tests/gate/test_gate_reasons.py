"""Every check whole: what was observed, what was asked for, and the reason in words; and what just counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from prefloop.gate.config import ApprovalRequirement, AuditRequirement, GateLimits, Requirement
from prefloop.gate.decide import Case, Evidence, decide
from prefloop.types import Approval, AuditReport, Check, Evaluation, GateDecision

CANDIDATE, INCUMBENT, OLDER, REWARD, OTHER = (letter * 64 for letter in "abcdf")
NOT_ASKED = Requirement(required=False)
OFF = ("win_rate", "length_controlled_win_rate", "held_out_reward", "perplexity", "repetition", "hack_rate", "suites")


def reason_of(decision: GateDecision, name: str) -> str:
    """The reason of one check."""
    return next(check.reason for check in decision.checks if check.name == name)


def test_what_is_refuted_counts_before_what_is_not_shown(case: Case, good: Evidence) -> None:
    live = dataclasses.replace(case, live=True)
    unclear = dataclasses.replace(good.evaluations[0], interval=(45.0, 60.0))
    refuted = dataclasses.replace(good.evaluations[0], interval=(30.0, 45.0))
    for pair in ([unclear, refuted], [refuted, unclear]):
        decision = decide(live, dataclasses.replace(good, evaluations=[*good.evaluations[1:], *pair]), GateLimits())
        assert decision.verdict == "rollback"
        assert reason_of(decision, "win_rate").endswith("30 to 45, 400 rows): the whole interval is below the limit")


def test_an_interval_that_ends_at_the_limit_refutes_nothing(case: Case, good: Evidence) -> None:
    live = dataclasses.replace(case, live=True)
    for name, interval in (("win_rate", (40.0, 50.0)), ("perplexity/novel/change", (1.05, 1.2))):
        touching = [dataclasses.replace(e, interval=interval) if e.name == name else e for e in good.evaluations]
        decision = decide(live, dataclasses.replace(good, evaluations=touching), GateLimits())
        assert decision.verdict == "hold" and reason_of(decision, name).endswith("the interval crosses the limit")


def test_what_just_counts(case: Case, good: Evidence) -> None:
    def with_win_rate(max_age_days: float | None = 1.0, **changed: Any) -> str:
        evaluations = [dataclasses.replace(good.evaluations[0], **changed), *good.evaluations[1:]]
        evidence = dataclasses.replace(good, evaluations=evaluations)
        return decide(case, evidence, GateLimits(max_age_days=max_age_days)).verdict

    assert with_win_rate(n=100) == "promote"
    # Without a zone a time is in UTC; now is 2026-06-30T00:00 there.
    assert with_win_rate(at="2026-06-29T00:00:00") == "promote"
    assert with_win_rate(at="2026-06-28T23:59:59.9") == "hold"
    assert with_win_rate(at="2026-06-29T01:00:00+02:00") == "hold"
    assert with_win_rate(at="2026-06-28T23:00:00-02:00") == "promote"
    # Clocks may differ by a day.
    assert with_win_rate(at="2026-07-01T00:00:00") == "promote"
    assert with_win_rate(at="2026-07-01T00:01:00") == "hold"
    assert with_win_rate(at="2027-01-01", max_age_days=None) == "promote"


def test_checks_in_words(case: Case, good: Evidence) -> None:
    both = Requirement(evaluations=("own", "other_*"), at_least=1 / 3, at_most=1000.0, min_rows=7)
    own = Evaluation("own", CANDIDATE, INCUMBENT, OTHER, 2 / 3, (0.4, 1234.5), 7, "2026-06-29")
    limits = GateLimits(**dict.fromkeys(OFF, NOT_ASKED), audit=AuditRequirement(required=False), more={"my_own": both})
    required = "95 % interval at least 0.3333 and at most 1000, 7 rows"
    said = "own is 0.6667 (95 % interval 0.4 to 1234, 7 rows): not shown to be at least 0.3333 and at most 1000, the "
    assert decide(case, Evidence([own]), limits).checks == (
        Check("other_*", False, None, required, "no evaluation called other_* was given, so my own is not known"),
        Check("own", False, 2 / 3, required, said + "interval crosses the limit"),
    )


def test_audits_in_words(case: Case, report: Callable[..., AuditReport]) -> None:
    def checks(*reports: AuditReport, changed: Case = case, **settings: Any) -> tuple[Check, ...]:
        limits = GateLimits(**dict.fromkeys(OFF, NOT_ASKED), **settings)
        return decide(changed, Evidence(audits=reports), limits).checks

    required, name = "an audit that does not block", "audit:runs/reward"
    passes = Check(name, True, "pass, warn", required, "the audit of runs/reward says: pass, warn")
    assert checks(report(), report(verdict="warn"), report()) == (passes,)
    at = "2026-06-29T00:00:00+00:00"
    blocks = Check(name, False, "pass, block", required, f"the audit of runs/reward blocks: length, citation ({at})")
    assert checks(report(), report("length", "citation"), report("flattery")) == (blocks,)
    lost = f"the audit of runs/reward blocks: unknown findings ({at})"
    assert checks(report(verdict="block")) == (Check(name, False, "block", required, lost),)
    accepted = "the audit of runs/reward says: block; what blocks was accepted"
    bearing = AuditRequirement(accept_findings=("length",))
    assert checks(report("length"), audit=bearing) == (Check(name, True, "block", required, accepted),)
    assert checks() == (Check(name, False, None, required, "there is no audit of runs/reward"),)
    two = dataclasses.replace(case, optimised_against={"runs/other": OTHER, "runs/reward": REWARD})
    missing = Check("audit:runs/other", False, None, required, "there is no audit of runs/other")
    found = Check(name, True, "pass", required, "the audit of runs/reward says: pass")
    assert checks(report(), changed=two) == (missing, found)
    nothing = dataclasses.replace(case, optimised_against={})
    assert checks(changed=nothing) == (
        Check("audit", True, None, required, "the candidate was optimised against nothing"),
    )
    foreign = "the audit of runs/reward does not count: the candidate was not optimised against that"
    assert checks(report(), changed=nothing) == (Check(name, False, "pass", required, foreign),)
    unknown = "it is not known what the candidate was optimised against; register it with --reward, or from its run"
    assert checks(report(), changed=dataclasses.replace(case, optimised_against=None)) == (
        Check("audit", False, None, required, unknown),
    )


def test_approvals_in_words(case: Case) -> None:
    def check(people: int, *approvals: Approval, **settings: Any) -> Check:
        asked = ApprovalRequirement(people=people)
        audit = AuditRequirement(required=False)
        limits = GateLimits(**dict.fromkeys(OFF, NOT_ASKED), audit=audit, approval=asked, **settings)
        (found,) = decide(case, Evidence(approvals=approvals), limits).checks
        return found

    ada, bob = (Approval(CANDIDATE, True, name, "", "2026-06-29T00:00:00+00:00") for name in ("Ada", "Bob"))
    two, one = "2 people, and nobody against it", "1 person, and nobody against it"
    assert check(2, bob, ada) == Check("approval", True, "Ada, Bob", two, "Ada, Bob said yes")
    assert check(1) == Check("approval", False, None, one, "nobody has said yes")
    few = Check("approval", False, "Ada, Bob", "3 people, and nobody against it", "Ada, Bob said yes, which is too few")
    assert check(3, ada, bob) == few
    no = dataclasses.replace(bob, approved=False)
    assert check(1, ada, no) == Check("approval", False, "Ada", one, "Bob said no")
    # A no about other weights is none about these, and a word about them counts for nothing.
    elsewhere = "the word of Bob does not count: it is about helper:1 (cccccccc), not about these weights"
    for word in (True, False):
        other = dataclasses.replace(bob, approved=word, candidate_sha256=OLDER)
        assert check(1, ada, other) == Check("approval", False, "Ada", one, elsewhere)
    stale = "the word of Ada does not count: it is stale, 1 days old, 0.5 are allowed"
    assert check(1, ada, max_age_days=0.5) == Check("approval", False, "Ada", one, stale)
