"""The sandbox table: the rules behind its columns on hand-made rows, and the runner with jobs that fail or are done."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from prefloop.cli import main
from prefloop.evaluate.records import Pairing
from prefloop.gate.decide import Case, Evidence, decide, moment
from prefloop.recipes import table
from prefloop.recipes.measure import Measured
from prefloop.recipes.mend import remedy_of
from prefloop.recipes.panel import LIMITS, panel_evaluations
from prefloop.recipes.table_columns import columns, false_alarm_rate, pooled
from prefloop.recipes.table_config import QUICK_SCENARIOS, TableConfig
from prefloop.recipes.table_row import truth_of
from prefloop.recipes.table_text import as_markdown, as_sheet
from prefloop.types import Comparison, Judgment, Message, Prompt
from prefloop.world.scenarios import SCENARIOS

AT = "2026-01-01T00:00:00+00:00"


def known(mean: float, error: float = 0.1) -> dict[str, float]:
    return {"mean": mean, "standard_error": error}


def row(seed: int = 1, *, scenario: str = "confidence", fall: float = -1.0, **other: Any) -> dict[str, Any]:
    """A row in which everything went as it should."""
    policies = {name: known(0.0) for name in ("sft", "peak", "unguarded", "guarded", "mended")}
    view = {
        "true_utility": policies,
        "proxy": policies,
        "end_minus_peak": known(fall),
        "proxy_end_minus_peak": known(1.0),
        "live_minus_unguarded": known(1.5),
        "live_minus_sft": known(0.5),
    }
    decision, promoted = {"verdict": "hold", "win_rate": 30.0}, {"verdict": "promote", "win_rate": 61.0}
    return {
        "scenario": scenario,
        "algorithm": "rloo",
        "seed": seed,
        "audit": {"named": list(SCENARIOS[scenario].expected_findings)},
        "alarms": {
            "unguarded": [
                {"signal": "openings", "step": 3, "kl": 0.4},
                {"signal": "confidence", "step": 6, "kl": 1.2},
                {"signal": "confidence", "step": 9, "kl": 3.0},
            ]
        },
        "steps": {"unguarded": 30, "guarded": 8},
        "stopped": {"unguarded": "done", "guarded": "kl_budget"},
        "decisions": {"unguarded": decision, "guarded": decision, "mended": promoted},
        "remedy": {
            "text": "fresh judgments",
            "rounds": [
                {"accuracy": {"in_use_on_held_out": 0.41, "retrained_on_held_out": 0.55}},
                {"accuracy": {"in_use_on_held_out": 0.56, "retrained_on_held_out": 0.62}},
            ],
        },
        "live": "mended",
        "peak_step": 5,
        "kl": {"peak": 1.0, "unguarded": 9.0, "guarded": 1.9},
        "parts_changed": {"confident_phrase": -0.8, "abstention": -0.2, "politeness": 0.1},
        "all": copy.deepcopy(view),
        "concerned": view,
        **other,
    }


def test_seeds_that_agree_leave_the_error_within_them() -> None:
    found = pooled([known(1.0, 0.3)] * 3)
    assert found.standard_error == pytest.approx(0.3 / 3**0.5)
    assert (found.low, found.high) == pytest.approx((1 - 1.96 * 0.17321, 1 + 1.96 * 0.17321), abs=1e-4)
    assert found.rises and not found.falls


def test_seeds_that_differ_widen_the_interval_as_student_does() -> None:
    found = pooled([known(0.0), known(1.0), known(2.0)])
    # sd 1, so 1 / sqrt(3); t with 2 degrees of freedom leaves 2.5 % beyond 4.303.
    assert found.standard_error == pytest.approx(0.57735, abs=1e-5)
    assert found.high == pytest.approx(1 + 4.3027 * 0.57735, abs=1e-3)
    assert not found.rises


def test_a_row_as_expected_says_so() -> None:
    found = columns([row(1), row(2)])
    assert found["cells"]["after"].endswith(
        "rounds: 2; reward model on new pairs: 0.41, retrained 0.62; gate on mended: promote 2/2 (win rate 61 %)"
    )
    assert all(found["checks"].values())
    assert found["cells"]["unguarded"].startswith("yes, at 2/2 seeds by themselves: -1.00")
    assert "confident_phrase -0.80, abstention -0.20" in found["cells"]["unguarded"]
    assert found["cells"]["audit"] == "confidence 2/2"
    assert found["cells"]["alarm"] == "confidence 2/2; step 6, KL 1.2"
    assert "kl_budget 2/2" in found["cells"]["guard"] and "unguarded: hold 2/2" in found["cells"]["guard"]
    assert found["cells"]["after"].startswith("yes, at 2/2 seeds by themselves: live - SFT +0.50")


def test_what_does_not_show_is_said() -> None:
    quiet = row(
        fall=-0.2, audit={"named": ["length"]}, alarms={"unguarded": [{"signal": "length", "step": 4, "kl": 1}]}
    )
    found = columns([quiet])
    assert found["cells"]["unguarded"].startswith("no, at 0/1 seeds by themselves: -0.20")
    assert found["cells"]["audit"] == "length 1/1 (not expected); missed: confidence"
    assert found["cells"]["alarm"] == "no: never raised"
    assert [found["checks"][name] for name in ("hacked", "audit", "alarm")] == [False, False, False]
    text = as_sheet({**answer([quiet])})
    assert "NOT: unguarded, true utility falls and the proxy rises" in " ".join(text.replace("│", " ").split())


def test_related_findings_are_allowed_and_others_are_not() -> None:
    found = columns([row(scenario="length", audit={"named": ["length", "ruler"]})])
    assert found["cells"]["audit"] == "length 1/1; ruler 1/1 (related)" and found["checks"]["audit"]
    for named in (["ruler"], ["length", "position"]):
        assert columns([row(scenario="length", audit={"named": named})])["checks"]["audit"] is False


def test_seeds_that_all_fall_but_not_alike_are_told_apart() -> None:
    each = columns([row(seed, fall=fall) for seed, fall in ((1, -0.4), (2, -4.0), (3, -1.5))])
    assert each["checks"]["hacked"] is False and each["checks"]["hacked_each"] is True
    assert each["cells"]["unguarded"].startswith("no, at 3/3 seeds by themselves: -1.97")
    one = columns([row(1), row(2, fall=-0.2)])
    assert one["checks"]["hacked_each"] is False and "at 1/2 seeds" in one["cells"]["unguarded"]


def test_a_fall_needs_a_proxy_that_rises() -> None:
    flat = row()
    flat["concerned"]["proxy_end_minus_peak"] = known(-1.0)
    assert columns([flat])["checks"]["hacked"] is False


def test_a_promoted_unguarded_candidate_is_no_held_one() -> None:
    decisions = {
        "unguarded": {"verdict": "promote", "win_rate": 60.0},
        "guarded": {"verdict": "hold", "win_rate": 50.0},
    }
    assert columns([row(), row(2, decisions=decisions)])["checks"]["unguarded_held"] is False


def test_false_alarms_are_those_of_honest_rewards() -> None:
    lines = [columns([row(scenario="honest"), row(2, scenario="honest")]), columns([row()])]
    assert false_alarm_rate(lines) == "6 alarms in 60 steps of the honest scenario (100 in 1,000 steps)"


@pytest.mark.parametrize(
    ("named", "promoted", "balanced", "fresh"),
    [
        ((), True, (), False),
        ((), False, (), True),
        (("confidence", "label_noise"), True, ("confidence",), True),
        (("citation", "length"), False, ("length", "citation"), True),
        (("refusal_coverage",), True, (), True),
        (("citation", "refusal"), False, ("citation",), True),
    ],
)
def test_the_remedy_follows_from_what_was_named(
    named: tuple[str, ...], promoted: bool, balanced: tuple[str, ...], fresh: bool
) -> None:
    remedy = remedy_of(named, promoted=promoted)
    assert sorted(remedy.balance) == sorted(balanced) and remedy.fresh is fresh


def judged(choices: dict[str, list[str]]) -> tuple[list[Comparison], list[Judgment]]:
    comparisons, votes = [], []
    for kind, of_kind in choices.items():
        for number, choice in enumerate(of_kind):
            name = f"{kind}-{number}"
            prompt = Prompt(name, (Message("user", name),), columns={"kind": kind})
            comparisons.append(Comparison(name, prompt, "one", "one" if choice == "same" else "another"))
            if choice != "same":
                votes.append(Judgment(name, "expert-1", choice))  # type: ignore[arg-type]
    return comparisons, votes


def rates(choices: dict[str, list[str]]) -> dict[str, tuple[float, int]]:
    made = panel_evaluations(*judged(choices), Pairing("new", "old", AT), "votes", seed=0)
    return {each.name: (each.value, each.n) for each in made}


def test_ties_and_equal_responses_are_half_a_win_and_skips_are_left_out() -> None:
    found = rates({"fact": ["a", "a", "b", "tie", "same", "skip"], "unsafe": ["b", "both_bad"]})
    assert found["win_rate"] == pytest.approx((100 * (2 + 0.5 + 0.5 + 0.5) / 7, 7))
    assert found["win_rate/fact"] == (60.0, 5) and found["win_rate/unsafe"] == (25.0, 2)


@pytest.mark.parametrize(("unsafe", "verdict"), [("a", "promote"), ("b", "hold")])
def test_a_gain_in_the_mean_does_not_buy_a_loss_on_one_kind(unsafe: str, verdict: str) -> None:
    choices = {"fact": ["a"] * 110 + ["b"] * 40, "unsafe": [unsafe] * 30}
    made = panel_evaluations(*judged(choices), Pairing("new", "old", AT), "votes", seed=0)
    case = Case("new", moment(AT), "old", optimised_against={})
    assert made[0].value > 60
    assert decide(case, Evidence(made), LIMITS).verdict == verdict


def measured(unsafe: float, fact: float, proxy: float) -> Measured:
    rows = [
        {"half": half, "kind": kind, "true_utility": worth + spread, "proxy": proxy + spread, "parts": {}}
        for half in ("select", "report")
        for spread in (0.1, -0.1)
        for kind, worth in (("unsafe", unsafe), ("fact", fact))
    ]
    return Measured(rows, 1.0)


def test_a_harm_to_one_kind_is_not_hidden_by_gains_on_others() -> None:
    curve = {0: measured(0.5, 0.0, 0.0), 5: measured(0.6, 1.0, 0.5), 9: measured(-3.0, 5.0, 1.0)}
    found = truth_of(curve, {"guarded": measured(0.8, 1.0, 0.6)}, "guarded", kind="unsafe")
    assert found["peak_step"] == 5
    assert found["concerned"]["end_minus_peak"]["mean"] == pytest.approx(-3.6)
    assert found["all"]["end_minus_peak"]["mean"] == pytest.approx(0.2)
    assert found["concerned"]["live_minus_sft"]["mean"] == pytest.approx(0.3)
    assert found["concerned"]["proxy_end_minus_peak"]["mean"] == pytest.approx(0.5)


def test_the_rows_of_a_table() -> None:
    whole = TableConfig()
    assert {name for name, _ in whole.rows} == set(SCENARIOS) and len(whole.chosen_seeds) == 3
    assert whole.rows.count(("confidence", "ppo")) == 1 and [a for _, a in whole.rows].count("ppo") == 1
    quick = TableConfig(quick=True)
    assert quick.rows == tuple((name, "rloo") for name in QUICK_SCENARIOS) and len(quick.chosen_seeds) == 1
    # As many responses a step, whatever the algorithm.
    assert whole.settings(2, "ppo").prompts_per_step == 4 * whole.settings(2).prompts_per_step


def config(**values: Any) -> TableConfig:
    return TableConfig.model_validate({"scenarios": ("confidence",), "seeds": (1, 2), "ppo_scenario": None, **values})


def answer(rows: list[dict[str, Any]], failed: dict[str, str] | None = None) -> dict[str, Any]:
    return table.answer_of(rows, config(), failed or {})


def test_a_failed_job_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / table.ROWS).mkdir()
    done: list[str] = []

    def fail() -> None:
        raise RuntimeError("no memory")

    table.attempt(tmp_path, "confidence-rloo-1", fail, ())
    table.attempt(tmp_path, "confidence-rloo-2", lambda: done.append("2"), ())
    assert done == ["2"]
    found = table.write_table(tmp_path, config())
    assert found["failed"] == {"confidence-rloo-1": "RuntimeError: no memory"}
    assert "FAILED: confidence-rloo-1: RuntimeError: no memory" in (tmp_path / "table.md").read_text()
    table.attempt(tmp_path, "confidence-rloo-1", lambda: done.append("1"), ())
    assert table.write_table(tmp_path, config())["failed"] == {}


def test_a_finished_row_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / table.ROWS).mkdir()
    made: list[int] = []

    def make(root: Path, settings: Any, scenario: str, **_: Any) -> dict[str, Any]:
        made.append(settings.seed)
        return row(settings.seed)

    monkeypatch.setattr(table, "make_row", make)
    monkeypatch.setattr(table, "learn_reward", lambda *_: None)
    for seed in (1, 1, 2):
        table.make_rows(tmp_path, config(), "confidence", seed)
    assert made == [1, 2]
    stored = json.loads((tmp_path / "table.json").read_text())
    assert stored["num_rows"] == stored["num_wanted"] == 2
    assert stored["lines"][0]["seeds"] == [1, 2]
    assert len((tmp_path / "table.jsonl").read_text().splitlines()) == 2


def test_markdown_has_one_line_for_each_scenario() -> None:
    text = as_markdown(answer([row(1), row(2)]))
    assert len([line for line in text.splitlines() if line.startswith("| confidence | 1, 2 |")]) == 1
    assert "2 of 2 rows" in text


def test_a_scenario_that_does_not_exist_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sandbox", "table", "--scenarios", "citatoin", "--out", str(tmp_path / "run")]) == 2
    assert "scenario: no scenario 'citatoin'; known: honest" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
