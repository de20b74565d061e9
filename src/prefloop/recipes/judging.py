"""The votes of a round: from simulated people, or from a file, each on one of the round's comparisons.

They become files of judgments that training and audit read as such, so that the audit of what is trained on also sees
who voted and what was shown first: `new-train.jsonl`, and `new-held-out.jsonl` for comparing reward models.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prefloop.data.formats import judged_of
from prefloop.data.pairs import derive_pairs, swapped
from prefloop.data.read import tell_left_out
from prefloop.data.rows import Row
from prefloop.data.split import conversation_key, split_of
from prefloop.data.stream import Source, Tally, parsed_rows
from prefloop.recipes.comparisons import comparison_key, comparison_row, read_comparisons
from prefloop.recipes.round_config import RoundConfig
from prefloop.recipes.world_votes import simulated_votes
from prefloop.rundir import sha256_of, write_rows
from prefloop.types import Comparison, EnvironmentStop, InputError, Judgment

JUDGMENTS = "judgments.jsonl"
TRAIN, HELD_OUT = "new-train.jsonl", "new-held-out.jsonl"


def judge(config: RoundConfig, root: Path, comparisons_file: Path) -> dict[str, Any]:
    """Write the votes of a round.

    Raises EnvironmentStop where there are none yet, and InputError where they say nothing that could be trained on.
    """
    comparisons, _ = read_comparisons(comparisons_file)
    tally = Tally(config.skip_bad)
    if config.simulate is not None:
        votes, by = simulated_votes(config, comparisons), f"scenario {config.simulate}"
    elif config.judgments is not None:
        votes, by = imported_votes(config.judgments, comparisons, tally), config.judgments
        tell_left_out(tally)
    else:
        raise EnvironmentStop(
            f"the round waits for judgments of {len(comparisons)} comparisons: have {comparisons_file} judged, and go "
            "on with --judgments FILE added (a row for each vote: comparison_id, choice, annotator_id)"
        )
    judged = _by_comparison(comparisons, votes)
    derived = derive_pairs(judged)
    sides: dict[str, list[tuple[Comparison, list[Judgment]]]] = {"train": [], "eval": []}
    for each, its_votes in judged:
        key = conversation_key(each.prompt)
        sides[split_of(key, eval_fraction=config.held_out_fraction, seed=config.seed)].append((each, its_votes))
    counts = {name: len(derive_pairs(rows).pairs) for name, rows in sides.items()}
    _require_both_sides(by, len(derived.pairs), counts, dict(derived.counts))
    for name, rows in ((JUDGMENTS, judged), (TRAIN, sides["train"]), (HELD_OUT, sides["eval"])):
        write_rows(root / name, vote_rows(rows))
    return {
        "by": by,
        "votes_sha256": sha256_of(Path(config.judgments)) if config.judgments else None,
        "num_votes": len(votes),
        "num_judged": len(judged),
        "num_unjudged": len(comparisons) - len(judged),
        "num_left_out": len(tally.bad),
        "without_pair": dict(derived.counts),
        "num_pairs": len(derived.pairs),
        "num_train": counts["train"],
        "num_held_out": counts["eval"],
    }


def imported_votes(file: str, comparisons: Sequence[Comparison], tally: Tally) -> list[Judgment]:
    """The votes of a file. A row names its comparison by `comparison_id`, or by prompt and responses in either order.

    A row that fits none of the comparisons goes to the tally: it stops the reading, or is counted.
    """
    by_id = {each.comparison_id: each for each in comparisons}

    def parse(row: Row) -> Judgment:
        named = by_id.get(str(row.values.get("comparison_id")))
        texts = {} if named is None else comparison_row(named)
        # An exporter may leave the texts out; those that it gives must be the comparison's.
        given, judgment = judged_of({**texts, **{name: value for name, value in row.values.items() if value}})
        meant = by_id.get(comparison_key(given.prompt, given.response_a, given.response_b))
        if meant is None or (named is not None and meant != named):
            raise InputError(
                "is no vote on a comparison of this round",
                field="comparison_id" if "comparison_id" in row.values else "response_a",
                remedy="give the judgments of this round's comparisons.jsonl",
            )
        if given.response_a != meant.response_a:
            _, judgment = swapped(given, judgment)
        return dataclasses.replace(judgment, comparison_id=meant.comparison_id)

    return [vote for _, vote in parsed_rows(Source(file), tally, parse)]


def _by_comparison(
    comparisons: Sequence[Comparison], votes: Iterable[Judgment]
) -> list[tuple[Comparison, list[Judgment]]]:
    """The comparisons that somebody voted on, in their order, each with its votes in the order given."""
    found: dict[str, list[Judgment]] = defaultdict(list)
    for vote in votes:
        found[vote.comparison_id].append(vote)
    return [(each, found[each.comparison_id]) for each in comparisons if each.comparison_id in found]


def _require_both_sides(by: str, num_pairs: int, counts: dict[str, int], without: dict[str, int]) -> None:
    """Raise InputError unless there are pairs to train on and pairs to compare on."""
    if counts["train"] and counts["eval"]:
        return
    what = "no comparison has a winner" if not num_pairs else f"{num_pairs} pairs are too few for two sides"
    told = ", ".join(f"{count} {name}" for name, count in without.items())
    raise InputError(
        f"{what}{f' ({told})' if told else ''}",
        path=by,
        field="held_out_fraction" if num_pairs else None,
        remedy="have more comparisons judged (--num-comparisons, in another --out)",
    )


def vote_rows(judged: Iterable[tuple[Comparison, Sequence[Judgment]]]) -> Iterable[dict[str, Any]]:
    """A row for each vote, as judgments are read; what a vote does not say is left out."""
    for comparison, votes in judged:
        shown = comparison_row(comparison)
        for vote in votes:
            told = {name: value for name, value in dataclasses.asdict(vote).items() if value not in (None, "")}
            yield {**shown, **told}
