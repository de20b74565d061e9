"""What `benchmarks.gao` trains and samples: one SFT policy, five reward models, one pool of answers, five policy runs.

Every step is a run directory or a file that is written last, so that a second call goes on where the first one ended.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from benchmarks.evaluate import measured, proxy_of, unseen_prompts
from benchmarks.start import prepare, train_policy
from prefloop.console import say
from prefloop.models.load import load_policy
from prefloop.recipes.measure import Measured
from prefloop.recipes.stages import Bench, write_pairs
from prefloop.reward.scoring import Response
from prefloop.rollout.respond import respond
from prefloop.rundir import resolve_model, write_json, write_rows
from prefloop.statistics.best_of_n import SAMPLES_PER_N
from prefloop.train import reward, sft
from prefloop.train.checkpoint import checkpoints, step_of
from prefloop.train.config import OptimizerConfig, RewardConfig, SFTConfig
from prefloop.world.truth import utility

Floats = NDArray[np.float64]
T = TypeVar("T")

POLICY = "--algorithm rloo --optimizer.lr 5e-4 --kl-coef 0 --kl-budget none"
"""Nothing holds the policy back: the curve is to be seen beyond its peak."""


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    widths: tuple[int, ...] = (32, 64, 128)
    """Widths of the reward models, all with two layers. The middle one is trained on every number of pairs."""
    num_pairs: tuple[int, ...] = (250, 1000, 4000)
    """Pairs that they are trained on. The middle number is for every width."""
    num_comparisons: int = 5500
    """Comparisons that are judged; ties and equal answers make no pair."""
    num_repeats: int = 3
    """Reward models of each size, with other pairs and another seed; policy runs are against the first alone."""
    reward_epochs: int = 2
    num_pool_prompts: int = 96
    num_samples: int = 500
    """Answers to each prompt of the pool: best-of-n goes to a tenth."""
    num_eval_prompts: int = 400
    prompts_per_step: int = 24
    """Four responses each."""
    num_steps: int = 64
    checkpoint_every: int = 4


QUICK = Plan(
    widths=(16, 24),
    num_pairs=(20, 40),
    num_comparisons=80,
    num_repeats=1,
    reward_epochs=1,
    num_pool_prompts=8,
    num_samples=2 * SAMPLES_PER_N,
    num_eval_prompts=16,
    prompts_per_step=2,
    num_steps=2,
    checkpoint_every=1,
)


@dataclass(frozen=True)
class Size:
    """A reward model of the experiment."""

    width: int
    num_pairs: int
    repeat: int = 0

    @property
    def name(self) -> str:
        """As its stages are called."""
        return f"w{self.width}-n{self.num_pairs}{self._again}"

    @property
    def pairs(self) -> str:
        """As its data file is called. Models that differ in width alone share it."""
        return f"pairs-{self.num_pairs}{self._again}"

    @property
    def _again(self) -> str:
        return f"-r{self.repeat}" if self.repeat else ""


def sizes_of(plan: Plan) -> list[Size]:
    """The cross of the plan: every width at the middle number of pairs, every number of pairs at the middle width."""
    width, number = plan.widths[len(plan.widths) // 2], plan.num_pairs[len(plan.num_pairs) // 2]
    cross = dict.fromkeys([(each, number) for each in plan.widths] + [(width, each) for each in plan.num_pairs])
    return [Size(*each, repeat) for each in cross for repeat in range(plan.num_repeats)]


def start(out: Path, seed: int, plan: Plan, *, quick: bool) -> Bench:
    """The SFT policy and the judged pairs of a seed, with every reward model."""
    bench = prepare(out, seed, quick=quick, scenarios=())
    more = {"num_pairs": plan.num_comparisons, "num_eval_prompts": plan.num_eval_prompts}
    bench = dataclasses.replace(bench, config=bench.config.model_copy(update=more))
    if not bench.data("pairs-honest").exists():
        write_pairs(bench, "honest")
    rows = [json.loads(line) for line in bench.data("pairs-honest").read_text(encoding="utf-8").splitlines()]
    for size in sizes_of(plan):
        pairs = bench.data(size.pairs)
        if not pairs.exists():
            write_rows(pairs, drawn(rows, size, seed=seed))
        train_reward(bench, size, plan)
    return bench


def drawn(rows: Sequence[T], size: Size, *, seed: int) -> list[T]:
    """The pairs of a reward model: those of the first repeat are nested, the others are drawn anew."""
    assert len(rows) >= size.num_pairs, f"{len(rows)} pairs"
    order = np.random.default_rng([seed, size.repeat]).permutation(len(rows)) if size.repeat else np.arange(len(rows))
    return [rows[place] for place in order[: size.num_pairs]]


def train_reward(bench: Bench, size: Size, plan: Plan) -> None:
    """A reward model on a trunk of its own width, which was fine-tuned on the demonstrations as the policy was."""
    config = bench.config
    trunk = bench.stage("sft")
    if size.width != config.scratch.hidden_size:
        trunk = bench.stage(f"sft-w{size.width}")
        train_trunk(bench, size.width, trunk)
    reward.train(
        RewardConfig(
            model=str(trunk),
            data=(str(bench.data(size.pairs)),),
            out=str(bench.stage(f"reward-{size.name}")),
            seed=config.seed + 1000 * size.repeat,
            token_budget=config.token_budget,
            num_epochs=plan.reward_epochs,
            batch_size=32,
            eval_fraction=0,
            optimizer=OptimizerConfig(lr=1e-3),
        ),
        look_up_audits=False,
    )


def train_trunk(bench: Bench, width: int, out: Path) -> None:
    """Supervised fine-tuning from scratch of a model of another width."""
    config = bench.config
    sft.train(
        SFTConfig(
            data=(str(bench.data("demonstrations")),),
            out=str(out),
            seed=config.seed,
            token_budget=config.token_budget,
            scratch=config.scratch.model_copy(update={"hidden_size": width}),
            num_epochs=config.sft_epochs,
            batch_size=32,
            eval_every=250,
            optimizer=config.sft_optimizer,
        )
    )


def num_weights(bench: Bench, size: Size) -> int:
    """Weights of a reward model without its embedding, as Gao et al. count them."""
    folder = resolve_model(str(bench.stage(f"reward-{size.name}")), "reward")
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        # A file of safetensors has keys, but cannot be iterated.
        names = [name for name in file.keys() if "embed" not in name]  # noqa: SIM118
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in names)


@dataclass(frozen=True)
class Pool:
    """Many answers of the SFT policy to each prompt."""

    gold: Floats
    """[P, N] true utility."""
    place: NDArray[np.int64]
    """[P, N] which different answer of all it is."""
    answers: list[dict[str, object]]
    """Every different answer to a prompt once: {"prompt": its place, "text", "finished"}."""


def pool_of(bench: Bench, plan: Plan) -> Pool:
    """Sample the pool, or read it."""
    path = bench.root / "pool.json"
    if not path.exists():
        say(f"seed {bench.config.seed}: {plan.num_pool_prompts} x {plan.num_samples} answers")
        write_json(path, _sample(bench, plan))
    stored = json.loads(path.read_text(encoding="utf-8"))
    place = np.array(stored["place"])
    return Pool(np.array(stored["gold"])[place], place, stored["answers"])


def _sample(bench: Bench, plan: Plan) -> dict[str, object]:
    model, chat = load_policy(resolve_model(str(bench.stage("sft")), "model"))
    prompts = unseen_prompts(bench)[: plan.num_pool_prompts]
    asked = [prompt for prompt in prompts for _ in range(plan.num_samples)]
    drawn = respond(
        model, chat, asked, max_new_tokens=bench.config.max_new_tokens, temperature=1.0, seed=bench.config.seed
    )
    index: dict[tuple[int, str, bool], int] = {}
    flat = [
        index.setdefault((number // plan.num_samples, each.text, each.finish_reason == "stop"), len(index))
        for number, each in enumerate(drawn)
    ]
    return {
        "place": [flat[row : row + plan.num_samples] for row in range(0, len(flat), plan.num_samples)],
        "answers": [{"prompt": prompt, "text": text, "finished": finished} for prompt, text, finished in index],
        "gold": [utility(bench.world, prompts[prompt], text).total for prompt, text, _ in index],
    }


def proxies_of(bench: Bench, size: Size, pool: Pool) -> Floats:
    """[P, N] scores of the pool. Each different answer is scored once, so that the same answers tie exactly."""
    path = bench.root / "measured" / f"pool-{size.name}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        prompts = unseen_prompts(bench)
        scores = proxy_of(bench, size.name).score(
            [prompts[int(str(each["prompt"]))] for each in pool.answers],
            [Response(str(each["text"]), bool(each["finished"])) for each in pool.answers],
        )
        write_json(path, scores)
    return np.array(json.loads(path.read_text(encoding="utf-8")))[pool.place]


def optimised(bench: Bench, size: Size, plan: Plan) -> dict[int, Measured]:
    """The policy run against a reward model: {step: measured}, step 0 the SFT policy."""
    name = f"rl-{size.name}"
    length = f"--prompts-per-step {plan.prompts_per_step} --num-steps {plan.num_steps}"
    kept = f"--checkpoint-every {plan.checkpoint_every} --keep-checkpoints 10000"
    train_policy(bench, name, size.name, f"{POLICY} {length} {kept}")
    steps = [step_of(each) for each in checkpoints(bench.stage(name) / "checkpoints")]
    say(f"{name}: {len(steps)} checkpoints")
    return {step: measured(bench, name, size.name, step=step) for step in steps if step % plan.checkpoint_every == 0}
