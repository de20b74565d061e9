"""`python -m benchmarks.trunk`: a small policy that has read English, for `benchmarks.planted --trunk`.

No pretrained model is at hand. This one is made from scratch on all text that ../shared/data has, 6.7 million
characters: both responses of the preference pairs alike, so that it knows nothing of which was chosen, the
demonstrations, the completions of XSTest, and demonstrations of the simulated world. Two layers of width 64, 4,096
tokens, two epochs: about five minutes of one core.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.start import configured
from prefloop.data.formats import make_demonstration
from prefloop.data.read import read_demonstrations, read_pairs
from prefloop.data.write import write_records
from prefloop.types import Demonstration, Message
from prefloop.world.knowledge import World
from prefloop.world.writers import make_demonstrations

LONGEST = 1600
"""Characters of question and answer together."""


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Questions and answers of every file."""
    for file in sorted(folder.glob("preferences/*.jsonl.gz")):
        for pair in read_pairs([str(file)], skip_bad=True).records:
            yield from ((pair.prompt.messages[-1].content, side) for side in (pair.chosen, pair.rejected))
    files = [str(file) for file in sorted(folder.glob("sft/*.jsonl.gz"))]
    told = [
        *read_demonstrations(files, skip_bad=True).records,
        *make_demonstrations(World.build(0), count=2000, seed=0),
    ]
    for each in told:
        yield each.prompt[-1].content, each.completion[0].content
    for file in sorted(folder.glob("xstest_completions_*.csv.gz")):
        with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
            yield from ((row["prompt"], row["completion"]) for row in csv.DictReader(lines))


def demonstrations(folder: Path, *, seed: int) -> list[Demonstration]:
    """The texts as demonstrations, in random order, without empty and very long ones."""
    made = [
        make_demonstration((Message("user", question),), (Message("assistant", answer),))
        for question, answer in texts(folder)
        if question.strip() and answer.strip() and len(question) + len(answer) < LONGEST
    ]
    random.Random(seed).shuffle(made)
    return made


def main(words: Sequence[str] | None = None) -> None:
    """Write the demonstrations and train on them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trunk", allow_abbrev=False)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of the files")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/trunk"), help="where file and run go")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a tiny model on few texts: proves that it runs, no more")
    flags = parser.parse_args(words)
    flags.out.mkdir(parents=True, exist_ok=True)
    rows, file = demonstrations(flags.data, seed=flags.seed), flags.out / "demonstrations.jsonl"
    write_records(file, rows[:200] if flags.quick else rows)
    width, vocabulary, epochs = ("16", "300", "1") if flags.quick else ("64", "4096", "2")
    about = ["--data", str(file), "--out", str(flags.out / "run"), "--seed", str(flags.seed), "--skip-bad"]
    learn, config = configured(
        *("train", "sft", *about),
        *("--scratch.hidden-size", width, "--scratch.num-layers", "2", "--scratch.vocab-size", vocabulary),
        *("--num-epochs", epochs, "--optimizer.lr", "3e-3", "--eval-fraction", "0.02", "--eval-every", "200"),
    )
    learn(config)


if __name__ == "__main__":
    main()
