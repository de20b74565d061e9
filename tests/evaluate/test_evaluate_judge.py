"""Judges and measures without a model: exchanged places, paired changes, perplexities by hand."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.data.formats import make_prompt
from prefloop.evaluate.endpoint import verdict_in
from prefloop.evaluate.judge import Duel, EndpointJudge, PairJudge, ScorerJudge, swapped
from prefloop.evaluate.measure import Evidence
from prefloop.evaluate.records import Pairing
from prefloop.evaluate.suite import Item, Suite
from prefloop.evaluate.verdicts import Verdicts
from prefloop.reward.scorer import Response
from prefloop.types import EnvironmentStop, InputError, Message, Prompt

SHARES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20)
PAIRING = Pairing("c" * 64, "b" * 64, "2026-01-01T00:00:00+00:00")
EVIDENCE = Evidence(PAIRING, num_resamples=200, seed=0)


def prompt(text: str) -> Prompt:
    return make_prompt((Message("user", text),))


def duels(*pairs: tuple[str, str]) -> list[Duel]:
    """Incumbent's and candidate's responses."""
    return [Duel(prompt(f"question {at}"), Response(old), Response(new)) for at, (old, new) in enumerate(pairs)]


@given(SHARES)
def test_models_exchanged_win_the_rest(shares: list[tuple[float, float]]) -> None:
    second, first = zip(*shares, strict=True)
    there, back = swapped(second, first), swapped(first, second)
    assert np.allclose(np.array(there.wins) + np.array(back.wins), 1)
    assert there.first is not None and back.first is not None and math.isclose(there.first, back.first)


def test_exchanged_places_by_hand() -> None:
    # Shown second the candidate is preferred by 1, 1, 0; shown first it is not preferred by 0, 1, 0.
    judged = swapped([1, 1, 0], [0, 1, 0])
    assert judged.wins == (1.0, 0.5, 0.5)
    # Of six showings the second response won three.
    assert judged.first == 0.5 and judged.consistent == pytest.approx(1 / 3)


def test_a_pair_judge_sees_both_orders() -> None:
    seen: list[tuple[str, str]] = []

    def prefers(prompts: list[Prompt], first: list[Response], second: list[Response]) -> list[float]:
        seen.extend((a.text, b.text) for a, b in zip(first, second, strict=True))
        return [float(len(b.text) > len(a.text)) for a, b in zip(first, second, strict=True)]

    judged = PairJudge("v", prefers).judge(duels(("old", "newer"), ("the older one", "new")))
    assert judged.wins == (1.0, 0.0) and judged.consistent == 1.0
    assert seen == [("old", "newer"), ("the older one", "new"), ("newer", "old"), ("new", "the older one")]


def test_the_higher_score_wins_and_equal_ones_tie() -> None:
    class Lengths:
        version = "lengths"

        def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
            return [float(len(response.text)) for response in responses]

        def score_with_spread(
            self, prompts: Sequence[Prompt], responses: Sequence[Response]
        ) -> tuple[list[float], None]:
            return self.score(prompts, responses), None

    judged = ScorerJudge(Lengths()).judge(duels(("ab", "abc"), ("ab", "a"), ("ab", "ba")))
    assert judged.wins == (1.0, 0.0, 0.5) and judged.first is None and judged.margins == (1.0, -1.0, 0.0)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A is right. [[A]]", 0.0),
        ("[[A]] would be wrong, so [[B]]", 1.0),
        ("equal: [[C]].", 0.5),
        (" B\n", 1.0),
        ("both are good", None),
        ("[[D]]", None),
        ("", None),
    ],
)
def test_the_verdict_in_a_text(text: str, verdict: float | None) -> None:
    assert verdict_in(text) == verdict


def test_what_was_said_is_not_asked_again_and_a_failure_loses_nothing(tmp_path: Path) -> None:
    asked: list[str] = []
    lock, gone = threading.Lock(), threading.Event()

    def ask(asked_prompt: Prompt, first: str, second: str) -> float | None:
        with lock:
            asked.append(first)
            if gone.is_set() or len(asked) > 12:
                gone.set()
                raise EnvironmentStop("away")
        return 1.0

    pairs = duels(*((f"old {at}", f"new {at}") for at in range(20)))
    with pytest.raises(EnvironmentStop):
        EndpointJudge("v", ask, Verdicts(tmp_path / "v.jsonl"), parallel=4).judge(pairs)
    kept = Verdicts(tmp_path / "v.jsonl")
    assert len(kept) == 12 and len(asked) <= 12 + 4
    asked.clear()
    gone.clear()
    judge = EndpointJudge("v", lambda *_: asked.append("") or 1.0, kept, parallel=4)  # type: ignore[func-returns-value]
    assert judge.judge(pairs).wins == (0.5,) * 20 and len(asked) == 28
    # Another judge has said nothing yet.
    with pytest.raises(InputError, match=r"40 of 40 answers of the judge hold no verdict"):
        EndpointJudge("w", lambda *_: None, Verdicts(tmp_path / "v.jsonl")).judge(pairs)


# Measures


def test_a_suite_by_hand() -> None:
    suite = Suite("mine", "f" * 64, tuple(Item(prompt(str(at)), "match", ("yes",)) for at in range(4)))
    own, change = EVIDENCE.of_suite(suite, ["yes", "yes", "yes", "no"], ["yes", "no", "no", "no"])
    assert (own.evaluation.name, own.evaluation.value, own.evaluation.n) == ("suite/mine", 0.75, 4)
    assert (change.evaluation.name, change.evaluation.value) == ("suite/mine/change", 0.5)
    # Two discordant, both for the candidate: 2 (1/2)^2.
    assert change.p_value == 0.5
    assert change.evaluation.interval is not None and change.evaluation.interval[0] < 0
    assert (own.evaluation.candidate_sha256, own.evaluation.baseline_sha256) == ("c" * 64, "b" * 64)
    assert (own.evaluation.data_sha256, own.evaluation.at) == ("f" * 64, PAIRING.at)


def test_perplexities_by_hand() -> None:
    # 2 texts of 10 and 30 tokens; the candidate needs 1 nat a token, the incumbent 0.5. The last text has one token.
    own, change = EVIDENCE.of_texts("t", "f" * 64, [10, 30, 0], [5, 15, 0], [10, 30, 0])
    assert own.evaluation.name == "perplexity/t" and math.isclose(own.evaluation.value, math.e)
    assert math.isclose(change.evaluation.value, math.exp(0.5)) and change.evaluation.n == 2
    assert np.allclose(change.evaluation.interval or (), math.exp(0.5))
    assert EVIDENCE.of_texts("t", "f" * 64, [10], [5], [10])[0].evaluation.interval is None
    with pytest.raises(InputError, match=r"^t: texts: no text of this file has two tokens$"):
        EVIDENCE.of_texts("t", "f" * 64, [0], [0], [0])


def test_repetition_and_length_by_hand() -> None:
    found = EVIDENCE.of_responses("f" * 64, ["a b c a b c", "abcd"], ["a b c d e f", "ab"])
    values = {each.evaluation.name: each.evaluation.value for each in found}
    # One of four runs of three words has stood before: 1/4, and none in the others.
    assert values == {"repetition": 0.125, "repetition/change": 0.125, "length": 7.5, "length/change": 1.0}


def test_one_prompt_has_no_interval() -> None:
    (own, _) = EVIDENCE.of_values("length", "f" * 64, [3.0], [2.0])
    assert own.evaluation.interval is None
