"""`round status`: where a round stands, from the records of its stages alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefloop.recipes.round_config import RoundStatusConfig
from prefloop.rundir import read_json
from prefloop.types import InputError
from prefloop.yaml_tree import read_yaml

STAGES = ("sample", "label", "audit", "shift", "reward", "audit_reward", "policy")
"""The stages of a round, in their order."""


def status(config: RoundStatusConfig) -> dict[str, Any]:
    """The command `round status`. Raises InputError where `run` is no round."""
    root = Path(config.run)
    if not (root / "inputs.json").is_file() or read_json(root / "inputs.json").get("command") != "round run":
        raise InputError("is no directory of a round", path=root, field="run", remedy="give the --out of `round run`")
    files = {name: root / "stages" / f"{name}.json" for name in STAGES}
    found = {name: read_json(path) for name, path in files.items() if path.exists()}
    stages = stage_rows(found)
    pending = next((name for name in STAGES if name not in found), None)
    settings = read_yaml(root / "config.yaml").tree
    state = "done" if (root / "result.json").exists() else f"next is {pending}" if pending else "all but the answer"
    again = f"prefloop round run --config {shlex.quote(str(root / 'config.yaml'))} --out {shlex.quote(str(root))}"
    if pending == "label" and settings["simulate"] is None:
        state = f"waits for judgments of {root / 'comparisons.jsonl'}"
        again += " --judgments JUDGMENTS.jsonl"
    following = [again] if not (root / "result.json").exists() else read_json(root / "result.json")["answer"]["next"]
    return {"run": str(root), "state": state, "stages": stages, "next": following}


def stage_rows(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each stage of a round, from the records of those that are done."""
    return [
        {
            "stage": name,
            "done": name in found,
            "seconds": found[name]["seconds"] if name in found else None,
            "says": _TOLD[name](found[name]) if name in found else "",
        }
        for name in STAGES
    ]


def _sampled(found: Mapping[str, Any]) -> str:
    return f"{found['num_comparisons']} comparisons on {found['num_prompts']} prompts, KL {found['mean_kl']:.2f}"


def _labelled(found: Mapping[str, Any]) -> str:
    return f"{found['num_votes']} votes, {found['num_train']} pairs to train on, {found['num_held_out']} held out"


def _audited(found: Mapping[str, Any]) -> str:
    return "; ".join(f"{Path(each['file']).name}: {each['verdict']}" for each in found["audits"])


def _shifted(found: Mapping[str, Any]) -> str:
    return f"accuracy {found['old']['accuracy']:.3f} on old pairs, {found['new']['accuracy']:.3f} on new"


def _retrained(found: Mapping[str, Any]) -> str:
    return f"accuracy on new pairs {found['in_use']['accuracy']:.3f}, retrained {found['retrained']['accuracy']:.3f}"


def _judged(found: Mapping[str, Any]) -> str:
    names = ", ".join(each["name"] for each in found["raised"])
    return f"{found['verdict']}: {names}" if names else str(found["verdict"])


def _tuned(found: Mapping[str, Any]) -> str:
    return f"stopped: {found['stopped']}, {len(found['alarms'])} alarms"


_TOLD = {
    "sample": _sampled,
    "label": _labelled,
    "audit": _audited,
    "shift": _shifted,
    "reward": _retrained,
    "audit_reward": _judged,
    "policy": _tuned,
}
