"""`audit reward`: ask a reward model, keep the report beside it and in its card, tell people and programs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

import numpy as np

from prefloop.audit.config import AuditRewardConfig
from prefloop.audit.counterfactual import Floats, Judge
from prefloop.audit.reward import Material, audit_model
from prefloop.audit.verdict import make_report
from prefloop.audits import store_inside
from prefloop.console import say
from prefloop.data.lineage import prompts_met
from prefloop.data.read import read_pairs
from prefloop.data.rows import stream_rows
from prefloop.models.load import default_device
from prefloop.recipes.audit import tell
from prefloop.reward.evaluate import answered
from prefloop.reward.remote import is_server
from prefloop.reward.scoring import Response, Scorer, load_scorer, margin_temperature, reward_inputs, reward_models
from prefloop.rundir import inputs_of_run, output_file, sha256_of
from prefloop.train.reward_card import show_audit
from prefloop.types import AuditReport, InputError, PreferencePair, Prompt, Told


def reward(config: AuditRewardConfig) -> Told:
    """Audit a reward model. Refused (exit code 1) where the verdict is "block".

    Raises InputError where model or file cannot be used, the model gives a score that is no number, or the page cannot
    be written.
    """
    page = None if config.html is None else output_file(config.html, "html")
    if is_server(config.model):
        remedy = "audit the model that it serves"
        raise InputError("a server has no content that an audit could be kept for", path=config.model, remedy=remedy)
    data = inputs_of_run(config.model, "data") or ["TRAINING_FILE"]
    again = f"prefloop train reward --model {_start(config)} --data {shlex.join(data)}"
    report = audited(config, lambda setting: f"{again} --{setting}" if setting else again)
    return tell(report, config.audits, page, _next(report, config))


def audited(config: AuditRewardConfig, again: Callable[[str], str]) -> AuditReport:
    """Ask a model; the report is kept inside its directory, where training and gate find it, the verdict in its card.

    `again` is what `audit_model` takes. Raises InputError where model or file cannot be used.
    """
    scorer = load_scorer(config.model, device=default_device(), token_budget=config.token_budget)
    material = _material(config)
    prompts_met(config.model, {pair.prompt.prompt_id for pair in material.pairs})
    findings = audit_model(judge_of(scorer), material, config, again=again)
    (directory,) = reward_inputs(config.model).values()
    report = make_report(config.model, sha256_of(directory), findings)
    if directory.is_dir():
        store_inside(report, directory)
        show_audit(directory, report.verdict)
    return report


def judge_of(scorer: Scorer) -> Judge:
    """A scorer as an audit sees it."""
    models = reward_models(scorer)

    def score(prompts: Sequence[Prompt], texts: Sequence[str]) -> tuple[Floats, Floats | None]:
        if not prompts:
            return np.zeros(0), None
        scores, spread = scorer.score_with_spread(prompts, [Response(text) for text in texts])
        return np.array(scores), None if spread is None else np.array(spread)

    def states(prompts: Sequence[Prompt], texts: Sequence[str]) -> Floats:
        found: Floats = models[0].states(prompts, [Response(text) for text in texts]).numpy()
        return found

    return Judge(
        score,
        lambda prompt, text: all(model.fits(prompt, Response(text)) for model in models),
        margin_temperature(scorer),
        states if models else None,
    )


def _material(config: AuditRewardConfig) -> Material:
    def pairs_of(files: Sequence[str]) -> list[PreferencePair]:
        return read_pairs(files, skip_bad=config.skip_bad).records if files else []

    samples = None
    if config.samples is not None:
        samples = [(prompt, response.text) for prompt, response in map(answered, stream_rows(config.samples))]
    return Material(pairs_of([config.file]), pairs_of(config.other_data), pairs_of(config.train_data), samples)


def _next(report: AuditReport, config: AuditRewardConfig) -> str:
    model, file = shlex.quote(config.model), shlex.quote(config.file)
    if report.verdict == "block":
        say("the model is refused by train policy until it is mended, or the findings are accepted")
        return f"prefloop audit reward {model} {file}"
    return f"prefloop train policy --model {_start(config)} --reward {model} --prompts {file}"


def _start(config: AuditRewardConfig) -> str:
    return shlex.join(inputs_of_run(config.model, "model") or ["START"])
