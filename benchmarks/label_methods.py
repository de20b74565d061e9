"""What majority, Bradley-Terry and Dawid-Skene recover of the truth, from simulated annotators of known error rates.

Comparisons come from the simulated world: one pair of responses to each prompt, or all six pairs of four. People of
`CREWS` vote on each, so many drawn at random. A label is right where it names the response of the higher true utility;
a comparison without a pair counts as half right, as a coin would be. Differences from work with people: annotators err
independently of one another except for the biases that they share, and they never learn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import numpy as np

from benchmarks.options import options, publish, table
from prefloop.data.dialogue import short_hash
from prefloop.label.derive import Method, derive
from prefloop.label.intake import import_rows
from prefloop.label.records import Item, Vote
from prefloop.label.store import open_store
from prefloop.label.votes import comparison_of, items_of
from prefloop.rundir import write_rows
from prefloop.statistics.intervals import mean_estimate
from prefloop.types import Comparison, Judgment, Prompt
from prefloop.world.annotators import collect, team
from prefloop.world.knowledge import World
from prefloop.world.prompts import make_prompts
from prefloop.world.truth import utility
from prefloop.world.writers import write_response

CREWS: Mapping[str, Mapping[str, int]] = {
    "six honest": {"honest": 6},
    "three honest, three careless": {"honest": 3, "careless": 3},
    "two honest, three careless, one position": {"honest": 2, "careless": 3, "position": 1},
    "three honest, three who like hedges": {"honest": 3, "hedging": 3},
}
"""Careless: 70 % of the votes are a coin. Position: leans to what is shown first. Hedges: shares one bias."""
NUM_VOTES = (1, 3, 5)
PROMPTS = {2: 300, 4: 100}
"""Prompts, by the number of responses to each."""
METHODS: tuple[Method, ...] = get_args(Method)


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = options("label_methods", words)
    answer: dict[str, dict[str, dict[str, list[dict[str, float]]]]] = {}
    for responses, prompts in PROMPTS.items():
        benches = [Bench(seed, 4 if flags.quick else prompts, responses) for seed in flags.seeds]
        for crew, numbers in CREWS.items():
            found = answer.setdefault(f"{responses} responses a prompt, {crew}", {})
            for num in NUM_VOTES:
                voted = [bench.votes(numbers, num) for bench in benches]
                found[str(num)] = {
                    method: [bench.measure(votes, method) for bench, votes in zip(benches, voted, strict=True)]
                    for method in METHODS
                }
    publish(flags, answer, [_table(title, found) for title, found in answer.items()])


class Bench:
    """Comparisons of one seed, with the truth about them."""

    def __init__(self, seed: int, num_prompts: int, num_responses: int) -> None:
        self.seed, self.world = seed, World.build(seed)
        rng = np.random.default_rng([seed, 7])
        self.prompts: dict[str, Prompt] = {}
        rows = []
        for prompt in make_prompts(self.world, split="train", count=num_prompts, seed=seed):
            text = prompt.messages[-1].content
            self.prompts[text] = prompt
            texts = sorted({write_response(self.world, prompt, rng) for _ in range(num_responses)})
            if len(texts) > 1:
                rows.append({"prompt": text, "responses": texts})
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder) / "rows.jsonl", rows)
            with open_store(f"{folder}/label.sqlite") as store:
                import_rows(store, Path(folder) / "rows.jsonl")
                self.items: dict[str, Item] = items_of(store)
        self.better = {name: side for name, item in self.items.items() if (side := self._better(item))}

    def _better(self, item: Item) -> str:
        """The side of the higher true utility; empty where both are worth the same."""
        assert item.response_b is not None
        prompt = self.prompts[item.prompt]
        worth = [utility(self.world, prompt, text).total for text in (item.response_a, item.response_b)]
        return "" if worth[0] == worth[1] else "a" if worth[0] > worth[1] else "b"

    def votes(self, crew: Mapping[str, int], num: int) -> list[Vote]:
        """`num` votes on each comparison by members of the crew."""
        comparisons = [self._comparison(item) for item in self.items.values()]
        judgments = collect(self.world, comparisons, team(crew), seed=self.seed, votes=num)
        return [vote_of(number, judgment) for number, judgment in enumerate(judgments)]

    def _comparison(self, item: Item) -> Comparison:
        made = comparison_of(item)
        return Comparison(item.item_id, self.prompts[item.prompt], made.response_a, made.response_b)

    def measure(self, votes: Sequence[Vote], method: Method) -> dict[str, float]:
        """How often the labels are right over all comparisons with a better side, and the share that got a label."""
        labels = {}
        for pair in derive(self.items, votes, method).pairs:
            labels[pair.prompt.prompt_id, pair.chosen, pair.rejected] = True
        right, labelled = [], []
        for name, better in self.better.items():
            made = comparison_of(self.items[name])
            sides = (made.response_a, made.response_b)
            good, bad = sides if better == "a" else sides[::-1]
            hit, miss = ((made.prompt.prompt_id, *key) in labels for key in ((good, bad), (bad, good)))
            right.append(1.0 if hit else 0.0 if miss else 0.5)
            labelled.append(float(hit or miss))
        wrong = sum(share == 0.0 for share in right)
        return {
            "accuracy": fmean(right),
            "labelled": fmean(labelled),
            "accuracy_of_labelled": 1 - wrong / max(1.0, sum(labelled)),
        }


def vote_of(number: int, judgment: Judgment) -> Vote:
    """A judgment as a stored vote, whose comparison is the item."""
    return Vote(
        number=number,
        submission_id=short_hash(str(number)),
        assignment_id=number + 1,
        item_id=judgment.comparison_id,
        annotator_id=judgment.annotator_id,
        choice=judgment.choice,
        strength=judgment.strength,
        reason=None,
        flag=False,
        note="",
        seconds=judgment.seconds or 0.0,
        guideline_version=judgment.guideline_version,
        shown_first=judgment.shown_first,
        is_repeat=False,
        at="",
        undone=False,
    )


def _table(title: str, found: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> str:
    rows = []
    for num, methods in found.items():
        cells = [num]
        for runs in methods.values():
            accuracy = mean_estimate([run["accuracy"] for run in runs])
            labelled = fmean(run["labelled"] for run in runs)
            cells.append(f"{_percent(accuracy.mean)} ± {_percent(accuracy.standard_error)} ({labelled:.0%})")
        rows.append(cells)
    return f"{title}: right in %, in brackets the share with a label\n\n{table(['votes', *METHODS], rows)}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


if __name__ == "__main__":
    main()
