"""RewardBench's sections and score against a table by hand."""

from __future__ import annotations

import json

import pytest

from prefloop.reward.protocols import PROTOCOLS, protocol_scores
from prefloop.types import Message, PreferencePair, Prompt

REWARDBENCH = PROTOCOLS["rewardbench"]


def pairs_of(counts):
    """Subset -> (right, wrong) as pairs with their margins."""
    pairs, margins = [], []
    for subset, (right, wrong) in counts.items():
        for number in range(right + wrong):
            prompt = Prompt(f"{subset}{number}", (Message("user", "?"),), columns={"subset": subset})
            pairs.append(PreferencePair(f"{subset}{number}", prompt, "yes", "no"))
            margins.append(1.0 if number < right else -1.0)
    return pairs, margins


def test_sections_weigh_subsets_by_their_published_size():
    # Chat: (100 x 1 + 95 x 1/2 + 28 x 0) / 223. Reasoning: math-prm counts 984, a language 164.
    counts = {"alpacaeval-easy": (4, 0), "alpacaeval-length": (1, 1), "mt-bench-easy": (0, 3)}
    counts |= {"math-prm": (1, 3), "hep-python": (3, 1)}
    found = protocol_scores(REWARDBENCH, *pairs_of(counts))
    chat = (100 * 1 + 95 * 0.5) / (100 + 95 + 28)
    reasoning = (984 * 0.25 + 164 * 0.75) / (984 + 164)
    assert found["sections"] == pytest.approx({"Chat": chat, "Reasoning": reasoning})
    assert found["score"] == pytest.approx((chat + reasoning) / 2)
    assert "hep-rust" in found["absent"] and "math-prm" not in found["absent"]


def test_a_perfect_model_scores_one_and_prior_sets_count_half():
    everything = {name: (2, 0) for subsets in REWARDBENCH.sections.values() for name in subsets}
    assert protocol_scores(REWARDBENCH, *pairs_of(everything))["score"] == pytest.approx(1.0)
    everything |= dict.fromkeys(REWARDBENCH.sections["Prior Sets"], (0, 2))
    found = protocol_scores(REWARDBENCH, *pairs_of(everything))
    assert found["absent"] == []
    # Four sections of weight 1 are right, one of weight 1/2 is wrong.
    assert found["score"] == pytest.approx(4 / 4.5)


def test_code_and_mathematics_are_halves_of_reasoning():
    code = [name for name in REWARDBENCH.sections["Reasoning"] if name.startswith("hep-")]
    found = protocol_scores(REWARDBENCH, *pairs_of({"math-prm": (1, 0), **dict.fromkeys(code, (0, 1))}))
    assert found["sections"]["Reasoning"] == pytest.approx(0.5)


def test_a_tie_is_wrong():
    pairs, _ = pairs_of({"donotanswer": (2, 0)})
    assert protocol_scores(REWARDBENCH, pairs, [0.0, 1.0])["score"] == 0.5


def test_the_command_line_reads_subsets_and_names_what_is_wrong(prefloop, data, tmp_path):
    path = tmp_path / "bench.jsonl"
    rows = [
        {"prompt": "name 1", "chosen": "bee", "rejected": "fog", "subset": "alpacaeval-easy"},
        {"prompt": "name 2", "chosen": "fog", "rejected": "bee", "subset": "donotanswer"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("reward eval", f"{data / 'rewards.py'}:count_e", path, "--protocol", "rewardbench")
    found = prefloop(*words).answer["protocol"]
    assert found["sections"] == {"Chat": 1.0, "Safety": 0.0}
    assert found["score"] == 0.5
    path.write_text("".join(json.dumps({**row, "subset": "alpaca"}) + "\n" for row in rows))
    assert f"{path}:1: subset: the protocol has no subset 'alpaca'" in prefloop(*words).problem
    assert "protocol: no protocol 'x'; one of rewardbench" in prefloop(*words[:3], "--protocol", "x").problem
