"""The demo's run directory as one object, and every number that its page states.

Means, differences and shares are recomputed from the stored answers (`rollouts/evaluation.jsonl`, the half of the
prompts that is reported) and must agree with `result.json`, so that no number on the page stands without its evidence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefloop.report.records import (
    CURVE_RUNS,
    POLICIES,
    CurvePoint,
    DemoAnswer,
    EvaluatedResponse,
    parse,
    read_records,
)
from prefloop.rundir import MADE_AGAIN
from prefloop.statistics.intervals import Estimate, mean_estimate, paired_difference
from prefloop.types import InputError

TOLERANCE = 5e-3
"""A stored mean may be rounded to two digits, not more."""

Responses = Mapping[str, EvaluatedResponse]


@dataclass(frozen=True)
class DemoRun:
    """What the demo stored. `responses` maps policy -> prompt_id -> answer, over the same prompts for every policy."""

    path: Path
    answer: DemoAnswer
    curves: Mapping[str, Sequence[CurvePoint]]
    responses: Mapping[str, Responses]

    @property
    def num_reported(self) -> int:
        """Prompts behind every mean on the page."""
        return len(self.responses["sft"])

    def utility(self, policy: str) -> Estimate:
        """Mean true utility."""
        return mean_estimate([row.true_utility for row in self._rows(policy)])

    def utility_difference(self, policy: str, baseline: str) -> Estimate:
        """Mean difference of true utility, paired by prompt."""
        first, second = self._rows(policy), self._rows(baseline)
        return paired_difference([row.true_utility for row in first], [row.true_utility for row in second])

    def proxy(self, policy: str) -> Estimate:
        """Mean score by the reward model that the policy was optimised against (of SFT: see `sft_scored_by`)."""
        return mean_estimate([row.proxy for row in self._rows(policy)])

    @property
    def sft_scored_by(self) -> Literal["honest", "biased"]:
        """Whose reward model the stored scores of SFT's answers are, seen by which run's step 0 they agree with."""
        stored = self.proxy("sft").mean
        return min(
            ("honest", "biased"),
            key=lambda who: abs(self.curves["tuned" if who == "honest" else "hacked"][0].proxy.mean - stored),
        )

    def proxy_gain(self, run: str) -> Estimate:
        """End minus start of a run's own proxy.

        The two standard errors are added as if the answers were independent; being to the same prompts they agree
        more than that, so this errs on the side of claiming less.
        """
        start, end = self.curves[run][0].proxy, self.curves[run][-1].proxy
        spread = (start.standard_error**2 + end.standard_error**2) ** 0.5
        return Estimate(end.mean - start.mean, spread, self.num_reported)

    def words(self, policy: str) -> float:
        """Mean number of words of an answer."""
        rows = self._rows(policy)
        return sum(len(row.response.split()) for row in rows) / len(rows)

    def part_means(self, policy: str) -> dict[str, float]:
        """Mean of each part of true utility; a part that an answer does not name is 0 there."""
        rows, sums = self._rows(policy), defaultdict[str, float](float)
        for row in rows:
            for name, value in row.parts.items():
                sums[name] += value
        return {name: total / len(rows) for name, total in sums.items()}

    def kind_utility(self, policy: str) -> dict[str, Estimate]:
        """Mean true utility by kind of prompt."""
        kinds = defaultdict[str, list[float]](list)
        for row in self._rows(policy):
            kinds[row.kind].append(row.true_utility)
        return {kind: mean_estimate(values) for kind, values in sorted(kinds.items())}

    def part_difference(self, part: str, policy: str, baseline: str) -> Estimate:
        """Mean difference of one part of true utility, paired by prompt."""
        first, second = self._rows(policy), self._rows(baseline)
        return paired_difference(
            [row.parts.get(part, 0.0) for row in first], [row.parts.get(part, 0.0) for row in second]
        )

    def kind_difference(self, kind: str, policy: str, baseline: str) -> Estimate | None:
        """Mean difference of true utility on the prompts of one kind, paired by prompt; None if there are none."""
        pairs = zip(self._rows(policy), self._rows(baseline), strict=True)
        differences = [row.true_utility - before.true_utility for row, before in pairs if row.kind == kind]
        return mean_estimate(differences) if differences else None

    @property
    def peak_is_last(self) -> bool:
        """Whether the unguarded run was at its best when it ended."""
        return self.answer.peak_step == self.curves["hacked"][-1].step

    @property
    def peak(self) -> CurvePoint:
        """The point of the unguarded biased run whose true utility was highest on the other half of the prompts."""
        return next(point for point in self.curves["hacked"] if point.step == self.answer.peak_step)

    def kl(self, policy: str) -> float:
        """KL from the SFT policy in nats an answer."""
        match policy:
            case "sft":
                return 0.0
            case "hacked_peak":
                return self.peak.kl
            case "tuned" | "hacked" | "guarded":
                return self.answer.kl[policy]
        raise AssertionError(policy)

    @property
    def budget_reached(self) -> bool:
        """Whether the unguarded run went beyond the budget at all: only then did the guard make a difference."""
        return max(point.kl for point in self.curves["hacked"]) > self.answer.kl_budget

    @property
    def outcome(self) -> Literal["hacking", "no_fall", "no_rise"]:
        """What the biased, unguarded run shows: a proxy that rises while truth falls from its peak, or not."""
        gain, fall = self.proxy_gain("hacked"), self.utility_difference("hacked", "hacked_peak")
        if gain.mean <= 2 * gain.standard_error:
            return "no_rise"
        return "hacking" if fall.mean < -2 * fall.standard_error else "no_fall"

    def _rows(self, policy: str) -> list[EvaluatedResponse]:
        return list(self.responses[policy].values())


def load_demo(run_dir: Path, result: Mapping[str, Any]) -> DemoRun:
    """Read and check what the demo stored; `result` is its result.json. Raises InputError."""
    result_path, curve_path = run_dir / "result.json", run_dir / "curve.jsonl"
    answer = parse(result.get("answer"), DemoAnswer, result_path)
    points = sorted(read_records(curve_path, CurvePoint), key=lambda point: point.step)
    curves = {run: [point for point in points if point.run == run] for run in CURVE_RUNS}
    for run, of_run in curves.items():
        if not of_run or of_run[0].step != 0:
            raise InputError(f"has no step 0 of the run {run!r}", path=curve_path, remedy=MADE_AGAIN)
    if answer.peak_step not in {point.step for point in curves["hacked"]}:
        problem = f"step {answer.peak_step} is not in curve.jsonl"
        raise InputError(problem, path=result_path, field="answer.peak_step", remedy=MADE_AGAIN)
    demo = DemoRun(run_dir, answer, curves, _responses(run_dir / "rollouts" / "evaluation.jsonl"))
    _check_means(demo, result_path)
    return demo


def _responses(path: Path) -> dict[str, Responses]:
    found: dict[str, dict[str, EvaluatedResponse]] = {policy: {} for policy in POLICIES}
    for row in read_records(path, EvaluatedResponse):
        if row.half == "report":
            found[row.policy][row.prompt_id] = row
    prompts = found["sft"].keys()
    if not prompts:
        raise InputError("has no answer of the SFT policy to a reported prompt", path=path, remedy=MADE_AGAIN)
    for policy, rows in found.items():
        if rows.keys() != prompts:
            raise InputError(
                f"the policy {policy!r} did not answer the same prompts as SFT", path=path, remedy=MADE_AGAIN
            )
    # One order for all, so that rows can be paired by position.
    return {policy: {prompt: rows[prompt] for prompt in sorted(prompts)} for policy, rows in found.items()}


def _check_means(demo: DemoRun, path: Path) -> None:
    for policy, stored in demo.answer.true_utility.items():
        computed = demo.utility(policy).mean
        if abs(computed - stored.mean) > TOLERANCE:
            raise InputError(
                f"says {stored.mean:.4f}, the stored answers give {computed:.4f}",
                path=path,
                field=f"answer.true_utility.{policy}.mean",
                remedy=MADE_AGAIN,
            )
