"""The demo: one world, honest and biased annotators, and what optimisation makes of either reward model.

Stages: supervised fine-tuning; comparisons of its samples judged by honest and by biased annotators; a reward model
from each; PPO against the honest one ("tuned"), against the biased one without a KL budget ("hacked") and with the
default budget ("guarded"). Then the truth, on prompts that nothing was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefloop.console import say
from prefloop.data.read import read_pairs
from prefloop.recipes.config import DemoConfig
from prefloop.recipes.measure import Measured, curve_row, difference, means_of_parts, noise_ceiling, peak_step, plain
from prefloop.recipes.scenario import (
    Clock,
    alarms_of,
    audit_of_pairs,
    last,
    learn_reward,
    measure_runs,
    optimise,
    peak_memory,
    require_feasible,
    scenario_named,
    stored_answer,
    write_curves,
)
from prefloop.recipes.stages import Bench, pair_prompts, run_sft, write_data
from prefloop.recipes.workers import Workers
from prefloop.report.demo import render_demo
from prefloop.rundir import RunDir, atomic_file, read_section, write_rows
from prefloop.statistics.pairwise import accuracy_with_ties
from prefloop.types import InputError
from prefloop.world.scenarios import SCENARIOS

CEILING_PAIRS = 1000
"""Pairs that the noise ceiling is measured on."""


def run(config: DemoConfig) -> dict[str, Any]:
    """Run (or resume) the demo. The answer is the one that `docs/commands` describes."""
    if not scenario_named(config.scenario).expected_findings:
        raise InputError(
            f"the annotators of {config.scenario!r} have no bias to show",
            field="scenario",
            remedy=f"known: {', '.join(name for name, each in SCENARIOS.items() if each.expected_findings)}",
        )
    require_feasible(config)
    with RunDir("demo", config, {}) as run_dir:
        if run_dir.finished:
            return stored_answer(run_dir.path)
        clock, root = Clock(), run_dir.path
        say("1. Supervised fine-tuning, from scratch, on demonstrations of mixed quality.")
        with clock.timed("data and SFT"):
            bench = Bench.build(root, config, num_threads=2 * config.num_threads)
            write_data(bench)
            run_sft(bench)
        with Workers() as workers:
            measured = _learn_and_measure(root, config, clock, workers)
        write_curves(root, measured)
        answer = _answer(root, config, measured)
        answer |= {"seconds": clock.total(), "peak_memory_bytes": peak_memory(), "stages": dict(clock.seconds)}
        run_dir.finish(stopped="done", metrics={}, outputs={}, answer=answer)
        with atomic_file(root / "report.html") as file:
            file.write(render_demo(root))
        _tell(answer)
        return answer


def _learn_and_measure(
    root: Path, config: DemoConfig, clock: Clock, workers: Workers
) -> dict[str, dict[int, Measured]]:
    """The stages after SFT. The checkpoints of each policy run, measured."""
    say("2. Annotators compare pairs of its answers, honest ones and biased ones. The pairs are audited; a reward")
    say("   model learns from each, whatever the audit says: this is to show what comes of it.")
    with clock.timed("pairs and reward models"):
        workers.side_by_side(*((learn_reward, (root, config, name)) for name in ("honest", config.scenario)))
    say("3. PPO optimises the policy against each, held near the SFT policy by a KL penalty; against the biased")
    say("   one without a KL budget, and with one.")
    with clock.timed("PPO"):
        workers.side_by_side(
            (optimise, (root, config, config.scenario, "hacked", None)),
            (optimise, (root, config, "honest", "tuned", None)),
            (optimise, (root, config, config.scenario, "guarded", config.kl_budget)),
        )
    say(f"4. The truth beside the proxy, on {config.num_eval_prompts} prompts that nothing was trained on.")
    with clock.timed("evaluation"):
        tuned, biased = workers.side_by_side(
            (measure_runs, (root, config, "honest", ("tuned",))),
            (measure_runs, (root, config, config.scenario, ("hacked", "guarded"))),
        )
    return {**tuned, **biased}


def _policies(measured: Mapping[str, Mapping[int, Measured]]) -> dict[str, Measured]:
    """The five policies of the table."""
    hacked = measured["hacked"]
    return {
        "sft": measured["tuned"][0],
        "tuned": last(measured["tuned"]),
        "hacked_peak": hacked[peak_step(hacked)],
        "hacked": last(hacked),
        "guarded": last(measured["guarded"]),
    }


def _answer(root: Path, config: DemoConfig, measured: Mapping[str, Mapping[int, Measured]]) -> dict[str, Any]:
    """Store what the policies wrote; give the answer."""
    policies = _policies(measured)
    (root / "rollouts").mkdir(exist_ok=True)
    write_rows(
        root / "rollouts" / "evaluation.jsonl",
        [{"policy": name, **row} for name, policy in policies.items() for row in policy.rows],
    )
    sft, peak, hacked, guarded = (policies[name] for name in ("sft", "hacked_peak", "hacked", "guarded"))
    return {
        "report": str(root / "report.html"),
        "seed": config.seed,
        "scenario": config.scenario,
        "scenario_description": SCENARIOS[config.scenario].description,
        "kl_budget": config.kl_budget,
        "num_prompts": config.num_eval_prompts,
        "num_pairs": config.num_pairs,
        "peak_step": peak_step(measured["hacked"]),
        "kl": {name: policies[name].kl for name in ("tuned", "hacked", "guarded")},
        "proxy": {name: plain(policy.proxy()) for name, policy in policies.items()},
        "true_utility": {name: plain(policy.utility()) for name, policy in policies.items()},
        "differences": {
            "tuned_minus_sft": plain(difference(policies["tuned"], sft)),
            "hacked_minus_peak": plain(difference(hacked, peak)),
            "guarded_minus_hacked": plain(difference(guarded, hacked)),
            "guarded_minus_sft": plain(difference(guarded, sft)),
        },
        "reward_accuracy": {
            "honest": _reward_accuracy(root, config, "honest"),
            "biased": _reward_accuracy(root, config, config.scenario),
        },
        "audits": {
            who: audit_of_pairs(root, config, name) for who, name in (("honest", "honest"), ("biased", config.scenario))
        },
        "alarms": {name: alarms_of(root, config, name) for name in ("tuned", "hacked", "guarded")},
        "worst_part": _fell_most(means_of_parts(peak.reported()), means_of_parts(hacked.reported())),
        "worst_kind": _fell_most(curve_row("", 0, peak)["kinds"], curve_row("", 0, hacked)["kinds"]),
    }


def _fell_most(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """The name whose value fell most; what is missing counts 0."""
    return min({**before, **after}, key=lambda name: after.get(name, 0.0) - before.get(name, 0.0))


def _reward_accuracy(root: Path, config: DemoConfig, scenario: str) -> dict[str, float]:
    """Accuracy on held-out prompts of the same annotators' pairs, beside the longer answer's and the noise ceiling."""
    bench = Bench.build(root, config)
    metrics = read_section(bench.stage(f"reward-{scenario}") / "result.json", "metrics")
    if "eval/accuracy" not in metrics:
        raise InputError("no pair was held out to measure the reward model on", field="num_pairs", remedy="raise it")
    pairs = read_pairs([str(bench.data(f"pairs-{scenario}"))]).records
    longer = accuracy_with_ties([float(len(pair.chosen) - len(pair.rejected)) for pair in pairs])
    ceiling = noise_ceiling(bench.world, SCENARIOS[scenario], pairs[:CEILING_PAIRS], pair_prompts(bench))
    return {"accuracy": metrics["eval/accuracy"], "longer": longer, "ceiling": ceiling}


def _tell(answer: Mapping[str, Any]) -> None:
    """The result in a few lines."""
    for name, value in answer["true_utility"].items():
        say(
            f"   {name:12s} true utility {value['mean']:6.2f} +- {value['standard_error']:.2f}   "
            f"proxy {answer['proxy'][name]['mean']:6.2f}"
        )
