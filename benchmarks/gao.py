"""`python -m benchmarks.gao`: the curves of Gao et al. (2022) in the simulated world, where gold is the truth.

One SFT policy a seed; honest annotators, noisy and without a bias; reward models of three widths and of three numbers
of pairs, several of each. They are optimised in two ways: best-of-n from one pool of answers, and RLOO that nothing
holds back. Gold is true utility on prompts that nothing was trained on. Both laws are fitted to every curve.

Differences from the paper: gold is no reward model but the world's own utility, labels are noisy votes rather than
gold's, the optimiser is RLOO rather than PPO, and laws are fitted up to 10 nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gao_curves import (
    PROXY_GAIN,
    Curve,
    Findings,
    Fitted,
    Interval,
    Way,
    agreement,
    best_of_n,
    findings,
    of_run,
    spread,
)
from benchmarks.gao_figures import write_pages
from benchmarks.gao_runs import POLICY, QUICK, Plan, Size, num_weights, optimised, pool_of, proxies_of, sizes_of, start
from benchmarks.options import options, publish, table
from prefloop.console import say
from prefloop.recipes.stages import Bench
from prefloop.statistics.overoptimization import Law

SIZE = ("width", "pairs", "model")


@dataclass(frozen=True)
class Model:
    """A reward model, and what became of optimising it."""

    size: Size
    num_weights: int
    agreement: float
    """Share of pairs of pool answers that it orders as gold does."""
    curves: dict[str, Curve]
    findings: dict[str, Findings]


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = options("gao", words, seeds=(1,))
    plan = QUICK if flags.quick else Plan()
    found = {seed: run(start(flags.out / "gao", seed, plan, quick=flags.quick), plan) for seed in flags.seeds}
    pages = write_pages(
        flags.out / "gao", {seed: {each.size: each.curves for each in models} for seed, models in found.items()}
    )
    tables = [
        f"seed {seed}, {name}\n\n{text}" for seed, models in found.items() for name, text in tables_of(models).items()
    ]
    answer = {
        "plan": plan,
        "policy": POLICY,
        "seeds": {seed: [as_answer(model) for model in models] for seed, models in found.items()},
    }
    publish(flags, answer, [*tables, f"plots: {', '.join(map(str, pages))}"])


def run(bench: Bench, plan: Plan) -> list[Model]:
    """Every reward model of a seed."""
    pool = pool_of(bench, plan)
    models = []
    for size in sizes_of(plan):
        proxy = proxies_of(bench, size, pool)
        curves = {"best_of_n": best_of_n(proxy, pool.gold)}
        if not size.repeat:
            points = optimised(bench, size, plan)
            curves["rl"] = of_run(points, gold_unit=spread(pool.gold), proxy_unit=spread(proxy))
        models.append(
            Model(
                size,
                num_weights(bench, size),
                agreement(proxy, pool.gold),
                curves,
                {way: findings(curve) for way, curve in curves.items()},
            )
        )
        say(f"seed {bench.config.seed}, {size.name}: done")
    return models


def as_answer(model: Model) -> dict[str, Any]:
    """A model as the JSON has it: mean curves and findings."""
    return {
        "size": model.size,
        "num_weights": model.num_weights,
        "agreement": model.agreement,
        "curves": {
            way: {
                "places": curve.places,
                "kl": curve.kl.tolist(),
                "gold": curve.gold.mean(axis=0).tolist(),
                "proxy": curve.proxy.mean(axis=0).tolist(),
            }
            for way, curve in model.curves.items()
        },
        "findings": model.findings,
    }


def tables_of(models: Sequence[Model]) -> dict[str, str]:
    """The tables of a seed, by title."""
    return {
        "reward models": table(
            [*SIZE, "weights", "agreement with gold"],
            [
                [
                    *size_cells(each),
                    f"{each.num_weights:,}",
                    f"{100 * each.agreement:.1f} %",
                ]
                for each in models
            ],
        ),
        "best-of-n, laws": laws_table(models, "best_of_n", "rl"),
        "best-of-n, gold": gold_table(models, "best_of_n", "n"),
        "RL, laws": laws_table(models, "rl", "best_of_n"),
        "RL, gold": gold_table(models, "rl", "step"),
    }


def size_cells(model: Model) -> list[str]:
    """Which reward model a line is about."""
    return [str(model.size.width), str(model.size.num_pairs), str(model.size.repeat + 1)]


def laws_table(models: Sequence[Model], way: Law, other: Law) -> str:
    """A line for each reward model: the way's own law, and R squared of the other."""
    header = [*SIZE, "alpha", "beta", "R²", "R² of the other law", "peak of the law, nats", "gold there"]
    rows = []
    for model in (each for each in models if way in each.findings):
        laws = model.findings[way].laws
        cells = _law_cells(laws[way], laws[other]) if way in laws and other in laws else ["-"] * 6
        rows.append([*size_cells(model), *cells])
    return table(header, rows)


def _law_cells(law: Fitted, other: Fitted) -> list[str]:
    return [
        f"{law.alpha:.2f} {interval(law.alpha_interval)}",
        f"{law.beta:.2f} {interval(law.beta_interval)}",
        f"{law.r_squared:.3f}",
        f"{other.r_squared:.3f}",
        f"{'none' if law.peak_kl is None else f'{law.peak_kl:.2f}'} {interval(law.peak_interval)}",
        "-" if law.peak_gold is None else f"{law.peak_gold:.2f}",
    ]


def gold_table(models: Sequence[Model], way: Way, place: str) -> str:
    """A line for each reward model: where gold was highest, where it ended, and whether it fell."""
    header = [*SIZE, f"highest gold (KL, {place})", "gold at the end (KL; the law says)"]
    header += ["proxy at the end", "drop", f"gold at a proxy of {PROXY_GAIN:g} (KL)"]
    rows = []
    for model in (each for each in models if way in each.findings):
        found = model.findings[way]
        law = found.laws.get(way)
        drop = "-"
        if found.drop is not None and found.drop_interval is not None:
            drop = f"{found.drop:.2f} {interval(found.drop_interval)}"
        rows.append(
            [
                *size_cells(model),
                f"{found.highest_gold:.2f} ({found.highest_kl:.2f}, {found.highest_at})",
                f"{found.last_gold:.2f} ({found.last_kl:.2f}; {f'{law.at_end:.2f}' if law else '-'})",
                f"{found.last_proxy:.2f}",
                drop,
                "-" if found.at_proxy is None else f"{found.at_proxy[1]:.2f} ({found.at_proxy[0]:.2f})",
            ]
        )
    return table(header, rows)


def interval(bounds: Interval) -> str:
    """`(0.10 to 0.20)`; a bound that no KL of use reaches is "beyond"."""
    low, high = (f"{bound:.2f}" if abs(bound) < 1000 else "beyond" for bound in bounds)
    return f"({low} to {high})"


if __name__ == "__main__":
    main()
