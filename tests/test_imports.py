"""What importing costs: the core runs without torch, and help comes at once."""

from __future__ import annotations

import os
import resource
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
print(code, *sorted({{name.split(".")[0] for name in sys.modules}}))
"""


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
    code, *loaded = done.stderr.split()
    assert code == "0"
    assert {*TORCH, "numpy", "scipy", "rich", "jinja2", "plotly", "tyro", "sqlalchemy"} & set(loaded) == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    done = python("import prefloop, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))")
    assert {*TORCH, "numpy", "pydantic", "yaml"} & set(done.stdout.split()) == set()


def processor_seconds(*words: str) -> float:
    """Processor time of a child process: unlike wall time, it does not count what else the machine does."""
    # Not under a measurement of coverage, which slows it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def is_ever_below(limit: float, *words: str) -> bool:
    """Whether one of several tries takes less than `limit` seconds: a busy machine slows most, never speeds one up."""
    return any(processor_seconds(*words) < limit for _ in range(15))


@pytest.mark.parametrize("name", ["train sft", "train policy"])
def test_help_takes_less_than_300_milliseconds(name: str) -> None:
    assert is_ever_below(0.3, "-m", "prefloop", *name.split(), "--help")


def test_importing_the_package_takes_less_than_200_milliseconds() -> None:
    assert is_ever_below(0.2, "-c", "import prefloop")
