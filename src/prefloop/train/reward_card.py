"""The card of a reward model, `README.md` of its directory: what it was trained on and what is known of its scores.

Nothing in it depends on when or where it was written: a resumed run writes the same bytes. Where no audit has been
found, it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefloop.reward.reliability import markdown_table, write_diagram
from prefloop.rundir import RunDir, atomic_file, read_json, read_section
from prefloop.train.config import RewardConfig

CARD = "README.md"
AUDIT_HEADING = "## Audit"
NOT_TOLD = frozenset({"out", "report_to", "data", "eval_data", "model", "member"})
"""Settings that the card tells elsewhere, or that say nothing of the model."""


def write_card(directory: Path, config: RewardConfig, run: RunDir, summary: Mapping[str, Any] | None) -> None:
    """Write the card (and the reliability diagram) into a model's directory. `summary` is the answer of `reward eval`
    on held-out pairs, None where there were none."""
    parts = ["# Reward model", _trained_on(run.path), _settings(config)]
    if summary is None:
        parts.append("## Held-out pairs\n\nNone: nothing is known of its accuracy.")
    else:
        diagram = write_diagram(directory, summary["reliability"])
        parts += [_accuracy(summary), _calibration(summary, diagram)]
    parts.append(_audit(None))
    (directory / CARD).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _trained_on(run: Path) -> str:
    """The inputs with their hashes, and the versions, as the run recorded them."""
    lines = ["## Trained on", "", "| input | path | sha256 | audit |", "| --- | --- | --- | --- |"]
    for name, entry in read_section(run / "inputs.json", "inputs").items():
        lines.append(f"| {name.partition(':')[0]} | `{entry['path']}` | `{entry['sha256']}` | {entry['audit']} |")
    return "\n".join([*lines, "", f"By prefloop {read_json(run / 'inputs.json')['prefloop']}."])


def _settings(config: RewardConfig) -> str:
    changed = {name: value for name, value in config.model_dump(exclude_defaults=True).items() if name not in NOT_TOLD}
    told = [f"- `{name}`: {value}" for name, value in changed.items()]
    return "\n".join(["## Settings other than the defaults", "", *(told or ["None."])])


def _accuracy(summary: Mapping[str, Any]) -> str:
    low, high = summary["accuracy_interval"]
    pairs = f"{summary['num_pairs']} pairs of {summary['num_conversations']} conversations"
    lines = [
        "## Held-out pairs",
        "",
        f"On {pairs} that it was not trained on, but that chose its checkpoint:",
        "",
        "| scorer | right |",
        "| --- | --- |",
        f"| this model | {summary['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}) |",
    ]
    for name, value in summary["baselines"].items():
        lines.append(f"| {name.replace('_', ' ')} | {'-' if value is None else format(value, '.3f')} |")
    for side in ("shorter", "longer"):
        row = summary[f"where_{side}_is_right"]
        if row["num_pairs"]:
            lines.append(f"| this model, where the {side} is right ({row['num_pairs']}) | {row['accuracy']:.3f} |")
    if "note" in summary:
        lines += ["", f"{summary['note']}."]
    return "\n".join(lines)


def _calibration(summary: Mapping[str, Any], diagram: str) -> str:
    temperature = summary["temperature"]
    if temperature is None:
        told = "No temperature was fitted: differences of scores are no log-odds."
    else:
        told = (
            f"P(A is preferred to B) = sigmoid((score A - score B) / {temperature:.4g}), scores normalised. "
            "The temperature was fitted to these pairs."
        )
    numbers = (
        f"Log-loss {summary['log_loss']:.4f} nats (log 2 = 0.6931), expected calibration error {summary['ece']:.4f}."
    )
    plot = f"![confidence against share right]({diagram})"
    return "\n\n".join(["## Calibration", told, numbers, markdown_table(summary["reliability"]), plot])


def show_audit(directory: Path, verdict: str) -> None:
    """Put the verdict of an audit into the card of a model, if it has one of ours."""
    card = directory / CARD
    if not card.is_file():
        return
    told, heading, _ = card.read_text(encoding="utf-8").rpartition(AUDIT_HEADING)
    if heading:
        with atomic_file(card) as file:
            file.write(f"{told}{_audit(verdict)}\n")


def _audit(verdict: str | None) -> str:
    """The verdict of an audit of this model; none exists while the model is only being written."""
    return f"{AUDIT_HEADING}\n\naudit: {verdict or 'none'}"
