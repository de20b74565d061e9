"""What importing costs: the core runs without torch, and help loads little. (Seconds are in docs/benchmarks.md.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import prefloop
from prefloop.cli import COMMANDS

SOURCE = Path(prefloop.__file__).parent
TORCH_FREE_PACKAGES = (
    "app",
    "audit",
    "data",
    "gate",
    "label",
    "monitor",
    "registry",
    "review",
    "signals",
    "statistics",
    "world",
    "report",
)
TORCH_FREE_EVALUATION = ("budget", "overoptimization", "records", "rows", "suite", "verdicts", "winrate")
TORCH = ("torch", "transformers", "tokenizers", "safetensors")

WITHOUT_TORCH = """
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused}:
            raise ModuleNotFoundError(f"{{name}} is not installed", name=name)
sys.meta_path.insert(0, Refuse())
for name in {modules}:
    importlib.import_module(name)
"""

LOADED = """
import sys
from prefloop.cli import main
code = main({words})
sys.stdout = sys.stderr
print(code, len(sys.modules), *sorted({{name.split(".")[0] for name in sys.modules}}))
"""
MOST_MODULES = 300
"""Modules, those of Python itself included, that any help may load; it takes about 250."""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def torch_free_modules() -> list[str]:
    files = [path for package in TORCH_FREE_PACKAGES for path in (SOURCE / package).rglob("*.py")]
    files += [*SOURCE.rglob("config.py"), *SOURCE.glob("*.py")]
    files += [SOURCE / "evaluate" / f"{name}.py" for name in TORCH_FREE_EVALUATION]
    dotted = {".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in files}
    return sorted(name.removesuffix(".__init__") for name in dotted - {"prefloop.__main__"})


def test_the_core_runs_without_torch() -> None:
    modules = torch_free_modules()
    assert {"prefloop.cli", "prefloop.rundir", "prefloop.train.config"} <= set(modules)
    done = python(WITHOUT_TORCH.format(refused=TORCH, modules=modules))
    assert done.returncode == 0, done.stderr


def test_the_check_above_can_fail() -> None:
    done = python(WITHOUT_TORCH.format(refused=TORCH, modules=["prefloop.functional.losses"]))
    assert "torch is not installed" in done.stderr


@pytest.mark.parametrize("words", [[], *([*name.split(), "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    done = python(LOADED.format(words=words))
    assert done.stdout.startswith("usage:") == (words == [])
    code, number, *loaded = done.stderr.split()
    assert code == "0" and int(number) < MOST_MODULES
    assert {*TORCH, "numpy", "scipy", "rich", "jinja2", "plotly", "tyro", "sqlalchemy"} & set(loaded) == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    done = python("import prefloop, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))")
    assert {*TORCH, "numpy", "pydantic", "yaml"} & set(done.stdout.split()) == set()
