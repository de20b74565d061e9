"""`doctor`: what this machine has and lacks, and the start-up checks on a user's own model.

Without a model it imports neither torch nor transformers: it must also work where they are missing.
"""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from typing import TYPE_CHECKING, Any

from prefloop import __version__
from prefloop.console import say
from prefloop.recipes.config import DoctorConfig
from prefloop.types import InputError, Message, Prompt

if TYPE_CHECKING:
    from prefloop.train.checks import Measured

EXTRAS = {
    "train": ("torch", "transformers", "tokenizers", "safetensors", "peft", "accelerate"),
    "hf": ("datasets", "pyarrow"),
    "app": ("fastapi", "uvicorn", "sqlalchemy"),
    "postgres": ("psycopg",),
}
"""What each extra of the package brings."""
QUESTIONS = (
    "Hello!",
    "What is the capital of France, and why is it there and not somewhere else in the country?",
    "Write a sentence about the sea.",
    "Count to ten.",
)
"""Prompts of unequal length, so that padding shows."""


def run(config: DoctorConfig) -> dict[str, Any]:
    """The command `doctor`. Raises InputError, naming the likely cause, for the first start-up check that fails."""
    answer: dict[str, Any] = {"machine": _machine(), "extras": _extras()}
    if config.model is None:
        return answer
    missing = answer["extras"]["train"].get("missing")
    if missing:
        raise InputError(f"checking a model needs {', '.join(missing)}", remedy="pip install 'prefloop[train]'")
    measured = _checks(config)
    answer["checks"] = [
        {
            "name": each.name,
            "passed": each.passed,
            "observed": each.observed,
            "limit": each.limit,
            "likely": "" if each.passed else each.cause,
        }
        for each in measured
    ]
    for each in measured:
        verdict = "ok" if each.passed else "FAILED"
        say(f"check {each.name:16s} {verdict:6s} {each.observed:.2g} (limit {each.limit:.0e})")
    for each in measured:
        each.require()
    return answer


def _machine() -> dict[str, Any]:
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {
        "prefloop": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
    }
    return found | {"accelerator": _accelerator()}


def _accelerator() -> str:
    try:
        import torch
    except ImportError:
        return "unknown: torch is not installed"
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none: everything runs on the CPU"


def _extras() -> dict[str, dict[str, Any]]:
    """For each extra the versions that are installed, and what is missing with the command that brings it."""
    found: dict[str, dict[str, Any]] = {}
    for extra, packages in EXTRAS.items():
        versions = {name: _version(name) for name in packages}
        missing = [name for name, version in versions.items() if version is None]
        found[extra] = {name: version for name, version in versions.items() if version is not None}
        if missing:
            found[extra] |= {"missing": missing, "install": f"pip install 'prefloop[{extra}]'"}
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _checks(config: DoctorConfig) -> list[Measured]:
    """The start-up checks on a few responses of the model, as a run does them on its first round."""
    import torch

    from prefloop.models.batching import collate
    from prefloop.models.chat import Encoded
    from prefloop.models.forward import response_logprobs
    from prefloop.models.load import load_policy
    from prefloop.reward.scorer import Response
    from prefloop.reward.scoring import load_scorer
    from prefloop.rollout.engine import sample
    from prefloop.rundir import resolve_model
    from prefloop.train import checks

    assert config.model is not None
    model, chat = load_policy(resolve_model(config.model, "model"))
    prompts = [Prompt(f"doctor-{place}", (Message("user", text),)) for place, text in enumerate(QUESTIONS)]
    encoded = [chat.encode_prompt(prompt.messages) for prompt in prompts]
    sampled = sample(
        model,
        encoded,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        stop_ids=chat.stop_ids,
        pad_id=chat.pad_id,
        seed=config.seed,
    )
    rows = [
        Encoded(prompt + row.ids, [False] * len(prompt) + [True] * len(row.ids))
        for prompt, row in zip(encoded, sampled, strict=True)
    ]
    tokens = collate(rows, pad_id=chat.pad_id, device=model.device)
    drawn = torch.zeros(tokens.response_mask.shape, device=model.device)
    drawn[tokens.response_mask] = torch.tensor([value for row in sampled for value in row.logprobs]).to(model.device)
    with torch.no_grad():
        logprobs = response_logprobs(model, tokens, temperature=config.temperature)
    measured = [
        checks.pad_token(model, chat),
        checks.ratio(model, tokens, temperature=config.temperature),
        checks.padding(model, chat, tokens, temperature=config.temperature),
        checks.sampler_gap(drawn, logprobs, tokens.response_mask),
    ]
    if config.reward is not None:
        responses = [Response(chat.decode(row.ids), row.finish_reason == "stop") for row in sampled]
        scorer = load_scorer(config.reward, device=model.device)
        measured += checks.scorer_checks(scorer, prompts, responses)
    return measured
