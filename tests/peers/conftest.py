"""What the comparisons with peers share: tiny weights, rows of token ids, and scripts run in a peer's environment.

`make test-peers` makes the environments and runs these tests; elsewhere they are skipped.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prefloop.models.chat import Chat, Encoded, train_chat
from prefloop.models.config import ScratchConfig
from prefloop.models.load import load_policy, new_policy, new_reward_model, save_model

HERE = Path(__file__).parent
SHAPE = ScratchConfig(hidden_size=32, num_layers=2, num_heads=2, vocab_size=330, max_position=128)
FIRST_WORD_ID = 10
"""Special tokens come first."""

PeerAnswer = dict[str, Tensor]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PREFLOOP_PEERS" not in os.environ:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="comparisons with peers: make test-peers"))


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, dict[str, Any]], PeerAnswer]:
    """`peer("trl", "trl_offline.py", case)`: what the script makes of the case in .venv-peers-trl."""

    answers: dict[tuple[str, str, str], PeerAnswer] = {}

    def run(environment: str, script: str, case: dict[str, Any]) -> PeerAnswer:
        key = (environment, script, json.dumps(case))
        if key in answers:
            return answers[key]
        python = Path(os.environ["PREFLOOP_PEERS"]).resolve() / f".venv-peers-{environment}" / "bin" / "python"
        if not python.exists():
            pytest.skip(f"no {python}: make test-peers")
        folder = tmp_path_factory.mktemp("peer")
        (folder / "case.json").write_text(json.dumps(case))
        # The peer must see its own packages only.
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [python, HERE / script, folder / "case.json", folder / "answer.safetensors"],
            env=clean,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        answers[key] = load_file(folder / "answer.safetensors")
        return answers[key]

    return run


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Directories: `policy`, `reference`, `reward`, and `moved` and `moved_value`, near policy and reward."""
    root = tmp_path_factory.mktemp("models")
    chat = train_chat(["name things like the tree or the moon"] * 4, vocab_size=SHAPE.vocab_size)
    for seed, name in enumerate(("policy", "reference")):
        model = new_policy(SHAPE, chat, seed=seed, device=torch.device("cpu"))
        # Fresh weights give nearly uniform predictions, under which little can differ.
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(3.0 if weight.ndim == 2 else 1.0)
        save_model(model, chat, root / name)
    reward, _ = new_reward_model(root / "policy", seed=2, device=torch.device("cpu"))
    save_model(reward, chat, root / "reward")
    move(root / "policy", root / "moved", chat)
    move(root / "reward", root / "moved_value", chat)
    return {name: str(root / name) for name in ("policy", "reference", "reward", "moved", "moved_value")}


def move(source: Path, target: Path, chat: Chat) -> None:
    """A copy with noise on its weights, enough that some ratios leave the clip range."""
    generator = torch.Generator().manual_seed(5)
    tensors = {
        name: weight + 0.01 * torch.randn(weight.shape, generator=generator)
        for name, weight in load_file(source / "model.safetensors").items()
    }
    target.mkdir()
    for file in source.iterdir():
        if file.name != "model.safetensors":
            (target / file.name).write_bytes(file.read_bytes())
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="session")
def chat(models: dict[str, str]) -> Chat:
    return load_policy(Path(models["policy"]), device=torch.device("cpu"))[1]


def words(generator: random.Random, least: int, most: int) -> list[int]:
    """Token ids that are no special tokens."""
    return [generator.randrange(FIRST_WORD_ID, 260) for _ in range(generator.randint(least, most))]


@pytest.fixture(scope="session")
def pairs() -> list[list[list[int]]]:
    """Six rows of prompt, chosen and rejected response, as token ids."""
    generator = random.Random(3)
    return [[words(generator, 3, 9), words(generator, 1, 12), words(generator, 1, 12)] for _ in range(6)]


@pytest.fixture(scope="session")
def encode() -> Callable[[list[int], list[int]], Encoded]:
    """Prompt and response as the trainers here take them."""
    return lambda prompt, response: Encoded(prompt + response, [False] * len(prompt) + [True] * len(response))


@pytest.fixture
def agree(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """`agree(ours, theirs)`: tensors are equal in fp32; says by how much they differ, relative to the norm of theirs,
    or to `scale`, the size of the terms of a sum that nearly cancel."""

    def check(
        ours: Tensor | dict[str, Tensor],
        theirs: Tensor | dict[str, Tensor],
        what: str = "loss",
        *,
        scale: float | None = None,
    ) -> None:
        difference = relative_difference(ours, theirs, scale)
        record_property(f"relative difference, {what}", difference)
        print(f"\n{request.node.name}: {what} differs by {difference:.1e}", end="")
        assert difference < 1e-5

    return check


def relative_difference(
    ours: Tensor | dict[str, Tensor], theirs: Tensor | dict[str, Tensor], scale: float | None = None
) -> float:
    """Norm of the difference over the norm of theirs. Of gradients by weight: over all weights together."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        assert ours.keys() <= theirs.keys() and len(ours) > 10
        theirs = torch.cat([theirs[name].flatten() for name in ours])
        ours = torch.cat([tensor.flatten() for tensor in ours.values()])
    assert isinstance(ours, Tensor) and isinstance(theirs, Tensor)
    return float((ours.detach().double() - theirs.double()).norm() / (scale or theirs.double().norm()))


@pytest.fixture
def differ(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[..., float]:
    """`differ(ours, theirs)`: by how much, relative to the norm of theirs; that it is much."""

    def check(ours: Tensor | dict[str, Tensor], theirs: Tensor | dict[str, Tensor], what: str) -> float:
        difference = relative_difference(ours, theirs)
        record_property(f"relative difference, {what}", difference)
        print(f"\n{request.node.name}: {what} differs by {difference:.2g}", end="")
        assert difference > 1e-3
        return difference

    return check


@pytest.fixture(scope="session")
def gradients_of() -> Callable[[torch.nn.Module], dict[str, Tensor]]:
    """Gradients by the name of the weight."""
    return lambda model: {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
