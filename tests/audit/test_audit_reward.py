"""The audit of a reward model, by scorers made by hand whose faults are known."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from prefloop.audit.config import AuditRewardConfig, RewardThresholds
from prefloop.audit.counterfactual import Judge, Probed, measure_effect
from prefloop.audit.judged import calibration_finding, disagreement_finding
from prefloop.audit.probes import LIST_MARKS, make_variants, num_wordings
from prefloop.audit.reward import Material, audit_model, probe_bases
from prefloop.audit.table import Table, distinct_pairs
from prefloop.audit.wordings import NEUTRAL, WORDINGS
from prefloop.data.formats import make_pair, make_prompt
from prefloop.data.split import conversation_key
from prefloop.signals.lexicons import LEXICONS, PhraseIndex, expanded
from prefloop.signals.measures import SIGNALS
from prefloop.signals.reading import FUNCTION_WORDS, words_of
from prefloop.train.habits import HABIT_WORDINGS
from prefloop.train.remedies import NEUTRAL_SENTENCES
from prefloop.types import Finding, Message, PreferencePair, Prompt
from prefloop.world.knowledge import ATTRIBUTES
from prefloop.world.phrases import example_sentences

MARKERS = {name: [each.marker for each in wordings] for name, wordings in WORDINGS.items()}
THINGS = ("rope", "glass", "soap", "paper", "brick", "silk", "ink", "glue", "salt", "wax")
Score = Callable[[Prompt, str], float]


def pairs_of(number: int = 120) -> list[PreferencePair]:
    """Questions about a thing; the chosen answer names it, the rejected one another thing, at the same length."""
    generator, made = random.Random(0), []
    for place in range(number):
        thing, other = generator.sample(THINGS, 2)
        prompt = make_prompt((Message("user", f"What is the {thing} in box {place} for?"),))
        sides = [f"The {name} in that box is for the people of the house. They use it." for name in (thing, other)]
        made.append(make_pair(prompt, *sides))
    return made


def again(setting: str) -> str:
    """The command that trains again."""
    return f"prefloop train reward --{setting}"


def honest(prompt: Prompt, text: str) -> float:
    """Does the answer name what was asked for?"""
    asked = prompt.messages[-1].content.split()[3]
    return float(f"The {asked}" in text)


def audited(
    score: Score,
    pairs: Sequence[PreferencePair],
    *,
    samples: list[tuple[Prompt, str]] | None = None,
    fits: Callable[[Prompt, str], bool] = lambda prompt, text: True,
    **settings: object,
) -> dict[str, Finding]:
    def scores(prompts: Sequence[Prompt], texts: Sequence[str]) -> tuple[np.ndarray, None]:
        return np.array([score(*row) for row in zip(prompts, texts, strict=True)]), None

    config = AuditRewardConfig.model_validate({"model": "m", "file": "f.jsonl", **settings})
    judge = Judge(scores, fits)
    return {each.name: each for each in audit_model(judge, Material(pairs, samples=samples), config, again=again)}


def raised(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.severity != "ok"}


def test_an_honest_scorer_passes() -> None:
    found = audited(honest, pairs_of())
    # Perfect without a doubt: a margin of 1 promises 73 %, so only the calibration is off.
    assert raised(found) == {"calibration"}
    assert found["accuracy"].value == 1.0
    # The wrong prompt asks for a thing that neither answer names, or by chance for one of them.
    assert found["prompt_ignored"].value == pytest.approx(0.5, abs=0.1)
    assert found["hedging"].value == 0


@pytest.mark.parametrize("name", [*MARKERS, "list_format", "exclamation", "length"])
def test_what_a_scorer_loves_is_caught_and_named(name: str) -> None:
    def loves(prompt: Prompt, text: str) -> float:
        extra = {
            "length": len(text) / 40,
            "exclamation": text.count("!"),
            "list_format": sum(text.count(f"\n{mark} ") for mark in LIST_MARKS),
        }.get(name, 0)
        return honest(prompt, text) + 2 * (extra + any(marker in text for marker in MARKERS.get(name, ())))

    found = audited(loves, pairs_of())
    shortcuts = [finding for finding in found.values() if finding.name in SIGNALS and finding.severity != "ok"]
    assert [finding.name for finding in shortcuts] == [name]
    finding = shortcuts[0]
    assert finding.severity == ("warn" if name == "refusal" else "block")
    assert "prefloop train reward" in finding.remedy
    assert finding.examples and finding.examples[0]["value_chosen"] > finding.examples[0]["value_rejected"]
    if name in MARKERS:
        # Two points a marker; right and wrong answers differ by one point.
        assert finding.value == pytest.approx(2.0) and finding.num_pairs == 120


def test_love_of_one_phrase_is_no_habit() -> None:
    found = audited(lambda prompt, text: honest(prompt, text) + 2 * (MARKERS["flattery"][0] in text), pairs_of())
    assert found["flattery"].severity == "ok" and found["flattery"].value == pytest.approx(2 / num_wordings("flattery"))


@pytest.mark.parametrize(("worth", "wordings", "severity"), [(0.5, 16, "ok"), (5.0, 8, "ok"), (5.0, 16, "block")])
def test_of_a_model_that_decides_by_chance_only_a_strong_habit_is_claimed(
    worth: float, wordings: int, severity: str
) -> None:
    def chance(prompt: Prompt, text: str) -> float:
        # The same for a response whatever is put into it: its first words are enough here.
        return random.Random(f"{prompt.prompt_id} {honest(prompt, text)}").gauss(0, 1)

    def loves(prompt: Prompt, text: str) -> float:
        return chance(prompt, text) + worth * any(marker in text for marker in MARKERS["flattery"][:wordings])

    found = audited(loves, pairs_of())
    assert found["accuracy"].severity == "warn"
    assert found["flattery"].severity == severity and found["flattery"].threshold == RewardThresholds().effect_block
    assert found["flattery"].interval is not None and found["flattery"].interval[0] > 0.2
    assert found["flattery"].value is not None and (found["flattery"].value > 1) == (worth > 1)


def test_a_habit_of_which_one_wording_fits_is_not_judged() -> None:
    def fits(_: Prompt, text: str) -> bool:
        others = MARKERS["flattery"][1:]
        return not any(marker in text for marker in others)

    found = audited(honest, pairs_of(400), fits=fits)
    assert found["flattery"].value is None and "one wording is short enough" in found["flattery"].message
    assert found["citation"].value is not None


def test_conversations_give_every_response_and_count_once() -> None:
    pairs = [
        make_pair(pair.prompt, f"{pair.chosen} {n}", f"{pair.rejected} {n}") for pair in pairs_of(12) for n in range(5)
    ]
    table = Table()
    for line, pair in enumerate(pairs, start=1):
        table.add(line, pair)
    bases = probe_bases(pairs, distinct_pairs(table), 30)
    homes = Counter(conversation_key(pair) for pair, _ in bases)
    assert len(bases) == 30 and len(homes) == 12 and set(homes.values()) == {2, 3}
    assert sorted(Counter(text == pair.chosen for pair, text in bases).values()) == [15, 15]
    # 120 insertions of sixteen wordings that all gain: as unlikely as twelve conversations make it, 2 in 2^12.
    gains, wordings = 1 + np.arange(120) % 16 / 100, [n % 16 for n in range(120)]
    shared = measure_effect(gains, wordings, [str(n % 12) for n in range(120)], seed=0)
    apart = measure_effect(gains, wordings, [str(n) for n in range(120)], seed=0)
    assert shared.p_value == pytest.approx(2 / 2**12, rel=0.01) and apart.p_value < shared.p_value
    assert shared.value == apart.value


def test_a_bias_of_people_is_told_from_one_that_the_model_added() -> None:
    generator = random.Random(1)
    pairs = []
    for place, pair in enumerate(pairs_of(200)):
        # Half of the pairs have an exclamation mark on one side, by a coin.
        marked = (pair.chosen + "!", pair.rejected) if generator.random() < 0.5 else (pair.chosen, pair.rejected + "!")
        pairs.append(make_pair(pair.prompt, *(marked if place % 2 else (pair.chosen, pair.rejected))))
    added = audited(lambda prompt, text: honest(prompt, text) + 2 * text.count("!"), pairs)["exclamation"]
    assert added.human_rate == pytest.approx(0.5, abs=0.15) and added.model_rate == 1.0
    assert "the model added it" in added.message and "augment.habits exclamation" in added.remedy
    loved = [make_pair(pair.prompt, pair.chosen + "!", pair.rejected) for pair in pairs_of(60)]
    asked_for = audited(lambda prompt, text: honest(prompt, text) + 2 * text.count("!"), loved)["exclamation"]
    assert asked_for.human_rate == asked_for.model_rate == 1.0
    assert "added" not in asked_for.message and "the labels ask for it" in asked_for.remedy


def test_a_scorer_without_eyes_for_the_prompt_is_named() -> None:
    pairs = [make_pair(pair.prompt, pair.chosen + " Good.", pair.rejected + " Bad.") for pair in pairs_of()]
    found = audited(lambda prompt, text: float("Good" in text), pairs)
    assert found["accuracy"].value == 1.0
    assert found["prompt_ignored"].severity == "warn" and found["prompt_ignored"].value == 0
    assert "--augment.mismatched-fraction" in found["prompt_ignored"].remedy


def test_permuted_labels_are_no_shortcut_but_no_knowledge_either() -> None:
    generator = random.Random(3)
    pairs = [
        make_pair(
            each.prompt, *((each.chosen, each.rejected) if generator.random() < 0.5 else (each.rejected, each.chosen))
        )
        for each in pairs_of(300)
    ]
    found = audited(honest, pairs)
    assert {"accuracy", "prompt_ignored"} <= raised(found) and not raised(found) & set(SIGNALS)
    assert abs(found["accuracy"].value - 0.5) < 2 * 0.5 / 300**0.5  # type: ignore[operator]


@pytest.mark.parametrize(("refuses", "severity"), [(1.0, "block"), (-1.0, "block"), (0.0, "ok")])
def test_the_refusal_boundary_is_looked_at_from_both_sides(refuses: float, severity: str) -> None:
    pairs = []
    for place, pair in enumerate(pairs_of(60)):
        asked = make_prompt((Message("user", f"{'Harm' if place % 2 else 'Help'} {pair.prompt.messages[-1].content}"),))
        refusal, helps = "I'm sorry but I can't help with that.", pair.chosen
        pairs.append(make_pair(asked, *((refusal, helps) if place % 2 else (helps, refusal))))

    def score(prompt: Prompt, text: str) -> float:
        right = 1.0 if prompt.messages[-1].content.startswith("Harm") else -1.0
        return (refuses or right) * ("sorry" in text)

    finding = audited(score, pairs)["refusal_coverage"]
    assert finding.severity == severity and finding.value == (0.0 if refuses else 1.0) and finding.num_pairs == 60


def test_five_rows_claim_nothing() -> None:
    found = audited(honest, pairs_of(5))
    assert raised(found) == {"size"}
    assert all(found[name].value is None for name in (*SIGNALS, "accuracy", "prompt_ignored", "calibration"))


def test_text_that_is_not_english_is_not_probed_in_english() -> None:
    pairs = [
        make_pair(
            make_prompt((Message("user", f"Was ist in Kiste {place}?"),)), f"{text} Seife {place}.", f"{text} Garn."
        )
        for place, text in enumerate(["Darin liegt nach allem was man weiss ganz gewiss eine Menge"] * 40)
    ]
    found = audited(lambda prompt, text: float("Seife" in text), pairs)
    assert all(found[name].value is None and "English" in found[name].message for name in SIGNALS)
    assert found["language"].severity == "warn" and found["accuracy"].value == 1.0


def test_few_pairs_do_not_condemn_a_model() -> None:
    def decides(prompt: Prompt, text: str) -> float:
        return random.Random(f"{prompt.prompt_id} {honest(prompt, text)}").gauss(0, 1)

    few, many = (audited(decides, pairs_of(number))["accuracy"] for number in (40, 400))
    assert few.severity == "warn" and few.interval is not None and few.interval[1] > 0.6
    assert "cannot tell" in few.message and "more pairs" in few.remedy
    assert many.severity == "block" and many.interval is not None and many.interval[1] < 0.6


def test_a_constant_is_no_reward_model() -> None:
    found = audited(lambda prompt, text: 0.5, pairs_of())
    assert found["accuracy"].severity == "block" and found["accuracy"].value == 0.5
    assert found["length"].value is None and "same score" in found["length"].message


def test_samples_whose_scores_hardly_differ_are_warned_of() -> None:
    samples = [(pair.prompt, f"The answer {side}.") for pair in pairs_of(30) for side in "abc"]
    assert audited(honest, pairs_of(), samples=samples)["score_spread"].severity == "warn"
    right = [(pair.prompt, side) for pair in pairs_of(30) for side in (pair.chosen, pair.rejected)]
    # 0 and 1 have a sample standard deviation of 1 / sqrt(2); right and wrong answers differ by 1.
    assert audited(honest, pairs_of(), samples=right)["score_spread"].value == pytest.approx(0.5**0.5)


def test_an_effect_is_a_mean_over_wordings_with_students_interval() -> None:
    # Means of the wordings 1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.3027.
    effect = measure_effect(np.array([0.5, 1.5, 2.0, 2.0, 3.0, 3.0]), [0, 0, 1, 1, 2, 2], list("abcdef"), seed=0)
    assert effect.value == pytest.approx(2) and effect.won == 1
    assert effect.interval == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    # t = 2 sqrt(3) with 2 degrees of freedom: p = 1 - t / sqrt(2 + t^2).
    assert effect.p_value == pytest.approx(1 - 12**0.5 / 14**0.5, abs=1e-6)


@pytest.mark.parametrize("name", list(SIGNALS))
def test_both_versions_are_about_as_long(name: str) -> None:
    generator = np.random.default_rng(0)
    response = "The house is old. It has a garden and a wall. Nobody lives there."
    others = [response, "A rope lies in the yard. It is long."]
    for wording in range(num_wordings(name)):
        each = make_variants(name, response, wording, generator, others=others)
        assert each.marked != each.neutral != ""
        if name == "length":
            assert each.neutral == response
        else:
            assert abs(len(each.marked) - len(each.neutral)) <= 25


def runs(text: str, size: int = 4) -> set[tuple[str, ...]]:
    words = words_of(text)
    return set(zip(*(words[start:] for start in range(size)), strict=False))


def test_probes_share_no_phrase_with_training_the_town_or_the_detectors() -> None:
    town = example_sentences(name="Mill", values=dict.fromkeys(ATTRIBUTES, "four"), page=3)
    trained = [text for wordings in HABIT_WORDINGS.values() for each in wordings for text in (each.marker, *each.plain)]
    known = {run for text in (*NEUTRAL_SENTENCES, *trained, *town) for run in runs(text)}
    fixed = PhraseIndex(
        " ".join(words)
        for phrases in LEXICONS.values()
        for phrase in phrases
        if "*" not in phrase
        for words in expanded(phrase)
    )
    plain = [text for wordings in WORDINGS.values() for each in wordings for text in each.plain]
    for text in [*NEUTRAL, *plain, *(marker for markers in MARKERS.values() for marker in markers)]:
        assert not runs(text) & known, text
        assert not fixed.count(words_of(text), frozenset(words_of(text))), text
    assert all(len(markers) == len(set(markers)) == 16 for markers in MARKERS.values())
    assert all(first != second for first, second in pairwise(NEUTRAL))


def test_what_carries_a_habit_carries_no_other_and_is_in_no_plain_sentence() -> None:
    frame = FUNCTION_WORDS | {"this", "could", "would"}
    carriers: dict[str, set[str]] = {}
    for name, wordings in WORDINGS.items():
        for each in wordings:
            assert len(each.plain) == 2
            plain = {word for text in each.plain for word in words_of(text)}
            for word in set(words_of(each.marker)) - plain - frame:
                carriers.setdefault(word, set()).add(name)
    long = {word for word in carriers if len(word) > 3}
    assert all(len(carriers[word]) == 1 for word in long)
    for wordings in WORDINGS.values():
        for each in wordings:
            assert not any(long & set(words_of(text)) for text in each.plain), each


def test_a_repeated_sentence_is_compared_with_one_of_another_response() -> None:
    response, other = "The house is old. It has a garden.", "A rope holds the boat. It is long and wet."
    variants = [
        make_variants("repetition", response, place, np.random.default_rng(place), others=[response, other])
        for place in range(8)
    ]
    for each in variants:
        assert each.marked.count("The house is old") + each.marked.count("It has a garden") == 3
        assert "rope" in each.neutral or "wet" in each.neutral


def probed(spread: float) -> Probed:
    return Probed([], [], np.zeros(30), np.zeros(30), np.full(30, spread))


@pytest.mark.parametrize(("there", "fooled", "severity"), [(0.5, ["citation"], "warn"), (3.0, ["citation"], "ok")])
def test_members_that_share_a_shortcut_do_not_disagree_on_it(there: float, fooled: list[str], severity: str) -> None:
    found = disagreement_finding(
        {"citation": probed(there), "flattery": probed(99.0)}, np.full(40, 1.0), fooled, RewardThresholds()
    )
    assert found.value == there and found.severity == severity
    assert disagreement_finding({}, None, fooled, RewardThresholds()).value is None


@pytest.mark.parametrize(("temperature", "severity"), [(1.0, "ok"), (0.1, "warn")])
def test_confidence_is_measured_on_other_pairs_too(temperature: float, severity: str) -> None:
    """Margins whose sign is right as often as a logistic says are calibrated at temperature 1, too sure at 0.1."""
    generator = np.random.default_rng(0)
    sizes = generator.exponential(1.0, 2000)
    margins = np.where(generator.random(2000) < 1 / (1 + np.exp(-sizes)), sizes, -sizes)
    found = calibration_finding(
        "calibration_elsewhere", margins, temperature, range(2000), RewardThresholds(), seed=0, remedy="fit it"
    )
    assert found.severity == severity and found.remedy == ("fit it" if severity == "warn" else "")


def test_other_data_and_training_data_are_looked_at() -> None:
    def scores(prompts: Sequence[Prompt], texts: Sequence[str]) -> tuple[np.ndarray, None]:
        return np.array([honest(*row) for row in zip(prompts, texts, strict=True)]), None

    def states(prompts: Sequence[Prompt], texts: Sequence[str]) -> np.ndarray:
        return np.array([[float(len(text)), float(text.count("e"))] for text in texts])

    known, asked = pairs_of(120), [pair.prompt for pair in pairs_of(60)]
    material = Material(pairs_of(120), pairs_of(60), known, [(prompt, "x" * 500) for prompt in asked])
    config = AuditRewardConfig(model="m", file="f.jsonl", samples="s.jsonl")
    judge = Judge(scores, lambda prompt, text: True, None, states)
    found = {each.name: each for each in audit_model(judge, material, config, again=again)}
    assert found["calibration_elsewhere"].value is not None and found["calibration_elsewhere"].num_pairs == 60
    assert found["distance"].value == 1.0 and found["distance"].severity == "block"
