"""The commands `reward eval` and `reward score`."""

from __future__ import annotations

import json
import shlex
from typing import Any

import numpy as np

from prefloop.console import say
from prefloop.data.formats import prompt_of
from prefloop.data.lineage import prompts_met
from prefloop.data.read import read_pairs
from prefloop.data.rows import Row, stream_rows
from prefloop.data.votes import votes_of
from prefloop.models.load import default_device
from prefloop.reward.config import RewardEvalConfig, RewardScoreConfig
from prefloop.reward.measures import summarise
from prefloop.reward.protocols import protocol_named, protocol_scores, subset_of
from prefloop.reward.reliability import write_plot
from prefloop.reward.scoring import Response, Scorer, load_scorer, margin_temperature, parse_spec, reward_models
from prefloop.rundir import atomic_file, inputs_of_run, output_file
from prefloop.statistics.intervals import cluster_bootstrap
from prefloop.statistics.label_noise import accuracy_ceiling, error_rate, pair_agreement
from prefloop.types import InputError, PreferencePair, Prompt


def margins_of(scorer: Scorer, pairs: list[PreferencePair], prompts: list[Prompt]) -> list[float]:
    """Score of the chosen minus score of the rejected response, as answers to `prompts`."""
    chosen = scorer.score(prompts, [Response(pair.chosen) for pair in pairs])
    rejected = scorer.score(prompts, [Response(pair.rejected) for pair in pairs])
    return [better - worse for better, worse in zip(chosen, rejected, strict=True)]


def shuffled_prompts(pairs: list[PreferencePair], seed: int) -> list[Prompt]:
    """For each pair the prompt of another one, by a cyclic shift of a random order of the distinct prompts."""
    distinct = {pair.prompt.prompt_id: pair.prompt for pair in pairs}
    order = [str(name) for name in np.random.default_rng(seed).permutation(sorted(distinct))]
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    return [distinct[following[pair.prompt.prompt_id]] for pair in pairs]


def evaluate(config: RewardEvalConfig) -> dict[str, Any]:
    """Accuracy with a bootstrap interval over conversations, log-loss and calibration, beside the baselines."""
    pairs = read_pairs([config.data], skip_bad=config.skip_bad).records
    specs = [config.model, *config.also]
    asked = {pair.prompt.prompt_id for pair in pairs}
    met = set().union(*(prompts_met(parse_spec(spec).name, asked) for spec in specs))
    scorer = load_scorer(specs, device=default_device(), settings=config.scoring)
    pairs = _scorable(scorer, pairs, skip_bad=config.skip_bad)
    protocol = None if config.protocol is None else protocol_named(config.protocol)
    if protocol is not None:
        for pair in pairs:
            subset_of(pair, protocol)
    own = margins_of(scorer, pairs, [pair.prompt for pair in pairs])
    answer = summarise(
        pairs,
        own,
        shuffled_margins(scorer, pairs, config.seed),
        num_resamples=config.num_resamples,
        seed=config.seed,
        temperature=margin_temperature(scorer),
    )
    answer |= {"label_noise": label_noise(config, pairs)}
    if protocol is not None:
        answer |= {"protocol": protocol_scores(protocol, pairs, own)}
    if config.plot is not None:
        write_plot(config.plot, answer["reliability"])
    start = shlex.join(inputs_of_run(config.model, "model") or ["runs/sft"])
    reward, prompts = shlex.join(specs), shlex.quote(config.data)
    skip_bad = " --skip-bad" if config.skip_bad else ""
    following = f"prefloop train policy --model {start} --reward {reward} --prompts {prompts}{skip_bad}"
    return {**answer, "num_prompts_trained_on": len(met), "next": following}


def _fits(scorer: Scorer, pair: PreferencePair, prompt: Prompt) -> bool:
    """Whether both responses of a pair, as answers to `prompt`, are within the positions of all reward models."""
    return all(
        model.fits(prompt, Response(side)) for model in reward_models(scorer) for side in (pair.chosen, pair.rejected)
    )


def _scorable(scorer: Scorer, pairs: list[PreferencePair], *, skip_bad: bool) -> list[PreferencePair]:
    """The pairs that fit; the others are named, and stop the command unless `skip_bad`.

    Raises InputError also where none is left.
    """
    fitting = [_fits(scorer, pair, pair.prompt) for pair in pairs]
    if all(fitting):
        return pairs
    kept = [pair for pair, fits in zip(pairs, fitting, strict=True) if fits]
    left_out = [pair.place or pair.pair_id for pair, fits in zip(pairs, fitting, strict=True) if not fits]
    told = f"{len(left_out)} of {len(pairs)} pairs are longer than the reward model's positions: "
    told += ", ".join(left_out[:5]) + (", ..." if len(left_out) > 5 else "")
    if not skip_bad or not kept:
        raise InputError(told, field="data", remedy="leave them out with --skip-bad, or take another reward model")
    say(f"left out: {told}")
    return kept


def shuffled_margins(scorer: Scorer, pairs: list[PreferencePair], seed: int) -> list[float | None]:
    """Margins with the prompt of another pair; None where that prompt is too long for these responses."""
    prompts = shuffled_prompts(pairs, seed)
    fitting = [place for place, prompt in enumerate(prompts) if _fits(scorer, pairs[place], prompt)]
    found = margins_of(scorer, [pairs[place] for place in fitting], [prompts[place] for place in fitting])
    by_place = dict(zip(fitting, found, strict=True))
    return [by_place.get(place) for place in range(len(pairs))]


def label_noise(config: RewardEvalConfig, pairs: list[PreferencePair]) -> dict[str, Any] | None:
    """How far the people who judged agree, the error rate of one vote and the accuracy ceiling that this implies.

    None where no comparison has two votes. The interval is that of the ceiling, over conversations.
    """
    votes = votes_of(config.data, pairs)
    if not votes:
        return None
    agreement = [pair_agreement(each.first, each.second) for each in votes]
    clusters = [each.conversation for each in votes]
    low, high = cluster_bootstrap(agreement, clusters, num_resamples=config.num_resamples, seed=config.seed)
    judged = [pair.num_judgments for pair in pairs]

    def ceiling(agreed: float) -> float:
        return accuracy_ceiling(error_rate(min(1.0, max(0.0, agreed))), judged)

    mean = float(np.mean(agreement))
    return {
        "num_comparisons": len(votes),
        "agreement": mean,
        "error_rate": error_rate(mean),
        "accuracy_ceiling": ceiling(mean),
        "accuracy_ceiling_interval": [ceiling(low), ceiling(high)],
    }


def answered(row: Row) -> tuple[Prompt, Response]:
    """Prompt and response of a row. Raises InputError with its line if it has none."""
    text = next((row.values[name] for name in ("response", "completion") if name in row.values), None)
    if not isinstance(text, str):
        raise InputError("needs a text `response` or `completion`", path=row.path, line=row.line, field="response")
    try:
        prompt = prompt_of(row.values)
    except InputError as error:
        remedy = error.remedy
        raise InputError(error.problem, path=row.path, line=row.line, field=error.field, remedy=remedy) from error
    return prompt, Response(text, row.values.get("finish_reason", "stop") == "stop")


def score(config: RewardScoreConfig) -> dict[str, Any]:
    """Write the rows of a file with their (normalised) score added, atomically; with `score_spread` of an ensemble."""
    target = output_file(config.out)
    rows = list(stream_rows(config.data))
    given = [answered(row) for row in rows]
    scorer = load_scorer([config.model, *config.also], device=default_device(), settings=config.scoring)
    scores, spread = scorer.score_with_spread([prompt for prompt, _ in given], [each for _, each in given])
    added = [{"score": value} for value in scores]
    if spread is not None:
        added = [{**each, "score_spread": value} for each, value in zip(added, spread, strict=True)]
    with atomic_file(target) as file:
        for row, columns in zip(rows, added, strict=True):
            file.write(json.dumps({**row.values, **columns}, ensure_ascii=False) + "\n")
    answer = {"out": str(target), "num_responses": len(scores), "mean_score": float(np.mean(scores))}
    return answer if spread is None else {**answer, "mean_score_spread": float(np.mean(spread))}
