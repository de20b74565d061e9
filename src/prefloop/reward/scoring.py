"""From what a user names to a scorer: reward models, ensembles, functions, servers, and sums of them.

    DIR                       a reward model's directory or run; with member-*/ inside, an ensemble
    file.py:function          a Python function
    http://host:port/path     a reward server
    SPEC@WEIGHT               one term of a weighted sum; the weight may be negative

Several reward models without a weight are an ensemble, several specs of any other kind a weighted sum.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from prefloop.console import say
from prefloop.reward.combine import Ensemble, WeightedSum
from prefloop.reward.config import ScoringConfig
from prefloop.reward.function import FunctionScorer
from prefloop.reward.model import RewardModel, load_model_scorer
from prefloop.reward.remote import RemoteScorer, is_server
from prefloop.reward.scorer import Response, Scorer
from prefloop.reward.user_code import file_of, is_user_code
from prefloop.rundir import read_json, resolve_model
from prefloop.types import InputError

__all__ = [
    "Response",
    "RewardModel",
    "Scorer",
    "first_reward_model",
    "load_scorer",
    "margin_temperature",
    "reward_audit_commands",
    "reward_inputs",
    "reward_models",
]

ENSEMBLE_FILE = "ensemble.json"
"""Beside an ensemble's members: the temperature of the mean of their normalised scores, if it was fitted."""

DEFAULT = ScoringConfig()


@dataclass(frozen=True)
class Spec:
    """One scorer that a user names. `weight` is None where none is given."""

    name: str
    weight: float | None = None


def parse_spec(text: str) -> Spec:
    """`SPEC` or `SPEC@WEIGHT`. A path that exists is taken whole, and so is one with no number after its last @."""
    name, at, weight_text = text.rpartition("@")
    if not at or not name or Path(text).exists():
        return Spec(text)
    try:
        weight = float(weight_text)
    except ValueError:
        return Spec(text)
    if weight == 0 or not math.isfinite(weight):
        raise InputError(f"the weight {weight_text!r} is no number other than 0", path=name, field="reward")
    return Spec(name, weight)


def _specs(spec: str | Sequence[str]) -> list[Spec]:
    specs = [parse_spec(text) for text in ([spec] if isinstance(spec, str) else spec)]
    if not specs:
        raise InputError("is empty", field="reward", remedy="name a reward model, function or server")
    return specs


def _members(name: str) -> list[Path]:
    """The directories of a local reward model: itself, or those of an ensemble's members in name order."""
    directory = resolve_model(name, "reward")
    members = sorted(path for path in directory.glob("member-*") if path.is_dir())
    return [resolve_model(str(member), "reward") for member in members] or [directory]


def _load(name: str, settings: ScoringConfig, *, device: torch.device, token_budget: int) -> Scorer:
    if is_server(name):
        return RemoteScorer(name, settings)
    if is_user_code(name):
        return FunctionScorer(name)
    resolved = resolve_model(name, "reward")
    directories = _members(name)
    models = [load_model_scorer(each, device=device, token_budget=token_budget) for each in directories]
    if directories == [resolved]:
        return models[0]
    stored = resolved / ENSEMBLE_FILE
    return _ensemble(models, settings, read_json(stored).get("reward_temperature") if stored.exists() else None)


def _ensemble(models: Sequence[Scorer], settings: ScoringConfig, temperature: float | None = None) -> Ensemble:
    # It was fitted to the mean; other rules have other margins.
    fitted = temperature if settings.ensemble == "mean" else None
    weight = settings.ensemble_lambda
    return Ensemble(models, rule=settings.ensemble, variance_weight=weight, temperature=fitted)


def margin_temperature(scorer: Scorer) -> float | None:
    """What the difference of two scores is divided by before it is a log-odds; None where nobody has fitted it."""
    match scorer:
        case RewardModel():
            return scorer.temperature
        case Ensemble():
            return scorer.temperature
    return None


def load_scorer(
    spec: str | Sequence[str],
    *,
    device: torch.device,
    token_budget: int = 2048,
    settings: ScoringConfig = DEFAULT,
    refuse_idle: bool = True,
) -> Scorer:
    """The scorer of one or several specs (see the module).

    Raises InputError for what is wrong with a spec, and (with `refuse_idle`) for a setting that has no effect on what
    they name; EnvironmentStop where a reward server cannot be reached.
    """
    specs = _specs(spec)
    parts = [_load(each.name, settings, device=device, token_budget=token_budget) for each in specs]
    weights = [each.weight for each in specs]
    whole: Scorer
    if len(parts) == 1 and weights[0] in (None, 1.0):
        whole = parts[0]
    elif all(isinstance(part, RewardModel) for part in parts) and all(weight is None for weight in weights):
        whole = _ensemble(parts, settings)
        say(f"reward: an ensemble of {len(parts)} reward models ({settings.ensemble.replace('_', ' ')})")
    else:
        terms = [1.0 if weight is None else weight for weight in weights]
        whole = WeightedSum(list(zip(parts, terms, strict=True)))
        shown = " + ".join(f"{weight:g} x {each.name}" for each, weight in zip(specs, terms, strict=True))
        say(f"reward: the weighted sum {shown}")
    if refuse_idle:
        _refuse_idle(settings, [whole, *parts])
    return whole


def _refuse_idle(settings: ScoringConfig, scorers: Sequence[Scorer]) -> None:
    """Raise InputError for a setting that none of the scorers reads."""
    changed = {name for name, value in settings if value != getattr(DEFAULT, name)}
    readers = {
        "an ensemble": (Ensemble, {"ensemble", "ensemble_lambda"}),
        "a reward server": (RemoteScorer, changed - {"ensemble", "ensemble_lambda"}),
    }
    for what, (kind, names) in readers.items():
        idle = sorted(changed & names)
        if idle and not any(isinstance(scorer, kind) for scorer in scorers):
            raise InputError(f"has no effect without {what}", field=idle[0], remedy="leave it out")


def reward_models(scorer: Scorer) -> list[RewardModel]:
    """The reward models of this process that a scorer asks."""
    match scorer:
        case RewardModel():
            return [scorer]
        case Ensemble():
            return [model for member in scorer.members for model in reward_models(member)]
        case WeightedSum():
            return [model for part, _ in scorer.parts for model in reward_models(part)]
    return []


def reward_inputs(spec: str | Sequence[str], name: str = "reward") -> dict[str, Path]:
    """What a run records as inputs for its specs: name -> file or directory. Servers are not on this disk."""
    specs = [each for each in _specs(spec) if not is_server(each.name)]
    paths = [file_of(each.name) if is_user_code(each.name) else resolve_model(each.name, "reward") for each in specs]
    if len(paths) == 1:
        return {name: paths[0]}
    return {f"{name}:{index}": path for index, path in enumerate(paths)}


def reward_audit_commands(spec: str | Sequence[str]) -> dict[str, str]:
    """What makes the audit of each reward model among a run's `reward_inputs`, by their names. The user's own functions
    are read, not audited."""
    names = [each.name for each in _specs(spec) if not is_server(each.name)]
    inputs = reward_inputs(spec) if names else {}
    return {
        key: f"prefloop audit reward {shlex.quote(name)} PAIRS"
        for key, name in zip(inputs, names, strict=True)
        if not is_user_code(name)
    }


def first_reward_model(spec: str | Sequence[str]) -> Path | None:
    """The directory of the first reward model among the specs that counts as good, or None: for a value model's start.

    Of an ensemble it is the first member.
    """
    for each in _specs(spec):
        if not is_server(each.name) and not is_user_code(each.name) and (each.weight is None or each.weight > 0):
            return _members(each.name)[0]
    return None
