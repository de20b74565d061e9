"""What the gate decides, by hand-made tables and by its laws."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefloop.gate.config import ApprovalRequirement, AuditRequirement, GateLimits, Requirement
from prefloop.gate.decide import Case, Evidence, decide
from prefloop.types import Approval, AuditReport, Check, Evaluation, GateDecision

CANDIDATE, INCUMBENT, OLDER, REWARD, OTHER = (letter * 64 for letter in "abcdf")
LIMITS = GateLimits()
FIVE = GateLimits(
    held_out_reward=Requirement(evaluations=("held_out_reward",), at_least=0.0),
    perplexity=Requirement(evaluations=("perplexity/*",), at_most=1.05),
    repetition=Requirement(evaluations=(), required=False),
    suites=Requirement(evaluations=("suite/*",), at_least=-0.05),
)
"""What the laws are tried on: checks of one evaluation and of families, with limits below and above."""
HANDED = (HealthCheck.function_scoped_fixture,)


def with_one(evidence: Evidence, name: str, **changed: Any) -> Evidence:
    """The evidence with one evaluation changed."""
    evaluations = [dataclasses.replace(each, **changed) if each.name == name else each for each in evidence.evaluations]
    return dataclasses.replace(evidence, evaluations=evaluations)


def failed(decision: GateDecision) -> dict[str, str]:
    """Name -> reason of the checks that did not pass."""
    return {check.name: check.reason for check in decision.checks if not check.passed}


def test_evidence_that_passes_every_check_promotes(case: Case, good: Evidence) -> None:
    decision = decide(case, good, LIMITS)
    assert decision.verdict == "promote"
    assert (decision.candidate, decision.incumbent) == (CANDIDATE, INCUMBENT)
    assert [check.name for check in decision.checks] == [
        *("win_rate", "length_controlled_win_rate", "perplexity/novel/change", "repetition/change"),
        *(f"suite/{name}/change" for name in ("refuse", "answer", "unknown", "citations", "habits", "arithmetic")),
        *("audit:runs/reward", "approval"),
    ]
    first = decision.checks[0]
    assert first.observed == 58.0 and first.required == "95 % interval at least 50, 100 rows"
    assert first.reason == "win_rate is 58 (95 % interval 53 to 63, 400 rows): the whole interval is at least 50"


@pytest.mark.parametrize(
    ("name", "interval", "reason"),
    [
        # Higher than half, but by chance as easily lower: 49 is inside.
        ("win_rate", (49.0, 61.0), "not shown to be at least 50, the interval crosses the limit"),
        ("length_controlled_win_rate", (38.0, 47.0), "the whole interval is below the limit"),
        # A tenth may be lost: -0.11 is inside.
        ("suite/arithmetic/change", (-0.11, 0.1), "not shown to be at least -0.1, the interval crosses the limit"),
        # Of a ratio less is better: five per cent are allowed.
        ("perplexity/novel/change", (1.0, 1.06), "not shown to be at most 1.05, the interval crosses the limit"),
        ("perplexity/novel/change", (1.06, 1.2), "the whole interval is above the limit"),
        ("repetition/change", (-math.inf, math.inf), "the interval crosses the limit"),
        ("repetition/change", None, "95 % interval -inf to inf, 400 rows): not shown to be at most 0.05"),
    ],
)
def test_the_whole_interval_must_keep_the_limit(
    case: Case, good: Evidence, name: str, interval: tuple[float, float] | None, reason: str
) -> None:
    decision = decide(case, with_one(good, name, interval=interval), LIMITS)
    assert decision.verdict == "hold"
    assert list(failed(decision)) == [name] and reason in failed(decision)[name]


def test_the_ends_of_an_interval_may_touch_the_limit(case: Case, good: Evidence) -> None:
    assert decide(case, with_one(good, "win_rate", interval=(50.0, 60.0)), LIMITS).verdict == "promote"
    upper = GateLimits(
        win_rate=Requirement(evaluations=("win_rate",), at_least=50.0, at_most=63.0), more={"own": upper_limit(0.2)}
    )
    above = Evaluation("own", CANDIDATE, INCUMBENT, OTHER, 0.1, (0.0, 0.2), 400, "2026-06-29T00:00:00+00:00")
    evidence = dataclasses.replace(good, evaluations=[*good.evaluations, above])
    assert decide(case, evidence, upper).verdict == "promote"
    over = with_one(evidence, "own", interval=(0.0, 0.21))
    assert "not shown to be at most 0.2" in failed(decide(case, over, upper))["own"]
    beyond = with_one(evidence, "own", interval=(0.21, 0.3))
    assert "the whole interval is above the limit" in failed(decide(case, beyond, upper))["own"]


def upper_limit(limit: float) -> Requirement:
    return Requirement(evaluations=("own",), at_most=limit)


@pytest.mark.parametrize(
    "name", ["win_rate", "length_controlled_win_rate", "perplexity/novel/change", "suite/citations/change"]
)
def test_missing_evidence_holds(case: Case, good: Evidence, name: str) -> None:
    left = [each for each in good.evaluations if each.name != name]
    decision = decide(case, dataclasses.replace(good, evaluations=left), LIMITS)
    asked = name.replace("novel", "*")
    assert decision.verdict == "hold"
    assert f"no evaluation called {asked} was given" in failed(decision)[asked]
    assert [check.observed for check in decision.checks if check.name == asked] == [None]


def test_a_check_that_is_not_required_is_not_made(case: Case, good: Evidence) -> None:
    off = Requirement(evaluations=("win_rate",), required=False)
    without = GateLimits(win_rate=off)
    decision = decide(case, with_one(good, "win_rate", interval=(0.0, 1.0)), without)
    assert decision.verdict == "promote" and "win_rate" not in [check.name for check in decision.checks]


def test_no_check_at_all_holds(case: Case) -> None:
    off = Requirement(evaluations=(), required=False)
    names = ("win_rate", "length_controlled_win_rate", "held_out_reward", "perplexity", "repetition", "suites")
    none = GateLimits(audit=AuditRequirement(required=False), **dict.fromkeys(names, off))  # type: ignore[arg-type]
    decision = decide(case, Evidence(), none)
    assert decision.verdict == "hold"
    assert decision.checks == (Check("checks", False, None, "at least one check", "no check is asked for"),)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"candidate_sha256": OTHER}, "it is of another model (ffffffff), not of these weights"),
        ({"candidate_sha256": OLDER}, "it is of helper:1 (cccccccc), not of these weights"),
        ({"baseline_sha256": OLDER}, "it compares with helper:1 (cccccccc), not with helper:2 (bbbbbbbb)"),
        ({"baseline_sha256": ""}, "it compares with nothing"),
        ({"baseline_sha256": CANDIDATE}, "it compares the candidate with itself"),
        ({"n": 99}, "too few rows, 100 are needed"),
    ],
)
def test_evidence_about_something_else_holds_and_says_so(
    case: Case, good: Evidence, changed: dict[str, Any], reason: str
) -> None:
    known = dataclasses.replace(case, known={OLDER: "helper:1", INCUMBENT: "helper:2"})
    decision = decide(known, with_one(good, "win_rate", **changed), LIMITS)
    assert decision.verdict == "hold"
    assert failed(decision)["win_rate"].endswith(reason)
    # Also beside an evaluation that passes: what is given counts.
    both = [*good.evaluations, dataclasses.replace(good.evaluations[0], **changed)]
    assert decide(known, dataclasses.replace(good, evaluations=both), LIMITS).verdict == "hold"


def test_what_may_stand_alone_needs_no_baseline(case: Case, good: Evidence) -> None:
    alone = Requirement(evaluations=("suite/citations/change",), at_least=0.0, against_incumbent=False)
    evidence = with_one(good, "suite/citations/change", baseline_sha256="")
    assert decide(case, evidence, LIMITS).verdict == "hold"
    assert decide(case, evidence, GateLimits(suites=alone)).verdict == "promote"


def test_without_an_incumbent_any_baseline_will_do(case: Case, good: Evidence) -> None:
    first = dataclasses.replace(case, incumbent=None)
    assert decide(first, with_one(good, "win_rate", baseline_sha256=OTHER), LIMITS).verdict == "promote"
    assert decide(first, with_one(good, "win_rate", baseline_sha256=""), LIMITS).verdict == "hold"


def test_old_evidence_is_stale(case: Case, good: Evidence) -> None:
    # It is from one day before now.
    assert decide(case, good, GateLimits(max_age_days=1.0)).verdict == "promote"
    stale = failed(decide(case, good, GateLimits(max_age_days=0.5)))
    assert stale["win_rate"].endswith("it is stale, 1 days old, 0.5 are allowed")
    assert stale["approval"] == "the word of Ada does not count: it is stale, 1 days old, 0.5 are allowed"
    future = with_one(good, "win_rate", at="2026-07-02T00:00:00")
    assert "still to come" in failed(decide(case, future, GateLimits(max_age_days=30)))["win_rate"]


def test_of_several_evaluations_the_worst_counts(case: Case, good: Evidence) -> None:
    again = dataclasses.replace(good.evaluations[0], value=40.0, interval=(35.0, 45.0))
    decision = decide(case, dataclasses.replace(good, evaluations=[*good.evaluations, again]), LIMITS)
    assert failed(decision).keys() == {"win_rate"}
    assert [check.observed for check in decision.checks if check.name == "win_rate"] == [40.0]


# Audits and approvals


def test_audits_of_what_it_was_optimised_against(
    case: Case, good: Evidence, report: Callable[..., AuditReport]
) -> None:
    def reasons(*reports: AuditReport, limits: GateLimits = LIMITS, changed: Case = case) -> dict[str, str]:
        return failed(decide(changed, dataclasses.replace(good, audits=reports), limits))

    assert reasons() == {"audit:runs/reward": "there is no audit of runs/reward"}
    assert reasons(report(verdict="warn")) == {}
    blocked = reasons(report("length", "citation"))["audit:runs/reward"]
    assert blocked.startswith("the audit of runs/reward blocks: length, citation")
    # A second audit that passes does not outweigh the one that blocks.
    assert reasons(report("length"), report()).keys() == {"audit:runs/reward"}
    accepted = GateLimits(audit=AuditRequirement(accept_findings=("length",)))
    assert reasons(report("length"), limits=accepted) == {}
    assert reasons(report("length", "citation"), limits=accepted).keys() == {"audit:runs/reward"}
    assert "unknown findings" in reasons(report(verdict="block"), limits=accepted)["audit:runs/reward"]
    elsewhere = reasons(report(), report(subject_sha256=OTHER))["audit:runs/reward"]
    assert elsewhere.endswith("the candidate was not optimised against that")
    unknown = dataclasses.replace(case, optimised_against=None)
    assert "not known what the candidate was optimised against" in reasons(report(), changed=unknown)["audit"]
    nothing = dataclasses.replace(case, optimised_against={})
    assert reasons(changed=nothing) == {}
    assert reasons(limits=GateLimits(audit=AuditRequirement(required=False))) == {}


def test_approvals(case: Case, good: Evidence) -> None:
    def reason(people: int, *approvals: Approval) -> str | None:
        limits = GateLimits(approval=ApprovalRequirement(people=people))
        return failed(decide(case, dataclasses.replace(good, approvals=approvals), limits)).get("approval")

    ada, bob = (Approval(CANDIDATE, True, name, "", "2026-06-29T00:00:00+00:00") for name in ("Ada", "Bob"))
    assert reason(0) is None
    assert reason(1) == "nobody has said yes"
    assert reason(1, ada) is None
    assert reason(2, ada, ada) == "Ada said yes, which is too few"
    assert reason(2, ada, bob) is None
    no = dataclasses.replace(bob, approved=False, why="it invents pages")
    # A no holds whether or not anybody is asked.
    assert reason(0, no) == reason(1, ada, no) == "Bob said no: it invents pages"
    about = reason(1, ada, dataclasses.replace(bob, candidate_sha256=OLDER))
    assert about == "the word of Bob does not count: it is about helper:1 (cccccccc), not about these weights"


# What is live


def test_only_what_is_live_and_shown_to_be_worse_is_rolled_back(case: Case, good: Evidence) -> None:
    live = dataclasses.replace(case, live=True)
    worse = with_one(good, "win_rate", interval=(30.0, 49.9))
    assert decide(live, good, LIMITS).verdict == "promote"
    assert decide(live, worse, LIMITS).verdict == "rollback"
    assert decide(case, worse, LIMITS).verdict == "hold"
    # Not known is no reason to go back, and neither is an audit.
    assert decide(live, with_one(good, "win_rate", interval=(45.0, 60.0)), LIMITS).verdict == "hold"
    assert decide(live, dataclasses.replace(good, evaluations=[]), LIMITS).verdict == "hold"
    assert decide(live, dataclasses.replace(good, audits=[]), LIMITS).verdict == "hold"
    no = Approval(CANDIDATE, False, "Bob", "", "2026-06-29T00:00:00+00:00")
    assert decide(live, dataclasses.replace(good, approvals=[no]), LIMITS).verdict == "rollback"


# The laws


@st.composite
def worsened(draw: st.DrawFn, each: Evaluation) -> Evaluation:
    """An evaluation that is worse, less sure, of fewer rows, older, or about something else."""
    sign = -1 if each.name.startswith("perplexity") else 1
    interval = each.interval or (-math.inf, math.inf)
    match draw(st.sampled_from(["lower", "wider", "fewer", "candidate", "baseline", "older"])):
        case "lower":
            by = draw(st.floats(0, 100))
            low, high = interval
            return dataclasses.replace(each, value=each.value - sign * by, interval=(low - sign * by, high - sign * by))
        case "wider":
            less, more = draw(st.floats(0, 100)), draw(st.floats(0, 100))
            return dataclasses.replace(each, interval=(interval[0] - less, interval[1] + more))
        case "fewer":
            return dataclasses.replace(each, n=draw(st.sampled_from([1, max(1, each.n // 2)])))
        case "candidate":
            return dataclasses.replace(each, candidate_sha256=draw(st.sampled_from([OTHER, OLDER])))
        case "baseline":
            return dataclasses.replace(each, baseline_sha256=draw(st.sampled_from([OTHER, OLDER, CANDIDATE, ""])))
    return dataclasses.replace(each, at="2025-01-01T00:00:00+00:00")


NAMES = ("win_rate", "length_controlled_win_rate", "held_out_reward", "perplexity/x", "suite/y", "suite/z")
AT_THE_LIMIT = (50.0, 50.0, 0.0, 1.05, -0.05, -0.05)


@st.composite
def evaluations(draw: st.DrawFn, name: str) -> Evaluation:
    sign = -1 if name.startswith("perplexity") else 1
    value = AT_THE_LIMIT[NAMES.index(name)] + sign * draw(st.floats(-0.5, 2))
    interval = (value - draw(st.floats(0, 1)), value + draw(st.floats(0, 1)))
    candidate = draw(st.sampled_from([CANDIDATE] * 12 + [OTHER]))
    baseline = draw(st.sampled_from([INCUMBENT] * 12 + [OLDER, ""]))
    rows = draw(st.sampled_from([99, 100, 1000, 1000, 1000]))
    at = draw(st.sampled_from(["2026-06-29T00:00:00+00:00"] * 12 + ["2025-01-01T00:00:00+00:00"]))
    return Evaluation(name, candidate, baseline, OTHER, value, interval, rows, at)


@st.composite
def situations(draw: st.DrawFn, least: int = 0) -> tuple[Evidence, GateLimits]:
    """Evidence that promotes, but for up to two defects, at least as many as said; and limits."""
    at = "2026-06-29T00:00:00+00:00"
    given = [Evaluation(name, CANDIDATE, INCUMBENT, OTHER, 0, (0, 0), 1000, at) for name in NAMES]
    given = [
        dataclasses.replace(each, value=limit, interval=(limit, limit))
        for each, limit in zip(given, AT_THE_LIMIT, strict=True)
    ]
    verdicts, words = ["pass"], [True]
    for defect in draw(
        st.lists(
            st.sampled_from(["gone", "other", "one more", "one more", "audit", "word"]), min_size=least, max_size=2
        )
    ):
        position = draw(st.integers(0, len(given) - 1))
        match defect:
            case "gone":
                del given[position]
            case "other":
                given[position] = draw(evaluations(given[position].name))
            case "one more":
                given.append(draw(evaluations(given[position].name)))
            case "audit":
                verdicts = draw(st.lists(st.sampled_from(["pass", "warn", "block"]), max_size=2))
            case "word":
                words = draw(st.lists(st.booleans(), max_size=2))
    audits = [AuditReport("r", REWARD, verdict, (), at) for verdict in verdicts]  # type: ignore[arg-type]
    approvals = [Approval(CANDIDATE, word, f"person {number}", "", at) for number, word in enumerate(words)]
    people, age = draw(st.integers(0, 1)), draw(st.sampled_from([None, 30.0]))
    changed = {"approval": ApprovalRequirement(people=people), "max_age_days": age}
    return Evidence(given, audits, approvals), FIVE.model_copy(update=changed)


def passes_alone(case: Case, each: Evaluation, limits: GateLimits) -> bool:
    return any(check.passed for check in decide(case, Evidence([each]), limits).checks if check.name == each.name)


@st.composite
def worse_evidence(draw: st.DrawFn, case: Case, evidence: Evidence, limits: GateLimits) -> Evidence:
    """Worse in a few of its parts; what speaks for the candidate may be gone, what speaks against it may not."""
    given, audits, approvals = list(evidence.evaluations), list(evidence.audits), list(evidence.approvals)
    for part in draw(st.lists(st.sampled_from(["worse", "worse", "gone", "more", "audit", "word"]), max_size=2)):
        match part:
            case "worse" if given:
                # Mostly what speaks against the candidate: a gate that passes over bad evidence is found by that.
                against = [each for each in given if not passes_alone(case, each, limits)]
                position = given.index(draw(st.sampled_from(against if against and draw(st.integers(0, 3)) else given)))
                given[position] = draw(worsened(given[position]))
            case "gone" if given:
                position = draw(st.integers(0, len(given) - 1))
                if passes_alone(case, given[position], limits):
                    del given[position]
            case "more":
                more = draw(evaluations(draw(st.sampled_from(NAMES))))
                given += [] if passes_alone(case, more, limits) else [more]
            case "audit" if audits:
                changed = draw(st.sampled_from([{"verdict": "block"}, {"subject_sha256": OTHER}]))
                audits[-1] = dataclasses.replace(audits[-1], **changed)
            case "word" if approvals:
                changed = draw(st.sampled_from([{"approved": False}, {"candidate_sha256": OTHER}]))
                approvals[-1] = dataclasses.replace(approvals[-1], **changed)
    return Evidence(given, audits, approvals)


@settings(max_examples=300, suppress_health_check=HANDED)
@given(data=st.data())
@pytest.mark.parametrize("live", [False, True])
def test_worse_evidence_never_promotes_what_was_held(case: Case, live: bool, data: st.DataObject) -> None:
    judged = dataclasses.replace(case, optimised_against={"r": REWARD}, live=live)
    evidence, limits = data.draw(situations(1))
    worse = data.draw(worse_evidence(judged, evidence, limits))
    if decide(judged, evidence, limits).verdict != "promote":
        assert decide(judged, worse, limits).verdict != "promote"


@settings(max_examples=150, suppress_health_check=HANDED)
@given(data=st.data())
def test_a_decision_is_a_function_of_a_set(case: Case, data: st.DataObject) -> None:
    """Neither the order of the evidence nor a copy of it matters, and a promotion passes every check."""
    evidence, limits = data.draw(situations())
    judged = dataclasses.replace(case, optimised_against={"r": REWARD})
    mixed = Evidence(
        data.draw(st.permutations([*evidence.evaluations, *evidence.evaluations])),
        data.draw(st.permutations(evidence.audits)),
        data.draw(st.permutations([*evidence.approvals, *evidence.approvals])),
    )
    decision, again = decide(judged, evidence, limits), decide(judged, mixed, limits)
    assert decision.verdict == again.verdict
    assert sorted((check.name, check.passed) for check in decision.checks) == sorted(
        (check.name, check.passed) for check in again.checks
    )
    assert (decision.verdict == "promote") == all(check.passed for check in decision.checks)
    assert all(check.reason for check in decision.checks)


@settings(max_examples=150, suppress_health_check=HANDED)
@given(data=st.data())
def test_stricter_limits_never_promote_what_was_held(case: Case, data: st.DataObject) -> None:
    evidence, limits = data.draw(situations())
    judged = dataclasses.replace(case, optimised_against={"r": REWARD})
    name = data.draw(st.sampled_from(["win_rate", "held_out_reward", "suites"]))
    old = getattr(limits, name)
    by, rows = data.draw(st.floats(0, 2)), data.draw(st.integers(100, 2000))
    new = old.model_copy(update={"at_least": old.at_least + by, "min_rows": rows})
    stricter = limits.model_copy(update={name: new})
    if decide(judged, evidence, limits).verdict != "promote":
        assert decide(judged, evidence, stricter).verdict != "promote"


def test_the_situations_of_the_laws_promote_often_enough(case: Case) -> None:
    """The laws would hold of a gate that never promotes: here it does."""
    verdicts: list[str] = []

    @settings(max_examples=200, database=None, suppress_health_check=HANDED)
    @given(situation=situations())
    def count(situation: tuple[Evidence, GateLimits]) -> None:
        judged = dataclasses.replace(case, optimised_against={"r": REWARD})
        verdicts.append(decide(judged, *situation).verdict)

    count()
    assert verdicts.count("hold") > 5
    assert verdicts.count("promote") > 5


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"evaluations": ("x",)}, "needs at_least or at_most"),
        ({"evaluations": (), "at_least": 1.0}, "evaluations is empty"),
    ],
)
def test_a_requirement_without_a_limit_is_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Requirement(**values)
