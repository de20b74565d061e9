"""`round run`: one whole round of preference tuning, from the newest policy's responses to a policy tuned again.

    stages/NAME.json     what a stage found, and its seconds; written last, and then not repeated
    comparisons.jsonl    two responses to each prompt by the newest policy (`sample`)
    judgments.jsonl      the votes on them, and their sides new-train.jsonl and new-held-out.jsonl (`label`)
    old-N.jsonl          the old preference files, balanced, where that was asked for (`audit`)
    reward/, policy/     the runs of the trainers; the audit of the reward model lies inside it (`audit_reward`)

Whether the new policy goes live is not decided here: that is what `model gate` is for.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.audit.balance import balance
from prefloop.audit.config import AuditDataConfig, AuditRewardConfig, DataBalanceConfig
from prefloop.audit.data import audit
from prefloop.audit.verdict import worst_findings
from prefloop.audits import AUDITS, audit_lookup, store_audit
from prefloop.console import say
from prefloop.data.read import read_pairs
from prefloop.data.rows import stream_rows
from prefloop.data.split import conversation_key
from prefloop.data.stream import parse_source
from prefloop.models.load import default_device
from prefloop.recipes.audit_reward import audited
from prefloop.recipes.comparisons import Policies, comparison_key, read_comparisons, sample_comparisons
from prefloop.recipes.judging import HELD_OUT, JUDGMENTS, TRAIN, judge
from prefloop.recipes.old_pairs import old_pairs
from prefloop.recipes.round_config import RoundConfig, retrain_config, tune_config
from prefloop.recipes.round_status import STAGES
from prefloop.recipes.round_text import as_tables
from prefloop.recipes.scenario import stored_answer
from prefloop.recipes.shift import ScoredPair, measure_shift, summary
from prefloop.recipes.tune import policy
from prefloop.reward.evaluate import margins_of
from prefloop.reward.measures import compare_margins
from prefloop.reward.scoring import Response, load_scorer, margin_temperature, reward_inputs
from prefloop.rundir import ALARMS, RunDir, read_json, resolve_model, sha256_of, write_json
from prefloop.train import reward as reward_trainer
from prefloop.train.offline import input_files
from prefloop.types import AuditReport, InputError, PreferencePair, Told

COMPARISONS = "comparisons.jsonl"


def command(config: RoundConfig) -> Told:
    """The command `round run`. Raises what `run` does."""
    answer = run(config)
    return Told(answer, as_tables(answer))


def run(config: RoundConfig, *, look_up_audits: bool = True) -> dict[str, Any]:
    """Run (or resume) a round: those of its stages that are not done yet.

    With `look_up_audits` what audits say of the pairs and of the reward model binds, and those made here lie where
    other commands find them; a recipe that measures what a blocked round would do keeps them in the round's directory.

    Raises EnvironmentStop where the round waits for judgments, Refusal where an audit blocks, InputError for what is
    wrong with the input.
    """
    require_settings(config)
    inputs = {
        "policy": resolve_model(config.policy, "policy"),
        "incumbent": resolve_model(config.incumbent, "incumbent"),
        **reward_inputs(config.reward),
        **input_files("pairs", config.pairs),
        **input_files("prompts", config.prompts),
    }
    # The votes are what a round may wait for: they come in time, and make no other round of it.
    lasting = config.model_copy(update={"judgments": None})
    with RunDir("round run", lasting, inputs, _audits_of_old(config) if look_up_audits else None) as run_dir:
        if run_dir.finished:
            return stored_answer(run_dir.path)
        _require_same_votes(run_dir.path, config.judgments)
        this = Round(run_dir.path, config, look_up_audits)
        found = this.stages()
        answer = _answer(this, found)
        made = Path(found["policy"]["run"])
        outputs = {"model": str(resolve_model(str(made), "model").relative_to(run_dir.path))}
        run_dir.finish(stopped="done", metrics={}, outputs=outputs, answer=answer)
        return answer


def require_settings(config: RoundConfig) -> None:
    """Raise InputError, before anything is sampled, for signals to balance that do not exist."""
    from prefloop.signals.measures import SIGNALS

    if unknown := [name for name in config.balance if name not in SIGNALS]:
        raise InputError(f"no signal is called {unknown[0]!r}", field="balance", remedy=f"known: {', '.join(SIGNALS)}")


def _require_same_votes(root: Path, judgments: str | None) -> None:
    """Raise InputError for a file of votes where the round has gone on with others."""
    label = root / "stages" / "label.json"
    if judgments is None or not label.exists():
        return
    if not Path(judgments).is_file() or read_json(label).get("votes_sha256") != sha256_of(Path(judgments)):
        raise InputError(
            "this round has gone on with other votes",
            path=judgments,
            field="judgments",
            remedy="leave it out to go on with those, or give another --out",
        )


def _audits_of_old(config: RoundConfig) -> Callable[..., Any] | None:
    """The lookup of the audits of old files that are trained on as they are."""
    if not config.keep_old or config.balance or config.drop:
        return None
    commands = {
        name: f"prefloop audit data {shlex.quote(str(path))}"
        for name, path in input_files("pairs", config.pairs).items()
    }
    return audit_lookup(commands, accepted=config.accept_findings)


@dataclass(frozen=True)
class Round:
    """A round in its open run directory."""

    root: Path
    config: RoundConfig
    look_up_audits: bool

    def stages(self) -> dict[str, dict[str, Any]]:
        """Run the stages that are not done; what each of them found."""
        work: dict[str, Callable[[], dict[str, Any]]] = {
            "sample": lambda: sample_comparisons(self.config, self.root / COMPARISONS),
            "label": lambda: judge(self.config, self.root, self.root / COMPARISONS),
            "audit": self.audit,
            "shift": self.shift,
            "reward": self.retrain,
            "audit_reward": self.audit_reward,
            "policy": self.tune,
        }
        (self.root / "stages").mkdir(exist_ok=True)
        return {name: self._once(name, work[name]) for name in STAGES}

    def _once(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self.root / "stages" / f"{name}.json"
        if not path.exists():
            say(f"round: {name}")
            started = time.perf_counter()
            found = work()
            write_json(path, {**found, "seconds": time.perf_counter() - started})
        return read_json(path)

    def audit(self) -> dict[str, Any]:
        """Prepare the old files and audit what is new; the reports lie where training looks them up."""
        new, balanced = self.root / TRAIN, list[dict[str, Any]]()
        old: list[str] = []
        if self.config.keep_old:
            old = [self._prepared(number, source, balanced) for number, source in enumerate(self.config.pairs)]
        reports = [self._audited(Path(parse_source(file).path)) for file in (str(new), *(old if balanced else ()))]
        return {"trained_on": [str(new), *old], "balanced": balanced, "audits": reports}

    def _prepared(self, number: int, source: str, balanced: list[dict[str, Any]]) -> str:
        """An old file as it is trained on, notes on what was taken out of it, and its weight kept."""
        if not (self.config.balance or self.config.drop):
            return source
        given, out = parse_source(source), self.root / f"old-{number}.jsonl"
        told = balance(
            DataBalanceConfig(
                file=given.path,
                out=str(out),
                signals=self.config.balance,
                drop=self.config.drop,
                seed=self.config.seed,
                skip_bad=self.config.skip_bad,
            )
        )
        balanced.append({name: told[name] for name in ("file", "out", "num_pairs", "num_kept", "dropped")})
        return str(out) if given.weight == 1 else f"{out}@{given.weight}"

    def _audited(self, file: Path) -> dict[str, Any]:
        return {"file": str(file), **self._noted(audit(AuditDataConfig(file=str(file))))}

    def _noted(self, report: AuditReport) -> dict[str, Any]:
        """Keep a report, and answer what it says."""
        stored = store_audit(report, AUDITS if self.look_up_audits else self.root / AUDITS)
        raised = worst_findings(report.findings, len(report.findings))
        for finding in raised:
            say(f"   {Path(report.subject).name}: {finding.severity}: {finding.name}: {finding.message}")
        return {
            "verdict": report.verdict,
            "raised": [{"name": each.name, "severity": each.severity, "message": each.message} for each in raised],
            "audit": str(stored),
        }

    def shift(self) -> dict[str, Any]:
        """The reward model in use on all new pairs, none of which it has seen, and on old ones."""
        config = self.config
        comparisons, kl = read_comparisons(self.root / COMPARISONS)
        new = read_pairs([str(self.root / JUDGMENTS)]).records
        old = old_pairs(
            config.reward, config.pairs, skip_bad=config.skip_bad, at_most=len(comparisons), seed=config.seed
        )
        new_kl = [kl[comparison_key(pair.prompt, pair.chosen, pair.rejected)] for pair in new]
        found = measure_shift(
            self._scored(config.reward, new, new_kl),
            self._scored(config.reward, old.pairs, self._kl_along(old.pairs)),
            num_resamples=config.num_resamples,
            seed=config.seed,
        )
        return {"old_pairs_were": "held out" if old.held_out else "trained on", **found}

    def _kl_along(self, pairs: list[PreferencePair]) -> list[float]:
        policies, asked = Policies.load(self.config), [pair.prompt for pair in pairs]
        chosen, rejected = (
            policies.kl(asked, [Response(text) for text in texts], token_budget=self.config.token_budget)
            for texts in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
        )
        return [(a + b) / 2 for a, b in zip(chosen, rejected, strict=True)]

    def _scored(self, reward: str, pairs: list[PreferencePair], kl: list[float]) -> list[ScoredPair]:
        scorer = load_scorer(reward, device=default_device(), token_budget=self.config.token_budget)
        temperature = margin_temperature(scorer) or 1.0
        margins = margins_of(scorer, pairs, [pair.prompt for pair in pairs])
        return [
            ScoredPair(margin / temperature, each_kl, conversation_key(pair))
            for pair, margin, each_kl in zip(pairs, margins, kl, strict=True)
        ]

    def retrain(self) -> dict[str, Any]:
        """A reward model on old and new pairs, and what it gains on new pairs that neither has been trained on."""
        config = self.config
        files = tuple(read_json(self.root / "stages" / "audit.json")["trained_on"])
        made = reward_trainer.train(
            retrain_config(config, data=files, out=str(self.root / "reward")), look_up_audits=self.look_up_audits
        )
        _, kl = read_comparisons(self.root / COMPARISONS)
        pairs = read_pairs([str(self.root / HELD_OUT)]).records
        along = [kl[comparison_key(pair.prompt, pair.chosen, pair.rejected)] for pair in pairs]
        before, after = (self._scored(reward, pairs, along) for reward in (config.reward, made.run))
        bounds = {"num_resamples": config.num_resamples, "seed": config.seed}
        return {
            "run": made.run,
            "in_use": summary(before, **bounds),
            "retrained": summary(after, **bounds),
            "gain": compare_margins(
                [pair.margin for pair in after],
                [pair.margin for pair in before],
                [pair.conversation for pair in after],
                **bounds,
            ),
        }

    def audit_reward(self) -> dict[str, Any]:
        """The audit of the retrained model on the new pairs that are held out. Where it blocks, `tune` is refused."""
        config, file = self.config, str(self.root / HELD_OUT)
        settings = {"model": str(self.root / "reward"), "file": file, "token_budget": config.token_budget}
        # In another directory the same settings sample the same comparisons, which the same votes fit.
        votes = "" if config.simulate else f" --judgments {shlex.quote(str(self.root / JUDGMENTS))}"
        again = f"prefloop round run --config {shlex.quote(str(self.root / 'config.yaml'))} --out ANOTHER{votes}"
        report = audited(
            AuditRewardConfig.model_validate({**settings, "seed": config.seed}),
            lambda setting: f"{again} --retrain.{setting}" if setting else again,
        )
        return {"file": file, **self._noted(report)}

    def tune(self) -> dict[str, Any]:
        """The policy, from the incumbent against the retrained model, with the monitor on its log."""
        settings = tune_config(self.config, reward=str(self.root / "reward"), out=str(self.root / "policy"))
        made = policy(settings, look_up_audits=self.look_up_audits)
        alarms = Path(made.run) / ALARMS
        rows = [row.values for row in stream_rows(alarms)] if alarms.exists() else []
        told = [{name: row[name] for name in ("signal", "step", "action", "message")} for row in rows]
        numbers = {name: made.metrics.get(name) for name in ("kl/full", "score/mean", "response/length")}
        return {"run": made.run, "stopped": made.stopped, "metrics": numbers, "alarms": told}


def _answer(this: Round, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a round says: each stage's findings, their seconds apart."""
    made = shlex.quote(found["policy"]["run"])
    return {
        "run": str(this.root),
        "seconds": {name: stage["seconds"] for name, stage in found.items()},
        **{name: {key: value for key, value in stage.items() if key != "seconds"} for name, stage in found.items()},
        "next": [
            f"prefloop model register {made} --name NAME",
            f"prefloop evaluate run {made} --against {shlex.quote(this.config.incumbent)} --prompts HELD_OUT_PROMPTS "
            "--judge OTHER_REWARD",
            "prefloop model gate NAME:VERSION --evidence EVIDENCE",
        ],
    }
