"""How noisy each estimate of the policy gradient is at equal numbers of samples, and what clipping is for.

Noise: at the SFT policy, many independent rounds of 96 responses each give a gradient apiece. Reported is the trace of
their covariance over the squared length of their mean: how many times larger the noise of one round is than the signal.
It does not depend on the scale of a loss. All estimators average over responses, so that they estimate the same thing
up to that scale (GRPO's division by the group's deviation and GAE's whitening change more than the scale).

Clipping: PPO with four passes over each round, with the clipped ratio and without.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.evaluate import measured
from benchmarks.options import gain_cell, options, publish, table
from benchmarks.start import configured, logged, policy_words, prepare, train_policy
from prefloop.recipes.measure import difference
from prefloop.recipes.stages import Bench
from prefloop.rundir import RunDir, resolve_model
from prefloop.train.policy import PolicyTrainer

SHARED = "--settings.loss-reduction response"
GAE = "--algorithm ppo --prompts-per-step 96 --settings.gae-lambda"
ESTIMATORS = {
    "REINFORCE, no baseline": "--algorithm reinforce --prompts-per-step 96 --settings.baseline none",
    "REINFORCE, mean of the round": "--algorithm reinforce --prompts-per-step 96",
    "RLOO, groups of 4": "--algorithm rloo --prompts-per-step 24",
    "GRPO, groups of 4": "--algorithm grpo --prompts-per-step 24 --settings.group-size 4",
    "GAE, lambda 0.95": f"{GAE} 0.95",
    "GAE, lambda 1": f"{GAE} 1",
}
"""What makes a gradient of 96 responses, as one would type it."""
WARMED = "value-warmed"
WARM_UP = (
    "--algorithm ppo --num-steps 20 --prompts-per-step 96 --value-optimizer.lr 1e-3 --settings.value-warmup-steps 20"
)
"""The value model of GAE: trained on rollouts of the policy at which gradients are taken, which stands still."""
NUM_ROUNDS = 48
CLIPPING = {"with": "0.2", "without": "1e6"}
RATES = ("3e-4", "1e-3")
FOUR_PASSES = "--algorithm ppo --num-steps 24 --prompts-per-step 96 --settings.num-epochs 4 --kl-coef 0.08"
FOUR_PASSES += " --kl-budget none --value-optimizer.lr 1e-3"
QUICK = "--num-steps 2 --prompts-per-step 4"


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = options("variance", words)
    noise: dict[int, dict[str, dict[str, float]]] = {}
    passes: dict[int, dict[str, dict[str, Any]]] = {}
    for seed in flags.seeds:
        bench = prepare(flags.out, seed, quick=flags.quick)
        train_policy(bench, WARMED, "honest", f"{WARM_UP} {QUICK if flags.quick else ''}")
        noise[seed] = {name: noise_of(bench, given, quick=flags.quick) for name, given in ESTIMATORS.items()}
        passes[seed] = stability(bench, quick=flags.quick)
    publish(flags, {"noise": noise, "clipping": passes}, [noise_table(noise), clipping_table(passes)])


def noise_of(bench: Bench, given: str, *, quick: bool) -> dict[str, float]:
    """Noise over signal of one estimator, over independent rounds at the SFT policy."""
    value = f" --value {bench.stage(WARMED)}" if GAE in given else ""
    _, config = configured(*policy_words(bench, "honest", f"{given} {SHARED}{value} --kl-budget none"))
    start = resolve_model(config.model, "model")
    with tempfile.TemporaryDirectory() as scratch:
        config = config.model_copy(update={"out": str(Path(scratch) / "run")})
        with RunDir("train policy", config, {}) as run:
            trainer = PolicyTrainer(config, run, start, start)
            state = trainer.state()
            gradients = []
            for number in range(4 if quick else NUM_ROUNDS):
                state.step = number
                batch = trainer.collector.collect(state).batch
                trainer.updater.backward(state, batch, trainer.algorithm.advantages(batch))
                gradients.append(flat_gradient(trainer.players.policy))
    return noise_over_signal(torch.stack(gradients))


def flat_gradient(model: torch.nn.Module) -> Tensor:
    """[P] the gradient of all weights, which is cleared."""
    flat = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    model.zero_grad(set_to_none=True)
    return flat


def noise_over_signal(gradients: Tensor) -> dict[str, float]:
    """Of independent gradients [K, P]: trace of the covariance over the squared length of the mean, both unbiased; and
    the cosine between the means of the two halves. Infinite where no signal is left."""
    number = len(gradients)
    mean = gradients.mean(0)
    noise = float((gradients - mean).square().sum() / (number - 1))
    # The squared length of a mean of K gradients holds a K-th of the noise.
    signal = float(mean.square().sum()) - noise / number
    halves = gradients[: number // 2].mean(0), gradients[number // 2 :].mean(0)
    cosine = float(torch.nn.functional.cosine_similarity(*halves, dim=0))
    return {"noise_over_signal": noise / signal if signal > 0 else float("inf"), "cosine_of_halves": cosine}


def stability(bench: Bench, *, quick: bool) -> dict[str, dict[str, Any]]:
    """Four passes over each round, at two learning rates, with and without clipping."""
    found = {}
    sft = measured(bench, "sft")
    for rate in RATES:
        for name, clip_range in CLIPPING.items():
            stage = f"four-passes-{rate}-{name}"
            given = f"{FOUR_PASSES} --optimizer.lr {rate} --settings.clip-range {clip_range}"
            train_policy(bench, stage, "honest", f"{given} {QUICK if quick else ''}")
            steps, policy = logged(bench.stage(stage)), measured(bench, stage)
            found[f"{rate} {name}"] = {
                "largest_ratio": max(step["policy/ratio_max"] for step in steps),
                "clip_fraction": fmean(step["policy/clip_fraction"] for step in steps),
                "kl": policy.kl,
                "entropy": steps[-1]["policy/entropy"],
                "proxy": policy.proxy().mean,
                "utility": policy.utility(),
                "gain": difference(policy, sft),
            }
    return found


def noise_table(found: Mapping[int, Mapping[str, Mapping[str, float]]]) -> str:
    """A line for each estimator: noise over signal by seed, and the mean cosine of the halves."""
    lines = [
        [
            name,
            *(f"{rows[name]['noise_over_signal']:.1f}" for rows in found.values()),
            f"{fmean(rows[name]['cosine_of_halves'] for rows in found.values()):.2f}",
        ]
        for name in ESTIMATORS
    ]
    return table(["gradient of 96 responses", *(f"seed {seed}" for seed in found), "cosine of halves"], lines)


def clipping_table(found: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> str:
    """A line for each seed, rate and way."""
    lines = [
        [
            str(seed),
            *name.split(),
            f"{row['largest_ratio']:.3g}",
            f"{100 * row['clip_fraction']:.1f} %",
            f"{row['kl']:.2f}",
            f"{row['entropy']:.2f}",
            f"{row['proxy']:.2f}",
            gain_cell(row["utility"], row["gain"]),
        ]
        for seed, rows in found.items()
        for name, row in rows.items()
    ]
    header = ["seed", "rate", "clipping", "largest ratio", "tokens clipped", "KL, nats", "entropy", "proxy"]
    return table([*header, "true utility"], lines)


if __name__ == "__main__":
    main()
