"""What the boards show, made by hand: runs, audits, and a registry with three small models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefloop.audits import store_audit
from prefloop.gate.config import AuditRequirement, GateLimits, ModelGateConfig, Requirement
from prefloop.recipes.gate import gate
from prefloop.registry.config import PromoteConfig, RegisterConfig
from prefloop.registry.register import register
from prefloop.registry.store import opened
from prefloop.registry.switch import promote
from prefloop.rundir import sha256_of
from prefloop.types import AuditReport, Finding

OFF = Requirement(required=False)
LIMITS = GateLimits(
    win_rate=Requirement(evaluations=("win_rate",), at_least=50.0),
    length_controlled_win_rate=OFF,
    perplexity=OFF,
    repetition=OFF,
    suites=OFF,
    audit=AuditRequirement(required=False),
)
STEPS = 30
BUDGET = 4.0


def step(number: int, **changed: Any) -> dict[str, Any]:
    """A line of metrics.jsonl, as a policy run writes it: the score rises, the held-out score falls."""
    kl = 0.1 * number
    row = {
        "step": number,
        "score/mean": 0.05 * number,
        "held_out/score": 1 - 0.02 * number,
        "kl/full": kl,
        "kl/budget_left": BUDGET - kl,
        "response/length": 20 + number,
        "policy/entropy": 3 - 0.05 * number,
        "monitor/length": 100 + 5 * number,
        "monitor/num_alarms": 0,
        "time/step_seconds": 0.5,
    }
    return {**row, **changed}


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_run(path: Path, *, command: str = "train policy", finished: bool = True, text: str = "words") -> Path:
    """A run whose every text is `text`."""
    path.mkdir(parents=True)
    inputs = {f"data:{text}": {"path": text, "sha256": "a" * 64, "audit": text}}
    (path / "inputs.json").write_text(json.dumps({"command": command, "inputs": inputs, "seed": 3, "prefloop": text}))
    write_lines(path / "metrics.jsonl", [step(number, **{f"group/{text}": number}) for number in range(1, STEPS + 1)])
    example = {"step": 20, "prompt": text, "response": text, "score": 1.0}
    alarm = {"signal": "length", "step": 20, "value": 210.0, "limit": 200.0, "action": "review", "message": text}
    write_lines(path / "alarms.jsonl", [{**alarm, "examples": [example]}, {**alarm, "signal": text, "step": 25}])
    if finished:
        result = {"command": command, "stopped": "kl_budget", "metrics": {text: 1.0}, "outputs": {text: text}}
        (path / "result.json").write_text(json.dumps(result))
    return path


def make_audit(
    directory: Path, letter: str = "a", *, sha256: str = "", text: str = "words", severity: str = "block"
) -> AuditReport:
    """A stored report with one finding that is not ok, whose every text is `text`."""
    example = {"line": 7, "prompt": text, "chosen": text, "rejected": text, "value_chosen": 3.0, "value_rejected": 1.0}
    findings = (
        Finding("length", 0.9, severity, f"{text} is paid", (0.8, 0.95), 0.001, 0.7, 90, 0.9, None, text, (example,)),
        Finding(text, None, "ok", text),
    )
    verdict = {"block": "block", "warn": "warn", "ok": "pass"}[severity]
    at = f"2026-06-0{1 + ord(letter) % 9}T10:00:00+00:00"
    report = AuditReport(text, sha256 or letter * 64, verdict, findings, at)  # type: ignore[arg-type]
    store_audit(report, directory)
    return report


class Models:
    """A registry with helper:1, live, and helper:2 and helper:3, candidates."""

    def __init__(self, folder: Path, text: str = "words") -> None:
        self.root, self.folder, self.text = folder / "registry", folder, text
        self.reward = folder / "pays.py"
        self.reward.write_text("what they were tuned against")
        self.sha256 = {}
        for number in (1, 2, 3):
            model = folder / "models" / str(number)
            model.mkdir(parents=True)
            (model / "model.safetensors").write_text(f"weights {number}")
            words = {"who": text, "why": text, "reward": (str(self.reward),)}
            register(RegisterConfig(registry=str(self.root), model=str(model), name="helper", **words))
            self.sha256[number] = sha256_of(model)
        self.promote("helper:1", override=True)

    def promote(self, version: str, *, override: bool = False) -> None:
        """Make a version live."""
        promote(PromoteConfig(registry=str(self.root), version=version, override=override, who=self.text, why="a test"))

    def ask_gate(self, number: int, *, low: float = 52.0, people: int = 0, by: str | None = None) -> str:
        """Ask the gate with a win rate whose interval begins at `low`; gives the verdict."""
        live = next(key for key in self.sha256 if key == self.live())
        row = {
            "name": "win_rate",
            **{"candidate_sha256": self.sha256[number], "baseline_sha256": self.sha256[live], "data_sha256": "d" * 64},
            **{"value": 58.0, "interval": [low, 64.0], "n": 400, "at": "2026-06-01T00:00:00+00:00"},
        }
        file = self.folder / "evaluations.jsonl"
        write_lines(file, [row])
        approval = LIMITS.approval.model_copy(update={"people": people})
        config = ModelGateConfig(
            candidate=f"helper:{number}",
            evidence=(str(file),),
            registry=str(self.root),
            who=self.text,
            why=self.text,
            approved_by=by,
            limits=LIMITS.model_copy(update={"approval": approval}),
        )
        return str(gate(config).values["verdict"])

    def live(self) -> int:
        """Which model's bytes are live."""
        return int((self.root / "live" / "model.safetensors").read_text().split()[1])

    def events(self) -> list[Any]:
        """All events of the ledger."""
        with opened(self.root) as registry:
            return registry.events

    def bytes(self) -> dict[str, bytes]:
        """All that the registry holds but for what is remembered of hashes."""
        files = (path for path in self.root.rglob("*") if path.is_file() and path.name != "hashes.json")
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}
