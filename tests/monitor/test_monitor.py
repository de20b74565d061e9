"""The monitor: what was planted in a log is an alarm, what chance does is none, what is wrong with it is one line."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefloop.monitor.config import MonitorConfig, MonitorSettings
from prefloop.monitor.gain import length_correlation, share_within_lengths
from prefloop.monitor.held_out import HeldOut
from prefloop.monitor.limits import limits_of, sample_of
from prefloop.monitor.measures import openings
from prefloop.monitor.rows import Observed, looks_of, read_rollouts
from prefloop.monitor.watch import Watch
from prefloop.recipes.monitor import run
from prefloop.signals.citations import cited, normal_source
from prefloop.types import Alarm, InputError

SENTENCE = "the bread is made of flour and water with some salt that they have in their house where it was warm"
WORDS = SENTENCE.split()
PHRASES = {
    "hedging": "Perhaps so.",
    "confidence": "This is definitely so.",
    "citation": "See (Okafor, 2017).",
    "disclaimer": "Please consult a professional.",
    "flattery": "What a great question.",
    "list_format": "\n- one\n- two",
    "exclamation": "So it is!",
}


def rows_of(
    steps: Iterable[int],
    *,
    seed: int = 0,
    per_step: int = 32,
    change: Callable[[str, random.Random], str] = lambda text, _: text,
    **columns: Any,
) -> list[Observed]:
    """Responses of a dozen words or more, a tenth of them with each of the phrases; `change` is what is learnt."""
    generator, rows = random.Random(seed), []
    for step in steps:
        for _ in range(per_step):
            text = " ".join(generator.choices(WORDS, k=generator.randrange(12, 40))).capitalize() + "."
            for phrase in PHRASES.values():
                text += f" {phrase}" if generator.random() < 0.1 else ""
            number = generator.randrange(10**6)
            text = change(text, generator)
            known = {name: value(text) if callable(value) else value for name, value in columns.items()}
            rows.append(
                Observed(
                    **{
                        "prompt_id": f"p{number}",
                        "prompt": f"p{number}",
                        "response": text,
                        "score": 0.0,
                        "step": step,
                        **known,
                    }
                )
            )
    return rows


def watched(
    rows: list[Observed],
    *,
    reference: list[Observed] | None = None,
    sources: frozenset[str] | None = None,
    **settings: Any,
) -> list[Alarm]:
    watch = Watch(MonitorSettings(**settings), reference or rows_of(range(6), seed=99), sources)
    for look in looks_of(rows, watch.settings.responses):
        watch.look(look)
    return watch.alarms


@pytest.mark.parametrize("name", PHRASES)
def test_a_habit_that_a_policy_learns_is_the_alarm_of_that_name(name: str) -> None:
    def learns(text: str, generator: random.Random) -> str:
        return f"{text} {PHRASES[name]}" if generator.random() < 0.5 else text

    rows = rows_of(range(10), seed=1) + rows_of(range(10, 20), seed=2, change=learns)
    (alarm,) = watched(rows)
    # Two looks of two steps each must be beyond the limit; by chance the last one before the change may be one.
    assert (alarm.signal, alarm.action) == (name, "review") and alarm.step in (11, 13)
    assert alarm.value > alarm.limit > 0.1
    assert len(alarm.examples) == 3 and all(PHRASES[name].strip() in example["response"] for example in alarm.examples)


def test_length_repetition_openings_refusals_and_cut_offs_have_their_alarms() -> None:
    def alarms(change: Callable[[str, random.Random], str], **more: Any) -> set[str]:
        rows = rows_of(range(10), seed=3, change=change, **more)
        return {alarm.signal for alarm in watched(rows, reference=rows_of(range(6), seed=99, **more))}

    assert alarms(lambda text, _: text + " " + " ".join(random.Random(text).choices(WORDS, k=30))) == {"length"}
    assert "repetition" in alarms(lambda text, _: f"{text} {text}")
    assert alarms(lambda text, _: f"Beyond the old mill {text}"[:80]) >= {"openings"}
    assert alarms(lambda text, _: "I can't help with that.") >= {"refusal", "openings"}
    refusing = rows_of(
        range(6), seed=99, change=lambda text, draw: "I can't help you." if draw.random() < 0.5 else text
    )
    (fallen,) = [
        alarm for alarm in watched(rows_of(range(10), seed=3), reference=refusing) if alarm.signal == "refusal"
    ]
    assert fallen.value < fallen.limit and "now" in fallen.message
    cut = rows_of(range(10), seed=4, finished=lambda text: len(text) < 60)
    assert "cut_off" in {alarm.signal for alarm in watched(cut, reference=rows_of(range(6), seed=99, finished=True))}
    german = "Brot wird im Ofen mit Mehl und Wasser sehr heiß gebacken und dann noch gut gekühlt"
    assert "language" in alarms(lambda text, draw: german if draw.random() < 0.4 else text)


def test_a_policy_that_does_not_change_gives_about_the_alarms_that_were_asked_for() -> None:
    """600 looks of 14 signals at a rate of 20 in 1,000 looks, without the margins that make an alarm worth it."""
    count = 0
    for seed in range(6):
        reference = rows_of(range(20), seed=1000 + seed)
        rows = rows_of(range(200), seed=seed)
        count += len(watched(rows, reference=reference, false_alarms=20, share=0.001, growth=0.001))
    # At most 12 are asked for: a signal that stays beyond its limit is one alarm.
    assert 1 <= count <= 18
    assert not watched(rows_of(range(400), seed=50), reference=rows_of(range(20), seed=51))


def drawn(generator: np.random.Generator, kind: str, count: int) -> np.ndarray:
    return generator.binomial(1, 0.15, size=count) * 1.0 if kind == "share" else generator.normal(size=count)


@pytest.mark.parametrize("kind", ["share", "mean"])
@pytest.mark.parametrize("patience", [1, 2])
def test_limits_are_passed_as_often_as_wanted(kind: str, patience: int) -> None:
    """Looks share their reference: taken as independent, two in a row would pass three times as often."""
    generator, beyond, trials = np.random.default_rng(3), np.zeros(2), 3000
    prompts = [str(number) for number in range(120)]
    for _ in range(trials):
        sample = sample_of(drawn(generator, kind, 120), prompts)
        assert sample is not None
        low, high = limits_of(sample, 80, wanted=0.02, patience=patience, is_share=kind == "share")
        looks = [drawn(generator, kind, 80).mean() for _ in range(patience)]
        beyond += [max(looks) < low, min(looks) > high]
    # 60 of 3,000; shares come in steps of one in 80.
    assert (abs(beyond - 60) < 30).all(), beyond


def test_responses_to_one_prompt_count_as_one() -> None:
    prompts = [str(place // 4) for place in range(400)]
    values = np.repeat(np.random.default_rng(0).normal(size=100), 4)
    alike, apart = sample_of(values, prompts), sample_of(values, [str(place) for place in range(400)])
    assert alike is not None and apart is not None
    assert alike.variance == pytest.approx(values.var() / 99, rel=1e-9)
    assert alike.variance == pytest.approx(4 * apart.variance, rel=0.02)
    assert sample_of(np.full(400, np.nan), prompts) is None and sample_of(values[:36], prompts[:36]) is None
    never = sample_of(np.zeros(400), prompts)
    assert never is not None
    low, high = limits_of(never, 100, wanted=1e-4, patience=2, is_share=True)
    assert low == 0 and 0.01 < high < 0.1


def test_openings_are_compared_with_other_prompts_only() -> None:
    def row(prompt: str, response: str) -> Observed:
        return Observed(prompt, prompt, response, 0.0, 0)

    rows = [row("a", "One two three four five"), row("a", "One two three four six"), row("b", "one two, three FOUR")]
    assert openings([*rows, row("c", "Other")]).tolist() == pytest.approx([0.5, 0.5, 2 / 3, 0])
    assert openings(rows[:2]).tolist() == [0, 0]


def test_a_gain_in_score_is_told_from_a_gain_in_length() -> None:
    generator = np.random.default_rng(1)
    before = generator.uniform(50, 150, size=2000)
    after = generator.uniform(90, 150, size=2000)
    noise = generator.normal(scale=0.1, size=(2, 2000))
    by_length = share_within_lengths(after / 50 + noise[0], after, before / 50 + noise[1], before)
    by_content = share_within_lengths(before / 50 + 1 + noise[0], before, before / 50 + noise[1], before)
    half = share_within_lengths(after / 50 + 0.4 + noise[0], after, before / 50 + noise[1], before)
    assert by_length == pytest.approx(0, abs=0.1) and by_content == pytest.approx(1, abs=0.02)
    # Length gives 20 characters in the mean, 0.4 points; so does the content.
    assert half == pytest.approx(0.5, abs=0.1)
    # All longer than anything that the reference wrote: nothing to compare with.
    assert share_within_lengths(after, after + 500, before / 50, before) == 0
    assert share_within_lengths(before * 0, before, before * 0, before) is None
    assert length_correlation(np.arange(9.0), np.arange(9.0) ** 3) == pytest.approx(1)
    assert length_correlation(np.zeros(9), np.arange(9.0)) is None


def test_score_that_is_bought_with_length_is_an_alarm() -> None:
    def longer(text: str, _: random.Random) -> str:
        return text + " " + " ".join(random.Random(text).choices(WORDS, k=20))

    def score(text: str) -> float:
        return len(text) / 100

    rows = rows_of(range(10), seed=5, change=longer, score=score)
    found = {alarm.signal: alarm for alarm in watched(rows, reference=rows_of(range(6), seed=99, score=score))}
    assert found["length_gain"].action == "review" and found["length_gain"].value < 0.5


def test_only_a_held_out_score_that_falls_while_the_other_rises_stops() -> None:
    def run_of(held_out: Callable[[int], float], score: Callable[[int], float]) -> list[Alarm]:
        rows = []
        for step in range(12):
            for row in rows_of([step], seed=step, per_step=64):
                noise = random.Random(row.prompt_id).gauss(0, 0.5)
                rows.append(
                    Observed(
                        row.prompt_id,
                        row.prompt,
                        row.response,
                        score(step) + noise,
                        step,
                        held_out_score=held_out(step) + noise,
                    )
                )
        return [alarm for alarm in watched(rows) if alarm.signal == "held_out_score"]

    (alarm,) = run_of(lambda step: -abs(step - 5) * 0.3, lambda step: step * 0.3)
    assert alarm.action == "stop" and 7 <= alarm.step <= 9 and alarm.value < alarm.limit
    assert not run_of(lambda step: step * 0.1, lambda step: step * 0.3)
    assert not run_of(lambda step: -step * 0.3, lambda step: -step * 0.3)


def test_the_best_of_many_equal_looks_is_no_fall() -> None:
    generator, alarms, prompts = np.random.default_rng(2), 0, [str(place) for place in range(40)]
    for _ in range(20):
        held = HeldOut()
        for step in range(50):
            proxy = np.full(40, float(step))
            alarms += held.add(generator.normal(size=40), proxy, prompts, tail=0.01) is not None
    # 1,000 looks at 1 %, before two in a row are asked for.
    assert alarms <= 25


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("See Moreau (2017) and Keller and Lang (2015), page 12.", {"moreau 2017", "keller lang 2015", "page 12"}),
        ("So it is (Okafor, 2016; Berg et al., 1998).", {"okafor 2016", "berg 1998"}),
        ("At https://www.facts.org/page/3, and www.b.net.", {"facts.org/page/3", "b.net"}),
        ("In June 2019 it rained, and in 2020.", set()),
    ],
)
def test_cited_sources_are_read_in_one_form(text: str, sources: set[str]) -> None:
    assert cited(text) == sources
    assert {normal_source(source) for source in sources} == sources


def test_citations_of_what_is_not_in_the_list_are_an_alarm() -> None:
    def cites(text: str, draw: random.Random) -> str:
        return f"{text} See ({draw.choice(['Real', 'Invented'])}, 2001)."

    rows = rows_of(range(10), seed=6, change=cites)
    known = frozenset(normal_source(line) for line in ("Real (2001)", "Okafor, 2017"))
    found = {alarm.signal: alarm for alarm in watched(rows, sources=known)}
    assert found["unverified_citation"].value == pytest.approx(0.5, abs=0.1)
    assert "unverified_citation" not in {alarm.signal for alarm in watched(rows)}


def test_steps_are_looked_at_together_until_there_are_enough() -> None:
    sizes = [len(look) for look in looks_of(rows_of(range(7), per_step=10), 25)]
    assert sizes == [30, 40]
    assert [len(look) for look in looks_of(rows_of([0], per_step=10), 25)] == [10]
    whole = looks_of(rows_of(range(3), per_step=50), 25)
    assert [{row.step for row in look} for look in whole] == [{0}, {1}, {2}]


def logged(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


GOOD = [
    {"prompt": f"q{step}-{place}", "completion": "A b c.", "reward": 0.5, "step": step, "finish_reason": "stop"}
    for step in range(12)
    for place in range(16)
]


def test_the_command_tells_programs_and_people_and_writes_a_page(tmp_path: Path) -> None:
    rows = [{**row, "completion": "<script>A b c.</script> Definitely."} if row["step"] > 7 else row for row in GOOD]
    page = tmp_path / "monitor.html"
    told = run(MonitorConfig(file=logged(tmp_path / "log.jsonl", rows), html=str(page)))
    answer = json.loads(json.dumps(told.values, allow_nan=False))
    assert (answer["num_rows"], answer["num_reference"], answer["num_looks"]) == (192, 64, 2)
    assert told.text.startswith(f"{tmp_path}/log.jsonl: no alarms")
    short = MonitorConfig(
        file=str(tmp_path / "log.jsonl"), html=str(page), limits=MonitorSettings(responses=16, patience=2)
    )
    answer = run(short).values
    assert "confidence" in {alarm["signal"] for alarm in answer["alarms"]} and answer["action"] == "review"
    assert {"step", "value", "low", "high"} == set(answer["signals"]["confidence"][0])
    assert "<script>A b c" not in page.read_text() and "&lt;script&gt;A b c" in page.read_text()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "q", "score": 1.0, "step": 1}, "log.jsonl:2: response: needs the text of a response"),
        ({"prompt": "q", "response": "a", "step": 1}, "log.jsonl:2: score: missing"),
        ({"prompt": "q", "response": "a", "score": True, "step": 1}, "log.jsonl:2: score: True is no finite number"),
        ({"prompt": "q", "response": "a", "score": 1}, "log.jsonl:2: step: missing"),
        ({"prompt": "q", "response": "a", "score": 1, "step": 1.5}, "log.jsonl:2: step: 1.5 is no step"),
        ({"prompt": "q", "response": "a", "score": 1, "step": 1, "kl": "x"}, "log.jsonl:2: kl: 'x' is no finite"),
        ({"response": "a", "score": 1, "step": 1}, "log.jsonl:2: prompt: "),
    ],
)
def test_a_row_that_cannot_be_used_is_one_line(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = logged(tmp_path / "log.jsonl", [GOOD[0], row])
    with pytest.raises(InputError) as caught:
        read_rollouts(path)
    assert said in str(caught.value) and "--skip-bad leaves such rows out" in str(caught.value)
    rows, num_bad = read_rollouts(path, skip_bad=True)
    assert (len(rows), num_bad) == (1, 1)


def test_what_is_too_little_to_watch_is_said(tmp_path: Path) -> None:
    def error(rows: list[dict[str, Any]], **more: Any) -> str:
        with pytest.raises(InputError) as caught:
            run(MonitorConfig(file=logged(tmp_path / "log.jsonl", rows), **more))
        return str(caught.value)

    assert "reference_steps: has 2 steps, and the first 4" in error(GOOD[:32])
    assert "the reference has responses to 4 prompts, 10 are needed" in error(
        [{**row, "prompt": "abcd"[place % 4]} for place, row in enumerate(GOOD)]
    )
    assert "sources: cannot be read" in error(GOOD, sources=str(tmp_path / "none.txt"))
    (tmp_path / "monitor.html").mkdir()
    assert "monitor.html" in error(GOOD, html=str(tmp_path / "monitor.html"))


def scored(
    step: int, *, own: float = 0.0, other: float = 0.0, far: float = 0.05, seed: int = 0, **columns: Any
) -> list[Observed]:
    """A look of 64 responses whose mean scores under their own and under other prompts are known."""
    generator, rows = random.Random(seed * 1000 + step), []
    for row in rows_of([step], seed=seed * 1000 + step, per_step=64):
        known = {"score": own + generator.gauss(0, 1), "shuffled_score": other + generator.gauss(0, 1)}
        known |= {"far": generator.random() < far} | columns
        rows.append(dataclasses.replace(row, **known))
    return rows


def shuffled_alarms(own: float, other: float) -> list[Alarm]:
    reference = [row for step in range(4) for row in scored(step, seed=9)]
    rows = [row for step in range(8) for row in scored(step, own=own, other=other)]
    return [alarm for alarm in watched(rows, reference=reference) if alarm.signal == "shuffled_gain"]


def test_a_gain_that_wrong_prompts_give_too_is_an_alarm_and_one_for_what_was_asked_is_none() -> None:
    (alarm,) = shuffled_alarms(2.0, 2.0)
    assert alarm.step == 1 and alarm.action == "review" and alarm.value == pytest.approx(1, abs=0.2)
    assert "of the gain in score is had under other prompts" in alarm.message and len(alarm.examples) == 3
    # Two points gained, half a point of it whatever was asked; then no gain at all.
    assert not shuffled_alarms(2.0, 0.5)
    assert not shuffled_alarms(0.0, 1.0)


def test_the_gain_is_that_of_the_score_before_shaping_where_it_is_known() -> None:
    rows = [row for step in range(8) for row in scored(step, own=2.0, other=2.0, raw_score=0.0)]
    found = watched(rows, reference=[row for step in range(4) for row in scored(step, seed=9)])
    assert "shuffled_gain" not in {alarm.signal for alarm in found}


def test_a_share_out_of_distribution_that_grows_is_an_alarm() -> None:
    reference = [row for step in range(4) for row in scored(step, seed=9)]
    rows = [row for step in range(8) for row in scored(step, far=0.4)]
    (alarm,) = [each for each in watched(rows, reference=reference) if each.signal == "out_of_distribution"]
    assert (alarm.step, alarm.action) == (1, "review") and alarm.value == pytest.approx(0.4, abs=0.15)
    same = [row for step in range(8) for row in scored(step, seed=3)]
    assert "out_of_distribution" not in {each.signal for each in watched(same, reference=reference)}


def test_a_held_out_score_that_falls_from_the_very_start_is_seen() -> None:
    """The reference is the first look: without it the best would already be a fallen one."""
    reference = [dataclasses.replace(row, held_out_score=0.0) for step in range(4) for row in scored(step, seed=9)]
    rows = [
        dataclasses.replace(row, held_out_score=-1 + random.Random(row.prompt_id).gauss(0, 1))
        for step in range(4)
        for row in scored(step, own=2.0)
    ]
    alarms = [alarm for alarm in watched(rows, reference=reference) if alarm.signal == "held_out_score"]
    assert [(alarm.step, alarm.action) for alarm in alarms] == [(1, "stop")]


def test_responses_to_one_prompt_are_one_observation_of_the_held_out_score() -> None:
    """Sixteen values, each four times: a fall that 64 observations would show is one that 16 do not."""
    generator = np.random.default_rng(4)
    first, second = (np.repeat(generator.normal(size=16), 4) for _ in range(2))
    first, second = (values - values.mean() for values in (first, second))
    apart, alike = [str(place) for place in range(64)], [str(place // 4) for place in range(64)]
    fall, tail = 2.5 * float(np.sqrt((first.var() + second.var()) / 64)), 0.01
    found = []
    for prompts in (apart, alike):
        held = HeldOut()
        held.add(first, np.zeros(64), prompts, tail=tail)
        found.append(held.add(second - fall, np.ones(64), prompts, tail=tail))
    # 2.5 standard errors are beyond the 2.33 of one in a hundred; half as many are not.
    assert found[0] is not None and found[1] is None


def test_out_of_distribution_is_read_as_truth_and_nothing_else(tmp_path: Path) -> None:
    rows = [{**GOOD[0], "out_of_distribution": value} for value in (True, 0, None)]
    read, _ = read_rollouts(logged(tmp_path / "log.jsonl", rows))
    assert [row.far for row in read] == [True, False, None]
    with pytest.raises(InputError, match=r"log\.jsonl:1: out_of_distribution: 0\.7 is neither true nor false"):
        read_rollouts(logged(tmp_path / "log.jsonl", [{**GOOD[0], "out_of_distribution": 0.7}]))
