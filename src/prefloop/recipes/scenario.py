"""`sandbox list` and `sandbox run`: one scenario of the simulated world, unguarded and guarded.

Guarded differs from unguarded in the KL budget only. The demo is two scenarios side by side, built from these pieces.
"""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefloop.audit.config import AuditDataConfig
from prefloop.audit.data import audit
from prefloop.audit.verdict import worst_findings
from prefloop.audits import AUDITS, find_audit, store_audit
from prefloop.console import say
from prefloop.models.load import default_device, load_policy
from prefloop.monitor.config import TrainingMonitor
from prefloop.monitor.log import LogWatch
from prefloop.recipes.config import SandboxConfig, SandboxListConfig
from prefloop.recipes.measure import Measured, curve_row, difference, measure, peak_step, plain
from prefloop.recipes.stages import Bench, run_policy, run_reward, run_sft, write_data, write_pairs
from prefloop.recipes.workers import Workers
from prefloop.reward.scoring import load_scorer
from prefloop.rundir import METRICS, RunDir, read_section, resolve_model, sha256_of, write_rows
from prefloop.train.checkpoint import checkpoints, step_of
from prefloop.train.config import policy_config
from prefloop.types import InputError
from prefloop.world.knowledge import World
from prefloop.world.prompts import make_prompts
from prefloop.world.scenarios import SCENARIOS, Scenario


def list_scenarios(_: SandboxListConfig) -> dict[str, Any]:
    """The command `sandbox list`."""
    return {"scenarios": [{"name": name, "description": each.description} for name, each in SCENARIOS.items()]}


def scenario_named(name: str) -> Scenario:
    """A scenario by its name. Raises InputError with the known names."""
    if name not in SCENARIOS:
        raise InputError(f"no scenario {name!r}", field="scenario", remedy=f"known: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def require_feasible(config: SandboxConfig) -> None:
    """Raise InputError, before anything is trained, for a setting that a stage after the training would refuse."""
    policy_config(config.algorithm)
    try:
        make_prompts(World.build(config.seed), split="test", count=config.num_eval_prompts, seed=config.seed)
    except InputError as error:
        raise InputError(error.problem, field="num_eval_prompts", remedy=error.remedy) from None


def run(config: SandboxConfig) -> dict[str, Any]:
    """The command `sandbox run`: the scenario's policy runs and what became of true utility."""
    scenario_named(config.scenario)
    require_feasible(config)
    runs = {"unguarded": None, "guarded": config.kl_budget}
    with RunDir("sandbox run", config, {}) as run_dir:
        if run_dir.finished:
            return stored_answer(run_dir.path)
        clock = Clock()
        with clock.timed("data and SFT"):
            bench = Bench.build(run_dir.path, config, num_threads=2 * config.num_threads)
            write_data(bench)
            run_sft(bench)
        with clock.timed("pairs and reward model"):
            learn_reward(run_dir.path, config, config.scenario)
        with Workers() as workers:
            with clock.timed("policy"):
                workers.side_by_side(
                    *(
                        (optimise, (run_dir.path, config, config.scenario, name, budget))
                        for name, budget in runs.items()
                    )
                )
            with clock.timed("evaluation"):
                unguarded, guarded = workers.side_by_side(
                    (measure_runs, (run_dir.path, config, config.scenario, ("unguarded",))),
                    (measure_runs, (run_dir.path, config, config.scenario, ("guarded",))),
                )
        measured: dict[str, dict[int, Measured]] = {**unguarded, **guarded}
        write_curves(run_dir.path, measured)
        answer = _answer(run_dir.path, config, measured) | {
            "stages": dict(clock.seconds),
            "peak_memory_bytes": peak_memory(),
        }
        run_dir.finish(stopped="done", metrics={}, outputs={}, answer=answer)
        return answer


def _answer(root: Path, config: SandboxConfig, measured: Mapping[str, Mapping[int, Measured]]) -> dict[str, Any]:
    top = peak_step(measured["unguarded"])
    policies = {
        "sft": measured["unguarded"][0],
        "unguarded_peak": measured["unguarded"][top],
        "unguarded": last(measured["unguarded"]),
        "guarded": last(measured["guarded"]),
    }
    return {
        "scenario": config.scenario,
        "description": SCENARIOS[config.scenario].description,
        "seed": config.seed,
        "num_prompts": config.num_eval_prompts,
        "peak_step": top,
        "audit": audit_of_pairs(root, config, config.scenario),
        "alarms": {name: alarms_of(root, config, name) for name in ("unguarded", "guarded")},
        "kl": {name: policy.kl for name, policy in policies.items()},
        "proxy": {name: plain(policy.proxy()) for name, policy in policies.items()},
        "true_utility": {name: plain(policy.utility()) for name, policy in policies.items()},
        "kinds": {name: curve_row(name, 0, policy)["kinds"] for name, policy in policies.items()},
        "parts": {name: curve_row(name, 0, policy)["parts"] for name, policy in policies.items()},
        "differences": {
            "unguarded_minus_peak": plain(difference(policies["unguarded"], policies["unguarded_peak"])),
            "guarded_minus_unguarded": plain(difference(policies["guarded"], policies["unguarded"])),
            "guarded_minus_sft": plain(difference(policies["guarded"], policies["sft"])),
        },
    }


def learn_reward(root: Path, config: SandboxConfig, scenario: str) -> None:
    """Judgments of the scenario's annotators, their audit and the reward model; what is finished is not done again."""
    bench = Bench.build(root, config)
    pairs = bench.data(f"pairs-{scenario}")
    if not pairs.exists():
        write_pairs(bench, scenario)
    if find_audit(sha256_of(pairs), root / AUDITS) is None:
        store_audit(audit(AuditDataConfig(file=str(pairs))), root / AUDITS)
    run_reward(bench, scenario)


def audit_of_pairs(root: Path, config: SandboxConfig, scenario: str) -> dict[str, Any]:
    """What the audit said of the pairs: {"verdict", "raised": [{"name", "severity", "message"}]}, the worst first."""
    report = find_audit(sha256_of(Bench.build(root, config).data(f"pairs-{scenario}")), root / AUDITS)
    assert report is not None, "learn_reward audits the pairs"
    return {
        "verdict": report.verdict,
        "raised": [
            {"name": finding.name, "severity": finding.severity, "message": finding.message}
            for finding in worst_findings(report.findings, len(report.findings))
        ],
    }


def alarms_of(root: Path, config: SandboxConfig, name: str) -> list[dict[str, Any]]:
    """The alarms of the monitor on a policy run: [{"signal", "step", "kl", "message"}], kl in nats a response."""
    stage = Bench.build(root, config).stage(name)
    kl = {row["step"]: row["kl/full"] for row in map(json.loads, (stage / METRICS).read_text("utf-8").splitlines())}
    alarms = LogWatch(TrainingMonitor()).read_on(stage / "rollouts" / "rollouts.jsonl")
    return [{"signal": each.signal, "step": each.step, "kl": kl[each.step], "message": each.message} for each in alarms]


def optimise(root: Path, config: SandboxConfig, scenario: str, name: str, kl_budget: float | None) -> None:
    """One policy run against the scenario's reward model."""
    run_policy(Bench.build(root, config), name, scenario, kl_budget=kl_budget)


def measure_runs(
    root: Path, config: SandboxConfig, scenario: str, names: tuple[str, ...], *, ends: tuple[str, ...] = ()
) -> dict[str, dict[int, Measured]]:
    """Every checkpoint of policy runs up to their result, on the unseen prompts; of those in `ends` the result alone.
    Step 0 is the SFT policy, where the run began with it."""
    bench = Bench.build(root, config)
    prompts = make_prompts(bench.world, split="test", count=config.num_eval_prompts, seed=config.seed)
    reward = str(bench.stage(f"reward-{scenario}"))
    scorer = load_scorer(reward, device=default_device(), token_budget=config.token_budget)
    reference = load_policy(resolve_model(str(bench.stage("sft")), "model"))[0]
    known: dict[str, Measured] = {}
    found: dict[str, dict[int, Measured]] = {}
    for name in (*names, *ends):
        result = resolve_model(str(bench.stage(name)), "model").parent
        found[name] = {}
        for directory in [result] if name in ends else checkpoints(result.parent):
            if step_of(directory) > step_of(result):
                continue
            # A guarded run begins as the unguarded one does: the same weights are measured once.
            weights = sha256_of(directory / "policy" / "model.safetensors")
            if weights not in known:
                known[weights] = measure(
                    bench.world,
                    directory / "policy",
                    reference,
                    prompts,
                    scorer,
                    max_new_tokens=config.max_new_tokens,
                    token_budget=config.token_budget,
                    seed=config.seed,
                )
            found[name][step_of(directory)] = known[weights]
    return found


def write_curves(root: Path, measured: Mapping[str, Mapping[int, Measured]]) -> None:
    """`curve.jsonl`: one row for each checkpoint of each run."""
    write_rows(
        root / "curve.jsonl",
        [curve_row(name, step, point) for name, points in measured.items() for step, point in points.items()],
    )


def last(points: Mapping[int, Measured]) -> Measured:
    """The end of a run."""
    return points[max(points)]


def stored_answer(root: Path) -> dict[str, Any]:
    """The answer of a finished run."""
    return read_section(root / "result.json", "answer")


class Clock:
    """Wall time of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started = time.perf_counter()

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure a stage, and say how long it took."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
        say(f"   {name}: {self.seconds[name]:.0f} s")

    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.started


def peak_memory() -> int:
    """Upper bound of the memory in use at once, in bytes: this process and two workers as large as the largest."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return 1024 * (own + 2 * workers)
