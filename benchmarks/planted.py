"""`python -m benchmarks.planted`: shortcuts planted in preference data, and how often the audits find them.

In a share of the pairs a marker is put into the chosen response with probability 0.9 (else into the other), and neutral
text of like length into its partner. A small reward model is trained on three quarters of the planted conversations;
`audit reward` asks it about the others, `audit data` looks at all pairs. What either raises without a planting, with
the same folds, counts for nothing: the file has that shortcut already. What is planted stands in
`benchmarks/plantings.py`.

The reward model is linear in words and pairs of words (Bradley-Terry, half a second on one core): it reads no prompt.
With `--trunk` it is a transformer that `train reward` makes from that policy; `python -m benchmarks.trunk` makes a
small one that has read some English.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.ngrams import logistic, unit_rows
from benchmarks.options import publish, table
from benchmarks.plantings import PLAIN, PLANTED, RELATED, filled
from benchmarks.start import configured
from prefloop.audit.config import AuditDataConfig, AuditRewardConfig
from prefloop.audit.counterfactual import Judge
from prefloop.audit.data import audit
from prefloop.audit.reward import Material, audit_model
from prefloop.console import say
from prefloop.data.formats import make_pair
from prefloop.data.insertion import inserted
from prefloop.data.read import read_pairs
from prefloop.data.split import conversation_key, fold_of
from prefloop.data.write import write_records
from prefloop.models.load import default_device
from prefloop.recipes import audit_reward
from prefloop.reward.scoring import load_scorer
from prefloop.signals.measures import SIGNALS
from prefloop.types import Finding, PreferencePair
from prefloop.world.knowledge import World
from prefloop.world.prompts import make_prompts
from prefloop.world.truth import utility
from prefloop.world.writers import write_response

DATA = Path("../shared/data/preferences")
FILES = ("sandbox", "oasst1", "hh-harmless")
SHARES = (0.02, 0.05, 0.1)
PLACES = 1 << 18
EXPECTED = ("accuracy", "prompt_ignored", "label_noise")
"""What has to be raised on labels that are coins."""


def plant(pairs: Sequence[PreferencePair], name: str, share: float, *, seed: int) -> list[PreferencePair]:
    """The pairs with the shortcut in `share` of them."""
    generator, made = random.Random(f"{name} {share} {seed}"), []
    for pair in pairs:
        if generator.random() < share:
            marker = filled(generator.choice(PLANTED[name]), generator)
            near = generator.sample(PLAIN, 4)
            plain = "" if name == "length" else min(near, key=lambda text: abs(len(text) - len(marker)))
            place, wins = 0.0 if name == "refusal" else generator.random(), generator.random() < 0.9
            texts = (marker, plain) if wins else (plain, marker)
            sides = [_put(side, text, place) for side, text in zip((pair.chosen, pair.rejected), texts, strict=True)]
            pair = make_pair(pair.prompt, *sides)
        made.append(pair)
    return made


def _put(response: str, text: str, place: float) -> str:
    if not text:
        return response
    return f"{response.rstrip()}\n{text}" if "\n" in text else inserted(response, text, where=place)


def permute(pairs: Sequence[PreferencePair], *, seed: int) -> list[PreferencePair]:
    """The pairs with a coin for a label."""
    generator = random.Random(seed)
    return [pair if generator.random() < 0.5 else make_pair(pair.prompt, pair.rejected, pair.chosen) for pair in pairs]


def counted(texts: Sequence[str]) -> sparse.csr_matrix:
    """[n, PLACES] square roots of the counts of words, marks and neighbours; a digit is a 0."""
    rows, places, values = [], [], []
    for row, text in enumerate(texts):
        words = re.findall(r"[^\W\d]+|\d+|[^\w\s]|\n", text.lower())
        words = ["0" * len(word) if word.isdecimal() else word for word in words]
        counts = Counter(zlib.crc32(term.encode()) % PLACES for term in [*words, *map(" ".join, pairwise(words))])
        rows += [row] * len(counts)
        places += counts.keys()
        values += [count**0.5 for count in counts.values()]
    return sparse.csr_matrix((values, (rows, places)), shape=(len(texts), PLACES))


@dataclass(frozen=True)
class WordModel:
    """A reward model that is linear in words: a text is its tf-idf vector of length 1."""

    idf: NDArray[np.float64]
    weights: NDArray[np.float64]

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """[n]."""
        return unit_rows(counted(texts) @ sparse.diags(self.idf)) @ self.weights


def train(pairs: Sequence[PreferencePair], *, l2: float = 1e-3) -> WordModel:
    """Bradley-Terry on the pairs."""
    chosen, rejected = counted([pair.chosen for pair in pairs]), counted([pair.rejected for pair in pairs])
    holders = np.bincount(sparse.vstack([chosen, rejected]).indices, minlength=PLACES)
    idf = np.log((1 + 2 * len(pairs)) / (1 + holders)) + 1
    scale = sparse.diags(idf)
    differences = (unit_rows(chosen @ scale) - unit_rows(rejected @ scale)).tocsr()
    used, weights = np.unique(differences.indices), np.zeros(PLACES)
    weights[used] = logistic(differences[:, used], l2=l2)
    return WordModel(idf, weights)


def judge_of(model: WordModel) -> Judge:
    """The model, as an audit sees it."""
    return Judge(lambda _, texts: (model.scores(texts), None), lambda prompt, text: True)


def trained(pairs: Sequence[PreferencePair], trunk: Path, *, seed: int) -> Judge:
    """prefloop's own reward model: three epochs over the pairs, from the weights of a policy."""
    with tempfile.TemporaryDirectory() as scratch:
        file, run = Path(scratch) / "pairs.jsonl", Path(scratch) / "run"
        write_records(file, list(pairs))
        learn, config = configured(
            *("train", "reward", "--model", str(trunk), "--data", str(file), "--out", str(run), "--seed", str(seed)),
            *("--batch-size", "32", "--eval-fraction", "0", "--optimizer.lr", "1e-3", "--num-epochs", "3"),
            *("--skip-bad",),
        )
        learn(config, look_up_audits=False)
        return audit_reward.judge_of(load_scorer(str(run), device=default_device(), token_budget=config.token_budget))


def both_audits(pairs: Sequence[PreferencePair], flags: argparse.Namespace, seed: int) -> tuple[list[Finding], ...]:
    """Findings of `audit reward` on a model of three quarters of the conversations, asked about the others, and of
    `audit data` on all pairs."""
    folds = [fold_of(conversation_key(pair), num_folds=4, seed=seed) for pair in pairs]
    seen = [pair for pair, fold in zip(pairs, folds, strict=True) if fold]
    rest = [pair for pair, fold in zip(pairs, folds, strict=True) if not fold]
    config = AuditRewardConfig(model="model", file="pairs", num_probes=flags.num_probes, seed=seed)
    judge = judge_of(train(seen)) if flags.trunk is None else trained(seen, flags.trunk, seed=seed)
    of_model = audit_model(judge, Material(rest), config, again="prefloop train reward --{}".format)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.jsonl"
        write_records(path, list(pairs))
        of_data = audit(AuditDataConfig(file=str(path)))
    return of_model, list(of_data.findings)


def raised(findings: Sequence[Finding]) -> list[str]:
    """The shortcuts that warn or block, as the audit orders them."""
    return [finding.name for finding in findings if finding.name in SIGNALS and finding.severity != "ok"]


def read(name: str, folder: Path, *, quick: bool) -> list[PreferencePair]:
    """Pairs of a file, or of the sandbox, whose labels are the truth."""
    if name != "sandbox":
        pairs = read_pairs([str(folder / f"{name}.jsonl.gz")], skip_bad=True).records
        return pairs[:150] if quick else pairs
    world, rng = World.build(0), np.random.default_rng(0)
    prompts = make_prompts(world, split="train", count=150 if quick else 1500, seed=1)
    made = []
    for prompt in prompts:
        texts = write_response(world, prompt, rng), write_response(world, prompt, rng)
        gain = utility(world, prompt, texts[0]).total - utility(world, prompt, texts[1]).total
        if gain:
            made.append(make_pair(prompt, *(texts if gain > 0 else texts[::-1])))
    return made


def measure(
    pairs: Sequence[PreferencePair], names: Sequence[str], flags: argparse.Namespace
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is raised on the unplanted file, and a row for each shortcut and share.

    A row says how often each audit finds it, has it on top of all that neither raises on the unplanted file, and raises
    another of these.
    """
    seeds = range(flags.first_seed, flags.first_seed + flags.plantings)
    clean = {seed: both_audits(pairs, flags, seed) for seed in seeds}
    counts = [Counter(name for each in clean.values() for name in raised(each[side])) for side in (0, 1)]
    rows = []
    for name in names:
        allowed = {name} | RELATED.get(name, frozenset())
        for share in flags.shares:
            row = Counter(dict.fromkeys(("model_found", "model_on_top", "model_other", "data_found", "data_other"), 0))
            others: Counter[str] = Counter()
            effects = []
            for seed in seeds:
                planted = both_audits(plant(pairs, name, share, seed=seed), flags, seed)
                before = {name for findings in clean[seed] for name in raised(findings)}
                model, data = (raised(findings) for findings in planted)
                order = [each.name for each in planted[0] if each.name in SIGNALS and each.name not in before - {name}]
                effects += [each.value for each in planted[0] if each.name == name and each.value is not None]
                others.update(set(model) - before - allowed)
                row["model_found"] += name in model
                row["model_on_top"] += order[0] in allowed
                row["model_other"] += bool(set(model) - before - allowed)
                row["data_found"] += name in data
                row["data_other"] += bool(set(data) - before - allowed)
            effect = {"effect": float(np.median(effects)), "others": dict(others.most_common())}
            rows.append({"shortcut": name, "share": share, "plantings": flags.plantings, **row, **effect})
            say(str(rows[-1]))
    return {"plantings": flags.plantings, "model": dict(counts[0]), "data": dict(counts[1])}, rows


def permuted(pairs: Sequence[PreferencePair], flags: argparse.Namespace) -> dict[str, int]:
    """Of files whose labels are coins: how many raise a shortcut, and how many what they should."""
    counts = Counter(dict.fromkeys(("files", "shortcut_model", "shortcut_data", *EXPECTED, "within_2_errors"), 0))
    for seed in range(flags.plantings):
        model, data = both_audits(permute(pairs, seed=seed), flags, seed)
        found = {finding.name: finding for finding in model}
        accuracy = found["accuracy"]
        assert accuracy.value is not None and accuracy.interval is not None
        error = (accuracy.interval[1] - accuracy.interval[0]) / 2 / 1.96
        counts["files"] += 1
        counts["shortcut_model"] += bool(raised(model))
        counts["shortcut_data"] += bool(raised(data))
        counts["accuracy"] += accuracy.severity != "ok"
        counts["prompt_ignored"] += found["prompt_ignored"].severity != "ok"
        counts["label_noise"] += any(each.name == "label_noise" and each.severity != "ok" for each in data)
        counts["within_2_errors"] += abs(accuracy.value - 0.5) <= 2 * error
    return dict(counts)


def main(words: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planted", allow_abbrev=False)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the files of preference pairs")
    parser.add_argument("--files", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--shortcuts", nargs="+", choices=list(PLANTED), default=list(PLANTED))
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--plantings", type=int, default=40, help="of each shortcut at each share")
    parser.add_argument("--first-seed", type=int, default=0, help="of the plantings")
    parser.add_argument("--num-probes", type=int, default=200)
    parser.add_argument("--trunk", type=Path, help="policy to train prefloop's own reward models from, not word models")
    parser.add_argument("--quick", action="store_true", help="few pairs, one planting: proves that it runs, no more")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="JSON to FILE, or in place of the table")
    flags = parser.parse_args(words)
    if flags.quick:
        flags.plantings, flags.num_probes, flags.shares = 1, 40, flags.shares[-1:]
    answer: dict[str, Any] = {}
    for name in flags.files:
        if name != "sandbox" and not (flags.data / f"{name}.jsonl.gz").exists():
            say(f"skipped: {flags.data / name}.jsonl.gz is not here")
            continue
        pairs = read(name, flags.data, quick=flags.quick)
        of_coins = permuted(pairs, flags)
        clean, rows = measure(pairs, flags.shortcuts, flags)
        answer[name] = {"num_pairs": len(pairs), "unplanted": clean, "permuted": of_coins, "rows": rows}
    publish(flags, answer, [_table(name, found) for name, found in answer.items()])


def _table(name: str, found: Mapping[str, Any]) -> str:
    header = ["planted", "share", "effect", "model: found", "on top", "other", "data: found", "other"]
    keys = ("model_found", "model_on_top", "model_other", "data_found", "data_other")
    rows = [
        [row["shortcut"], f"{row['share']:.0%}", f"{row['effect']:.2f}", *(str(row[key]) for key in keys)]
        for row in found["rows"]
    ]
    clean, coins = found["unplanted"], found["permuted"]
    told = (
        f"{name}: {found['num_pairs']} pairs, {clean['plantings']} plantings. Raised without planting: by audit reward "
    )
    told += f"{clean['model']}, by audit data {clean['data']}. With permuted labels: {coins}"
    return f"{told}\n\n{table(header, rows)}"


if __name__ == "__main__":
    main()
