"""The command `evaluate run`: a candidate beside the incumbent, everything measured on both, written as evidence.

    answers/            what both models said, and how surprising they found the texts
    verdicts.jsonl      what a judge model said, as it came
    evaluations.jsonl   the evidence: one `Evaluation` a line

A run that stops in the middle (the judge stays away, say) goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.console import say
from prefloop.data.lineage import input_hashes, prompts_met
from prefloop.data.read import read_prompts
from prefloop.evaluate.answers import Answers, answers_of
from prefloop.evaluate.config import SHIPPED, EvaluateRunConfig
from prefloop.evaluate.endpoint import endpoint_judge
from prefloop.evaluate.judge import Duel, Judge, ScorerJudge, function_judge, is_pair_function
from prefloop.evaluate.measure import Evidence, Measure
from prefloop.evaluate.records import Pairing, now, write_evaluations
from prefloop.evaluate.suite import FOLDER, Suite, read_suite
from prefloop.evaluate.texts import read_texts
from prefloop.evaluate.verdicts import Verdicts
from prefloop.models.load import default_device
from prefloop.reward.remote import is_server
from prefloop.reward.scoring import load_scorer, reward_inputs
from prefloop.reward.user_code import file_of, is_user_code
from prefloop.rundir import RunDir, read_section, resolve_model
from prefloop.types import InputError, Prompt

SIDE_BY_SIDE = "prompts"
"""The name of the prompts that the judge compares answers to; no suite may have it."""


@dataclass(frozen=True)
class Material:
    """What both models are asked."""

    prompts: Sequence[Prompt]
    suites: Sequence[Suite]
    texts: Mapping[str, Sequence[str]]
    """By the name of the file, without its ending."""
    paths: Mapping[str, Path]
    """Files by the names that a run's inputs have."""


def run(config: EvaluateRunConfig) -> dict[str, Any]:
    """Measure and write the evidence; answers with every measure, and where the evidence lies.

    Raises InputError for models, files or a judge that cannot be used, EnvironmentStop where the judge stays away.
    """
    directories = {
        "candidate": resolve_model(config.candidate, "candidate"),
        "against": resolve_model(config.against, "against"),
    }
    material = _material(config)
    _check_judge(config)
    with RunDir("evaluate run", config, {**directories, **material.paths, **_judge_inputs(config)}) as run_dir:
        if run_dir.finished:
            return read_section(run_dir.path / "result.json", "answer")
        judge = _reading_judge(config, run_dir.path / "verdicts.jsonl")
        met = prompts_met(config.candidate, {prompt.prompt_id for prompt in material.prompts})
        asked = {suite.name: [item.prompt for item in suite.items] for suite in material.suites}
        answers = {
            field: answers_of(
                config,
                directory,
                field,
                asked={SIDE_BY_SIDE: material.prompts, **asked},
                texts=material.texts,
                folder=run_dir.path / "answers",
            )
            for field, directory in directories.items()
        }
        hashes = {name: str(entry["sha256"]) for name, entry in _inputs(run_dir.path).items()}
        if hashes["candidate"] == hashes["against"]:
            say("warning: candidate and incumbent are the same model")
        evidence = Evidence(Pairing(hashes["candidate"], hashes["against"], now()), config.num_resamples, config.seed)
        measures, details = _side_by_side(config, evidence, material, answers, hashes, judge)
        measures += _retained(evidence, material, answers, hashes)
        write_evaluations(run_dir.path / "evaluations.jsonl", [each.evaluation for each in measures])
        answer = {
            "run": str(run_dir.path),
            "evidence": str(run_dir.path / "evaluations.jsonl"),
            "evaluations": [_row(each) for each in measures],
            **details,
            "truncated_fraction": {field: each.truncated_fraction for field, each in answers.items()},
            "num_prompts_trained_on": len(met),
        }
        run_dir.finish(stopped="done", metrics={}, outputs={"evidence": "evaluations.jsonl"}, answer=answer)
        return answer


def _material(config: EvaluateRunConfig) -> Material:
    """Everything that is to be asked, read. Raises InputError also for two files of one name."""
    prompts = [] if config.prompts is None else read_prompts([config.prompts], skip_bad=config.skip_bad).records
    suites = [read_suite(name, skip_bad=config.skip_bad) for name in config.suites]
    texts = {Path(path).name.partition(".")[0]: read_texts(path, skip_bad=config.skip_bad) for path in config.texts}
    names = [suite.name for suite in suites]
    for field, given, different in (
        ("suites", [*names, SIDE_BY_SIDE], len({*names, SIDE_BY_SIDE})),
        ("texts", list(config.texts), len(texts)),
    ):
        if len(given) > different:
            problem = "two files have one name" if field == "texts" else f"two of {', '.join(given)} have one name"
            raise InputError(problem, field=field, remedy="rename one: the evidence is named after the file")
    files = {} if config.prompts is None else {"prompts": Path(config.prompts)}
    files |= {f"suites:{suite.name}": _file_of(name) for suite, name in zip(suites, config.suites, strict=True)}
    files |= {f"texts:{name}": Path(path) for name, path in zip(texts, config.texts, strict=True)}
    return Material(prompts, suites, texts, files)


def _file_of(suite: str) -> Path:
    return FOLDER / f"{suite}.jsonl" if suite in SHIPPED else Path(suite)


def _check_judge(config: EvaluateRunConfig) -> None:
    """Raise InputError where a judge model is named and the judge is not one address."""
    if config.endpoint.model is not None and not (len(config.judge) == 1 and is_server(config.judge[0])):
        remedy = "give --judge http://host:port/v1, or leave endpoint.model out"
        raise InputError("a judge model needs one address", field="judge", remedy=remedy)


def _judge_inputs(config: EvaluateRunConfig) -> dict[str, Path]:
    """What of the judge lies on this disk."""
    if not config.judge or config.endpoint.model is not None:
        return {} if config.endpoint.prompt is None else {"endpoint.prompt": Path(config.endpoint.prompt)}
    return reward_inputs(config.judge, "judge") if not all(map(is_server, config.judge)) else {}


def _reading_judge(config: EvaluateRunConfig, verdicts: Path) -> Judge | None:
    """The judge, if it reads both responses. A scorer is loaded only after the models have answered, and gone."""
    if config.endpoint.model is not None:
        return endpoint_judge(config.judge[0], config.endpoint, Verdicts(verdicts))
    if len(config.judge) == 1 and is_user_code(config.judge[0]):
        if not file_of(config.judge[0]).is_file():
            raise InputError("no such file", path=file_of(config.judge[0]), field="judge")
        if is_pair_function(config.judge[0]):
            return function_judge(config.judge[0])
    return None


def _side_by_side(
    config: EvaluateRunConfig,
    evidence: Evidence,
    material: Material,
    answers: Mapping[str, Answers],
    hashes: Mapping[str, str],
    judge: Judge | None,
) -> tuple[list[Measure], dict[str, Any]]:
    """Win rates, repetition and length on the prompts; nothing without prompts."""
    if not material.prompts:
        return [], {}
    incumbent, candidate = (answers[field].responses[SIDE_BY_SIDE] for field in ("against", "candidate"))
    duels = [Duel(*each) for each in zip(material.prompts, incumbent, candidate, strict=True)]
    if judge is None:
        scorer = load_scorer(config.judge, device=default_device(), token_budget=config.token_budget)
        judge = ScorerJudge(scorer)
    own = input_hashes(Path(config.candidate), "reward") & {
        sha for name, sha in hashes.items() if name.partition(":")[0] == "judge"
    }
    if own:
        say("warning: the candidate was tuned against this judge: its verdict is no independent evidence")
    judged = judge.judge(duels)
    measures, winrate = evidence.of_win_rate(judged, duels, hashes["prompts"])
    if judged.margins is not None and not own:
        measures.append(evidence.of_margins("held_out_reward", hashes["prompts"], judged.margins))
    texts = [[response.text for response in side] for side in (candidate, incumbent)]
    measures += evidence.of_responses(hashes["prompts"], *texts)
    details = {
        "judge": {
            "version": judge.version,
            "first_preferred": judged.first,
            "consistent": judged.consistent,
            "unread": judged.unread,
            "tuned_against": bool(own),
        },
        "winrate": winrate,
    }
    return measures, details


def _retained(
    evidence: Evidence, material: Material, answers: Mapping[str, Answers], hashes: Mapping[str, str]
) -> list[Measure]:
    """Suites and held-out texts."""
    found: list[Measure] = []
    candidate, incumbent = answers["candidate"], answers["against"]
    for suite in material.suites:
        said = ([response.text for response in side.responses[suite.name]] for side in (candidate, incumbent))
        found += evidence.of_suite(suite, *said)
    for name in material.texts:
        own, before = candidate.surprises[name], incumbent.surprises[name]
        found += evidence.of_texts(
            name,
            hashes[f"texts:{name}"],
            [each.nats for each in own],
            [each.nats for each in before],
            [each.tokens for each in before],
        )
    return found


def _inputs(run: Path) -> dict[str, Any]:
    return read_section(run / "inputs.json", "inputs")


def _row(measure: Measure) -> dict[str, Any]:
    each = measure.evaluation
    interval = None if each.interval is None else list(each.interval)
    return {"name": each.name, "value": each.value, "interval": interval, "n": each.n, "p_value": measure.p_value}
