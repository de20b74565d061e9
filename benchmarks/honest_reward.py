"""`python -m benchmarks.honest_reward`: a small reward model from scratch and character n-grams, on people's pairs.

For each file the conversations are dealt into folds; the model of a fold (vocabulary, starting weights, members) comes
from the other folds alone and scores the pairs of the fold: each pair is scored once by a model that saw no turn of its
conversation. The baseline is treated alike. Differences are paired: interval over conversations, exact test, and the
smallest difference that would have been seen in four of five such experiments.

The recipe `answers` puts "?" in place of every prompt. A model of this size averages over what it reads, and whole
dialogues drown the answer; the baseline does not read prompts either. `dialogues` is the same with the prompts.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ngrams import margins_by_fold
from benchmarks.options import publish, table
from prefloop.console import say
from prefloop.data.formats import make_demonstration, make_prompt
from prefloop.data.read import read_pairs
from prefloop.data.split import conversation_key, fold_of
from prefloop.data.write import write_records
from prefloop.models.config import ScratchConfig
from prefloop.models.load import default_device
from prefloop.reward.evaluate import margins_of
from prefloop.reward.measures import compare_margins, summarise
from prefloop.reward.scoring import load_scorer
from prefloop.train import reward, sft
from prefloop.train.config import MembersConfig, OptimizerConfig, RewardConfig, SFTConfig
from prefloop.types import Message, PreferencePair

DATA = Path("../shared/data/preferences")
FILES = ("hh-harmless", "oasst1")


SHAPE = ScratchConfig(hidden_size=32, num_layers=1, num_heads=2, max_position=4096)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the reward model of a fold is made."""

    scratch: ScratchConfig = SHAPE
    num_demonstrations: int | None = 400
    """Responses that the starting weights are fine-tuned on, chosen and rejected alike; None: all."""
    sft_epochs: int = 1
    reward_epochs: int = 1
    lr: float = 1e-2
    weight_decay: float = 0.0
    num_members: int = 5
    by: str = "seed"
    reads_prompts: bool = False


RECIPES = {"answers": Recipe(), "dialogues": Recipe(reads_prompts=True)}
TINY = ScratchConfig(hidden_size=16, num_layers=1, num_heads=2, vocab_size=300, max_position=4096)
NO_PROMPT = make_prompt((Message("user", "?"),))


def main(words: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.honest_reward", allow_abbrev=False)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the files of preference pairs")
    parser.add_argument("--files", nargs="+", default=list(FILES), help="their names, without .jsonl.gz")
    parser.add_argument("--recipe", choices=list(RECIPES), default="answers", help="what the reward model reads")
    parser.add_argument("--seed", type=int, default=1, help="seed of the folds and of the models")
    parser.add_argument("--num-folds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tiny model on few pairs: proves that it runs, no more")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/honest"), help="where runs are kept")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="JSON to FILE, or in place of the table")
    flags = parser.parse_args(words)
    answer = {name: compare(flags, name) for name in flags.files}
    publish(flags, answer, [result_table(answer)])


def compare(flags: argparse.Namespace, name: str) -> dict[str, Any]:
    """Both models on one file."""
    pairs = read_pairs([str(flags.data / f"{name}.jsonl.gz")], skip_bad=True).records
    pairs = pairs[:100] if flags.quick else pairs
    folds = [fold_of(conversation_key(pair), num_folds=flags.num_folds, seed=flags.seed) for pair in pairs]
    started = time.process_time()
    linear = margins_by_fold(pairs, folds)
    linear_seconds = time.process_time() - started
    recipe = RECIPES[flags.recipe]
    if flags.quick:
        recipe = dataclasses.replace(recipe, scratch=TINY, num_demonstrations=50, num_members=2)
    read = pairs if recipe.reads_prompts else [dataclasses.replace(pair, prompt=NO_PROMPT) for pair in pairs]
    started = time.process_time()
    own, alone = model_margins(recipe, read, folds, flags.out / f"{name}-{flags.recipe}", seed=flags.seed)
    seconds = time.process_time() - started
    clusters = [conversation_key(pair) for pair in pairs]
    summary = summarise(pairs, own, [None] * len(pairs), num_resamples=2000, seed=0)
    return {
        "model": summary,
        "first_member": summarise(pairs, alone, [None] * len(pairs), num_resamples=2000, seed=0),
        "ngrams": summarise(pairs, linear, [None] * len(pairs), num_resamples=2000, seed=0),
        "model_against_ngrams": compare_margins(own, linear, clusters, num_resamples=2000, seed=0),
        "ngrams_against_longer": compare_margins(
            linear,
            [float(len(pair.chosen) - len(pair.rejected)) for pair in pairs],
            clusters,
            num_resamples=2000,
            seed=0,
        ),
        "seconds": {"model": seconds, "ngrams": linear_seconds},
    }


def model_margins(
    recipe: Recipe, pairs: Sequence[PreferencePair], folds: Sequence[int], out: Path, *, seed: int
) -> tuple[list[float], list[float]]:
    """The margin of each pair by the ensemble that did not see its conversation, and by its first member alone."""
    own, alone = [0.0] * len(pairs), [0.0] * len(pairs)
    for fold in sorted(set(folds)):
        say(f"{out.name}: fold {fold + 1}")
        seen = [pair for pair, other in zip(pairs, folds, strict=True) if other != fold]
        run = train_fold(recipe, seen, out / f"fold-{fold}", seed=seed)
        places = [place for place, other in enumerate(folds) if other == fold]
        held_out = [pairs[place] for place in places]
        for margins, model in ((own, run), (alone, run / "members" / "member-00")):
            scorer = load_scorer(str(model), device=default_device())
            found = margins_of(scorer, held_out, [pair.prompt for pair in held_out])
            for place, margin in zip(places, found, strict=True):
                margins[place] = margin
    return own, alone


def train_fold(recipe: Recipe, pairs: list[PreferencePair], out: Path, *, seed: int) -> Path:
    """The reward model of these pairs: its run."""
    out.mkdir(parents=True, exist_ok=True)
    sides = [(pair, side) for pair in pairs for side in (pair.chosen, pair.rejected)][: recipe.num_demonstrations]
    demonstrations = [make_demonstration(pair.prompt.messages, (Message("assistant", side),)) for pair, side in sides]
    write_records(out / "demonstrations.jsonl", demonstrations)
    write_records(out / "pairs.jsonl", pairs)
    longest = recipe.scratch.max_position
    sft.train(
        SFTConfig(
            data=(str(out / "demonstrations.jsonl"),),
            out=str(out / "sft"),
            scratch=recipe.scratch,
            seed=seed,
            eval_fraction=0,
            max_length=longest,
            num_epochs=recipe.sft_epochs,
        )
    )
    reward.train(
        RewardConfig(
            model=str(out / "sft"),
            data=(str(out / "pairs.jsonl"),),
            out=str(out / "reward"),
            seed=seed,
            eval_fraction=0,
            max_length=longest,
            num_epochs=recipe.reward_epochs,
            optimizer=OptimizerConfig(lr=recipe.lr, weight_decay=recipe.weight_decay),
            members=MembersConfig.model_validate({"size": recipe.num_members, "by": recipe.by}),
        )
    )
    return out / "reward"


def result_table(answer: dict[str, Any]) -> str:
    """The table of all files."""
    header = [
        "file",
        "pairs",
        "longer wins",
        "n-grams",
        "first member",
        "ensemble",
        "ensemble - n-grams",
        "p",
        "visible",
    ]
    rows = []
    for name, found in answer.items():
        against = found["model_against_ngrams"]
        low, high = against["interval"]
        visible = against["smallest_detectable"]
        rows.append(
            [
                name,
                str(found["model"]["num_pairs"]),
                f"{found['model']['baselines']['longer']:.3f}",
                *(accuracy_cell(found[which]) for which in ("ngrams", "first_member", "model")),
                f"{against['difference']:+.3f} ({low:+.3f} to {high:+.3f})",
                f"{against['p_value']:.2g}",
                "-" if visible is None else f"{visible:.3f}",
            ]
        )
    return table(header, rows)


def accuracy_cell(summary: dict[str, Any]) -> str:
    """`0.635 (0.61 to 0.66)`: an accuracy and its interval."""
    low, high = summary["accuracy_interval"]
    return f"{summary['accuracy']:.3f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
