"""`python -m benchmarks.kl_budget_sandbox`: the KL budget that short runs give in the simulated world, and its truth.

Three short PPO runs without a budget, against the reward model of annotators who love a confident tone. Held-out
evidence is a reward model of honest annotators, which chooses nothing in these runs but the budget. The truth is read
at the end, at every checkpoint, on prompts that nothing was trained on: what the budget is worth beside the best point
of the curve and beside its end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluate import proxy_of, unseen_prompts
from benchmarks.options import options, publish, table
from benchmarks.start import configured, logged, policy_words, prepare
from prefloop.evaluate.budget import run as find_budget
from prefloop.evaluate.config import BudgetConfig
from prefloop.models.load import load_policy
from prefloop.recipes.measure import measure
from prefloop.recipes.stages import Bench
from prefloop.rollout.respond import plain_prompt
from prefloop.rundir import resolve_model, write_json, write_rows
from prefloop.train.config import DEFAULT_KL_BUDGET
from prefloop.world.prompts import make_prompts

RUNS = (1, 2, 3)
"""Seeds of the short runs: of their sampling, not of the world."""
EVERY = 2
"""Steps between held-out evaluations, and between checkpoints."""
PLAIN = "--algorithm ppo --kl-coef 0.08 --kl-budget none --optimizer.lr 3e-4 --value-optimizer.lr 1e-3"


def short_runs(bench: Bench, *, steps: int, prompts_per_step: int) -> list[Path]:
    """The run directories; what is finished is not done again."""
    held_out = bench.data("budget-prompts")
    if not held_out.exists():
        prompts = make_prompts(bench.world, split="train", count=256, seed=bench.config.seed + 7)
        write_rows(held_out, [{"prompt": plain_prompt(prompt.messages)} for prompt in prompts])
    found = []
    for seed in RUNS:
        out = bench.stage(f"budget-{seed}")
        words = policy_words(bench, "confidence", PLAIN)
        words[words.index("--seed") + 1] = str(seed)
        words += ["--num-steps", str(steps), "--prompts-per-step", str(prompts_per_step), "--settings.num-epochs", "2"]
        words += ["--eval-reward", str(bench.stage("reward-honest")), "--eval-prompts", str(held_out)]
        words += ["--eval-every", str(EVERY), "--checkpoint-every", str(EVERY), "--keep-checkpoints", "1000"]
        train, config = configured(*words, "--out", str(out))
        train(config)
        found.append(out)
    return found


def truths(bench: Bench, run: Path) -> list[dict[str, float]]:
    """KL and true utility at each checkpoint of a run, on the prompts that nothing was trained on."""
    path = bench.root / "measured" / f"{run.name}-truth.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        reference = load_policy(resolve_model(str(bench.stage("sft")), "model"))[0]
        kl_of = {int(row["step"]): row["kl/full"] for row in logged(run) if "kl/full" in row}
        rows = []
        for checkpoint in sorted((run / "checkpoints").glob("step-*")):
            step = int(checkpoint.name.removeprefix("step-"))
            if step + 1 not in kl_of:
                continue
            found = measure(
                bench.world,
                checkpoint / "policy",
                reference,
                unseen_prompts(bench)[:400],
                proxy_of(bench, "confidence"),
                max_new_tokens=bench.config.max_new_tokens,
                token_budget=bench.config.token_budget,
                seed=bench.config.seed,
            )
            utility = found.utility()
            # The KL of the round after it, as the budget measures it in training.
            rows.append({"step": step, "kl": kl_of[step + 1], "utility": utility.mean, "error": utility.standard_error})
        write_json(path, {"rows": rows})
    return list(json.loads(path.read_text(encoding="utf-8"))["rows"])


def worth_at(rows: Sequence[dict[str, float]], budget: float) -> float:
    """True utility of the last checkpoint within a budget: what a run with it would have kept."""
    inside = [row for row in rows if row["kl"] <= budget]
    return max(inside or rows[:1], key=lambda row: row["step"])["utility"]


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = options("kl_budget_sandbox", words, seeds=(1,))
    results = []
    for seed in flags.seeds:
        bench = prepare(flags.out, seed, quick=flags.quick, scenarios=("confidence", "honest"))
        runs = short_runs(bench, steps=14 if flags.quick else 24, prompts_per_step=8 if flags.quick else 96)
        answer = find_budget(BudgetConfig(runs=tuple(str(run) for run in runs)))
        results.append({"seed": seed, "answer": answer, "truth": {run.name: truths(bench, run) for run in runs}})
    publish(flags, {"results": results}, [table(*_table(results))])


def _table(results: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    header = ["seed", "budget", "interval", "SFT", "at the budget", "at the default", "best checkpoint", "at the end"]
    rows = []
    for each in results:
        curves, answer = list(each["truth"].values()), each["answer"]
        low, high = answer["interval"] or (None, None)
        ends = " to ".join("?" if end is None else f"{end:.2f}" for end in (low, high))
        columns = (
            [curve[0]["utility"] for curve in curves],
            [worth_at(curve, answer["kl_budget"]) for curve in curves],
            [worth_at(curve, DEFAULT_KL_BUDGET) for curve in curves],
            [max(row["utility"] for row in curve) for curve in curves],
            [curve[-1]["utility"] for curve in curves],
        )
        means = [f"{np.mean(column):.2f} ({', '.join(f'{value:.2f}' for value in column)})" for column in columns]
        rows.append([str(each["seed"]), f"{answer['kl_budget']:.2f}", ends, *means])
    return header, rows


if __name__ == "__main__":
    main()
