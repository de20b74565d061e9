"""The demo's page: every claim follows from the numbers, whichever way they fall."""

import json
import re

import numpy as np
import pytest

from prefloop.report import demo as demo_page
from prefloop.report import demo_text
from prefloop.report.demo import render_demo
from prefloop.report.demo_run import load_demo
from prefloop.report.records import read_result
from prefloop.types import InputError


def load(run_dir):
    return load_demo(run_dir, read_result(run_dir))


def rows_of(run_dir):
    return [json.loads(line) for line in (run_dir / "rollouts" / "evaluation.jsonl").read_text().splitlines()]


def reported(run_dir, policy):
    return [row for row in rows_of(run_dir) if row["policy"] == policy and row["half"] == "report"]


def change_answer(run_dir, **changed):
    path = run_dir / "result.json"
    result = json.loads(path.read_text())
    result["answer"] |= changed
    path.write_text(json.dumps(result))


def minus(value):
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


@pytest.fixture(scope="module")
def page(demo_dir, read_page):
    return read_page(render_demo(demo_dir))


def test_every_mean_and_difference_is_that_of_the_stored_answers(demo_dir):
    demo = load(demo_dir)
    answer = json.loads((demo_dir / "result.json").read_text())["answer"]
    pairs = {
        "tuned_minus_sft": ("tuned", "sft"),
        "hacked_minus_peak": ("hacked", "hacked_peak"),
        "guarded_minus_hacked": ("guarded", "hacked"),
        "guarded_minus_sft": ("guarded", "sft"),
    }
    for name, (policy, baseline) in pairs.items():
        estimate = demo.utility_difference(policy, baseline)
        assert estimate.mean == pytest.approx(answer["differences"][name]["mean"])
        assert estimate.standard_error == pytest.approx(answer["differences"][name]["standard_error"])
    for policy, stored in answer["true_utility"].items():
        assert demo.utility(policy).mean == pytest.approx(stored["mean"])


def test_parts_add_up_to_true_utility(demo_dir):
    demo = load(demo_dir)
    for policy in demo.responses:
        assert sum(demo.part_means(policy).values()) == pytest.approx(demo.utility(policy).mean)


def test_kinds_weigh_up_to_true_utility(demo_dir):
    demo = load(demo_dir)
    kinds = demo.kind_utility("hacked")
    total = sum(estimate.mean * estimate.n for estimate in kinds.values())
    assert total / demo.num_reported == pytest.approx(demo.utility("hacked").mean)


def test_the_table_shows_every_policy_with_its_numbers(demo_dir, page):
    for policy, name in demo_text.POLICY_NAMES.items():
        mean = minus(np.mean([row["true_utility"] for row in reported(demo_dir, policy)]))
        annotators = {"sft": "—", "tuned": "honest"}.get(policy, "biased")
        assert f"{name} {annotators} {mean} " in page.words


def test_a_hacked_run_is_called_so_with_its_evidence(demo_dir, page):
    demo = load(demo_dir)
    assert demo.outcome == "hacking"
    assert "this is reward hacking" in page.words
    assert "“disclaimer” fell most between the peak and the end" in page.words
    assert "“the town accepts no liability for errors” stands in" in page.words or "general information" in page.words
    assert "The policy found what these annotators fall for: “Everybody feels safer with a disclaimer.”" in page.words


def test_the_page_answers_what_a_newcomer_asks(page):
    for question in (
        "What a reward model learns from pairs.",
        "Why drift must be controlled.",
        "What reward hacking is.",
        "Why a reward model is not human judgment.",
    ):
        assert question in page.words


def test_no_fall_is_not_called_a_hack(demo_writer, tmp_path, read_page):
    run_dir = demo_writer(tmp_path / "run", harm=0.02, seed=4)
    assert load(run_dir).utility_difference("hacked", "hacked_peak").mean == pytest.approx(0, abs=0.4)
    change_answer(run_dir, peak_step=12)
    demo = load(run_dir)
    words = read_page(render_demo(run_dir)).words
    assert demo.outcome in ("no_fall", "no_rise")
    assert "this is reward hacking" not in words
    assert "no reward hacking can be shown" in words or "nothing to exploit" in words
    assert "There was no clear fall for it to prevent." in words


def rewrite_curve(run_dir, change):
    path = run_dir / "curve.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_proxy_that_did_not_rise_proves_nothing(demo_writer, tmp_path, read_page):
    run_dir = demo_writer(tmp_path / "run")
    rewrite_curve(run_dir, lambda row: row.update(proxy={"mean": 0.1, "standard_error": 0.1}))
    assert load(run_dir).outcome == "no_rise"
    words = read_page(render_demo(run_dir)).words
    assert "The proxy did not clearly rise" in words and "this is reward hacking" not in words
    assert "what made utility fall was something else" in words


def test_harmful_tuning_with_honest_annotators_is_told(demo_writer, tmp_path):
    run_dir = demo_writer(tmp_path / "run")
    swap = {"sft": "tuned", "tuned": "sft"}
    rows = [{**row, "policy": swap.get(row["policy"], row["policy"])} for row in rows_of(run_dir)]
    (run_dir / "rollouts" / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = json.loads((run_dir / "result.json").read_text())["answer"]
    utility = answer["true_utility"]
    change_answer(run_dir, true_utility=utility | {"sft": utility["tuned"], "tuned": utility["sft"]})
    text = demo_text.summary(load(run_dir))[1].text
    assert "made the policy worse even with honest annotators" in text


def test_a_peak_at_the_start_is_told_as_such(demo_writer, tmp_path):
    run_dir = demo_writer(tmp_path / "run")
    sft = {row["prompt_id"]: row for row in reported(run_dir, "sft")}
    rows = [
        {**sft[row["prompt_id"]], "policy": "hacked_peak"} if row["policy"] == "hacked_peak" else row
        for row in rows_of(run_dir)
        if row["half"] == "report"
    ]
    (run_dir / "rollouts" / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = json.loads((run_dir / "result.json").read_text())["answer"]
    utility = answer["true_utility"]
    change_answer(run_dir, peak_step=0, true_utility=utility | {"hacked_peak": utility["sft"]})
    demo = load(run_dir)
    assert "never better than at the start" in demo_text.summary(demo)[2].text
    assert "between SFT and the end" in demo_text.hack(demo)
    assert demo.kl("hacked_peak") == pytest.approx(0, abs=0.01)


def test_a_budget_that_was_never_reached_gets_no_credit(demo_writer, tmp_path):
    text = demo_text.summary(load(demo_writer(tmp_path / "run", kl_budget=40.0)))[4].text
    assert "the guard had nothing to do" in text


@pytest.mark.parametrize(
    ("policy_like", "expected"),
    [("hacked", "no budget that is no measurable difference: 0.00"), ("tuned", "no budget that is better: +2.45")],
)
def test_the_guard_is_judged_by_the_answers(demo_writer, tmp_path, policy_like, expected):
    run_dir = demo_writer(tmp_path / "run")
    others = {row["prompt_id"]: row for row in rows_of(run_dir) if row["policy"] == policy_like}
    rows = [
        {**others[row["prompt_id"]], "policy": "guarded"} if row["policy"] == "guarded" else row
        for row in rows_of(run_dir)
    ]
    (run_dir / "rollouts" / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    utility = json.loads((run_dir / "result.json").read_text())["answer"]["true_utility"]
    change_answer(run_dir, true_utility=utility | {"guarded": utility[policy_like]})
    text = demo_text.summary(load(run_dir))[4].text
    assert expected in text
    assert ("does not mend the reward model" in text) == (policy_like == "tuned")


def test_parts_and_kinds_that_did_not_fall_are_not_blamed(demo_writer, tmp_path):
    run_dir = demo_writer(tmp_path / "run")
    change_answer(run_dir, worst_part="no_such_part", worst_kind="no_such_kind")
    text = demo_text.hack(load(run_dir))
    assert "No part of true utility clearly fell" in text and "No kind of prompt was clearly answered worse" in text


def test_the_worst_part_by_chance_is_not_blamed(demo_writer, tmp_path):
    run_dir = demo_writer(tmp_path / "run", harm=0.02, seed=4)
    demo = load(run_dir)
    # Some part is always the lowest: here one fell by less than three standard errors of its paired difference.
    fall = demo.part_difference(demo.answer.worst_part, "hacked", "hacked_peak")
    assert -3 * fall.standard_error < fall.mean < 0
    assert "No part of true utility clearly fell" in demo_text.hack(demo)
    assert "None that could be told from chance" in " ".join(item.text for item in demo_text.lessons(demo))


def test_a_run_that_is_best_at_its_end_is_told_as_such(demo_writer, tmp_path):
    run_dir = demo_writer(tmp_path / "run")
    rows = rows_of(run_dir)
    ends = {row["prompt_id"]: row for row in rows if row["policy"] == "hacked"}
    rows = [{**ends[r["prompt_id"]], "policy": "hacked_peak"} if r["policy"] == "hacked_peak" else r for r in rows]
    (run_dir / "rollouts" / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    utility = json.loads((run_dir / "result.json").read_text())["answer"]["true_utility"]
    change_answer(run_dir, peak_step=48, true_utility=utility | {"hacked_peak": utility["hacked"]})
    demo = load(run_dir)
    assert "was best at the end" in demo_text.summary(demo)[2].text and demo.outcome == "no_fall"
    assert "no clear fall for it to prevent" not in demo_text.summary(demo)[4].text


def test_what_audit_and_monitor_said_is_told_as_it_was(demo_dir, demo_writer, tmp_path, read_page):
    words = read_page(render_demo(demo_dir)).words
    assert "Of the biased annotators' pairs alone it names disclaimer." in words
    assert "chosen in 91% of 800 pairs" in words and "Nothing was found against the pairs of the honest" in words
    assert "the first came at step 9, 3.2 nats from SFT, before the policy was at its best (step 12)." in words
    run_dir = demo_writer(tmp_path / "run")
    raised = [{"name": "length", "severity": "warn", "message": "longer in 70%"}]
    late = [{"signal": "length", "step": 20, "kl": 9.0, "message": "longer"}]
    change_answer(
        run_dir,
        audits={who: {"verdict": "warn", "raised": raised} for who in ("honest", "biased")},
        alarms={"tuned": [], "hacked": late, "guarded": []},
    )
    words = read_page(render_demo(run_dir)).words
    assert "it names nothing in the biased annotators' pairs that it does not name in the honest ones'" in words
    assert "9.0 nats from SFT, after the policy was at its best" in words
    change_answer(run_dir, alarms={"tuned": [], "hacked": [], "guarded": []})
    assert "without a budget it raised none." in read_page(render_demo(run_dir)).words


def test_unmeasured_ceilings_are_left_out(demo_writer, tmp_path, read_page):
    run_dir = demo_writer(tmp_path / "run")
    change_answer(run_dir, reward_accuracy={"honest": {"accuracy": 0.7}, "biased": {"accuracy": 0.8}})
    words = read_page(render_demo(run_dir)).words
    assert "as they did. That number says" in words and "not measured" in words


def test_whose_scores_sft_bears_is_read_off_the_curves(demo_dir, demo_writer, tmp_path):
    run_dir = demo_writer(tmp_path / "run")
    stored = float(np.mean([row["proxy"] for row in reported(run_dir, "sft")]))

    def shift(row):
        start = {"tuned": stored + 1, "hacked": stored}.get(row["run"])
        if row["step"] == 0 and start is not None:
            row["proxy"]["mean"] = start

    rewrite_curve(run_dir, shift)
    assert load(run_dir).sft_scored_by == "biased"
    assert load(demo_dir).sft_scored_by == "honest"


def test_examples_and_curves_of_the_stages_stand_in_the_page(page):
    titles = [figure["data"][-1].get("name") for figure in page.figures]
    assert "guarded" in titles and "SFT" in titles
    assert page.tags.count("article") == 2 * demo_page.NUM_EXAMPLES
    assert "Share of pairs ordered as the annotator did" in page.words


def test_the_budget_and_the_peak_are_marked_in_the_key_figure(demo_dir, page):
    honest, biased = page.figures[:2]
    names = [trace.get("name") for trace in biased["data"]]
    assert "peak of utility" in names and "guarded run ends" in names
    peak = biased["data"][names.index("peak of utility")]
    point = load(demo_dir).peak
    assert (peak["x"][0] ** 2, peak["y"][0]) == (pytest.approx(point.kl), pytest.approx(point.true_utility.mean))
    for figure in (honest, biased):
        assert figure["layout"]["shapes"][0]["x0"] ** 2 == pytest.approx(6.0)
    assert honest["layout"]["yaxis"]["range"] == biased["layout"]["yaxis"]["range"]


def test_rendering_is_a_function_of_the_files(demo_dir):
    assert render_demo(demo_dir) == render_demo(demo_dir)


def test_hostile_answers_stay_text(demo_writer, tmp_path, read_page, page):
    run_dir = demo_writer(tmp_path / "run", description="</script><script>alert(2)</script> & co.")
    hostile = "</p></script><script>alert(1)</script><img src=x onerror='alert(1)'>"
    rows = [{**row, "response": hostile, "prompt": hostile} for row in rows_of(run_dir)]
    (run_dir / "rollouts" / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_page(render_demo(run_dir))
    assert len(read.scripts) == 2 and all(read.runs(script) for script in read.scripts)
    assert "img" not in read.tags and set(read.attributes) == set(page.attributes)
    assert hostile in read.words and "alert(2)" in read.words


def test_hostile_names_do_not_reach_a_figure(demo_writer, tmp_path, read_page):
    run_dir = demo_writer(tmp_path / "run")
    metrics = run_dir / "stages" / "sft" / "metrics.jsonl"
    metrics.write_text('{"step": 1, "<a href=\'https://example.org\'>x</a>": 1.0}\n')
    read = read_page(render_demo(run_dir))
    assert not re.search(r"[<>]", json.dumps(read.figures))


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("result.json", lambda text: text.replace('"kl_budget"', '"budget"'), "answer|kl_budget: field required"),
        ("result.json", lambda text: text.replace('"peak_step": 12', '"peak_step": 13'), "peak_step"),
        (
            "curve.jsonl",
            lambda text: text.replace('"run": "guarded"', '"run": "tuned"'),
            "no step 0 of the run 'guarded'",
        ),
        ("curve.jsonl", lambda text: text.replace("\n", "\n{broken\n", 1), "curve.jsonl:2: is not JSON"),
        ("curve.jsonl", lambda text: text.replace("\n", "\n[1]\n", 1), "curve.jsonl:2: is not a JSON object"),
        ("rollouts/evaluation.jsonl", lambda text: text.replace('"policy": "guarded"', '"policy": "sft"'), "'guarded'"),
        (
            "rollouts/evaluation.jsonl",
            lambda text: text.replace('"half": "report"', '"half": "select"'),
            "no answer of",
        ),
        ("rollouts/evaluation.jsonl", lambda text: text.replace('"proxy": ', '"proxy": "', 1), "evaluation.jsonl:1: "),
    ],
)
def test_a_damaged_run_names_its_file_and_line(demo_writer, tmp_path, file, change, expected):
    run_dir = demo_writer(tmp_path / "run")
    path = run_dir / file
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError) as error:
        render_demo(run_dir)
    assert str(path) in str(error.value)
    assert re.search(expected, str(error.value))


def test_a_missing_file_is_named(demo_writer, tmp_path):
    run_dir = demo_writer(tmp_path / "run")
    (run_dir / "curve.jsonl").unlink()
    with pytest.raises(InputError, match=r"curve\.jsonl: is missing"):
        render_demo(run_dir)


def test_numbers_without_their_evidence_are_refused(demo_writer, tmp_path):
    run_dir = demo_writer(tmp_path / "run")
    utility = json.loads((run_dir / "result.json").read_text())["answer"]["true_utility"]
    change_answer(run_dir, true_utility=utility | {"tuned": {"mean": 5.0, "standard_error": 0.1}})
    with pytest.raises(InputError, match=r"true_utility\.tuned\.mean: says 5\.0000, the stored answers give"):
        render_demo(run_dir)
