from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, PositiveFloat, PositiveInt

from prefloop import cli
from prefloop.answer import as_json, as_text
from prefloop.cli import Command, main
from prefloop.config import Section, unknown_name
from prefloop.types import EnvironmentStop, InputError, RunResult


class Optimizer(Section):
    """How weights are updated."""

    lr: PositiveFloat = 1e-5
    """Peak learning rate."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""


class Stage(Section):
    """One stage of the schedule."""

    num_steps: PositiveInt
    """Its steps."""


class TrainConfig(Section):
    """Trains on pairs."""

    data: tuple[str, ...] = Field(min_length=1)
    """Training files."""
    skip_bad: bool = False
    """Leave unusable rows out."""
    shuffle: bool = True
    """Draw rows in random order."""
    offset: float = 0.0
    """Added to every score."""
    model: str | None = None
    """Starting weights."""
    loss: Literal["dpo", "ipo"] = "dpo"
    """The loss."""
    algorithm: str = "ppo"
    """The algorithm."""
    out: str | None = None
    """Run directory."""
    stages: tuple[Stage, ...] = ()
    """Stages of the schedule."""
    optimizer: Optimizer = Optimizer()
    """The optimizer."""


class PPO(Section):
    """Proximal policy optimisation."""

    clip_range: PositiveFloat = 0.2
    """Largest change of a ratio."""


class RLOO(Section):
    """Leave-one-out baseline."""

    group_size: PositiveInt = 4
    """Responses of one prompt."""


class PPOConfig(TrainConfig):
    """Policy optimisation."""

    settings: PPO = PPO()
    """Settings of the algorithm."""


class RLOOConfig(TrainConfig):
    """Policy optimisation."""

    settings: RLOO = RLOO()
    """Settings of the algorithm."""


class FileConfig(Section):
    """Reads one file against another."""

    file: str
    """The file."""
    against: str = "none"
    """Another file."""


STATION = "station_for_tests"
VARIANTS: dict[str, type[Section]] = {"ppo": PPOConfig, "rloo": RLOOConfig}


def policy_config(name: str | None) -> type[Section]:
    if name is not None and name not in VARIANTS:
        raise InputError(f"unknown algorithm {name}", field="--algorithm", remedy=unknown_name(name, VARIANTS))
    return VARIANTS[name or "ppo"]


class Runs:
    """A stand-in for stations: remembers the config it was run with and answers as told."""

    def __init__(self) -> None:
        self.config: Any = None
        self.answer: Mapping[str, Any] | RunResult | BaseException = {"rows": 3}

    def run(self, config: Section) -> Any:
        self.config = config
        print("chatter")
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def runs(monkeypatch: Any) -> Runs:
    runs = Runs()
    module = types.ModuleType(STATION)
    for name, value in {
        "TrainConfig": TrainConfig,
        "FileConfig": FileConfig,
        "policy_config": policy_config,
        "VARIANTS": VARIANTS,
        "run": runs.run,
    }.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, STATION, module)

    def command(config: str, example: str, **more: Any) -> Command:
        return Command(f"{STATION}:{config}", f"{STATION}:run", f"Runs {example}.", example, **more)

    monkeypatch.setattr(
        cli,
        "COMMANDS",
        {
            "data check": command("FileConfig", "prefloop data check x.jsonl", positionals=("file",)),
            "train sft": command("TrainConfig", "prefloop train sft --data x.jsonl"),
            "train policy": command(
                "policy_config", "prefloop train policy --data x", variant="algorithm", variants=f"{STATION}:VARIANTS"
            ),
            "compare": command("FileConfig", "prefloop compare a b", positionals=("file", "against")),
            "merge": command("TrainConfig", "prefloop merge a b", positionals=("data",)),
        },
    )
    return runs


def config_of(runs: Runs, *words: str) -> Any:
    assert main(words) == 0
    return runs.config


def error_of(capsys: Any, *words: str) -> str:
    """The one line on standard error; nothing else may be printed."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return str(err[:-1])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "a", "b"], {"data": ("a", "b")}),
        (["--data", "a", "--data", "b"], {"data": ("a", "b")}),
        (["--data=a"], {"data": ("a",)}),
        (["--data", "a", "--skip-bad"], {"skip_bad": True}),
        (["--skip_bad", "--data", "a"], {"skip_bad": True}),
        (["--skip-bad", "true", "--data", "a"], {"skip_bad": True}),
        (["--skip-bad=false", "--data", "a"], {"skip_bad": False}),
        (["--data", "a", "--skip-bad", "--no-skip-bad"], {"skip_bad": False}),
        (["--data", "a", "--no-shuffle"], {"shuffle": False}),
        (["--data", "a", "--offset", "-1e-3"], {"offset": -0.001}),
        (["--data", "a", "--offset", "1", "--offset", "2"], {"offset": 2.0}),
        (["--data", "a", "--model", "none"], {"model": None}),
        (["--data", "a", "--model=--x"], {"model": "--x"}),
        (["--data", "a", "--optimizer.lr", "3e-4"], {"optimizer": Optimizer(lr=3e-4)}),
        (["--data", "a", "--optimizer.max-grad-norm", "2"], {"optimizer": Optimizer(max_grad_norm=2)}),
        (["--data", "a", "--optimizer.max_grad_norm", "2"], {"optimizer": Optimizer(max_grad_norm=2)}),
    ],
)
def test_flags(runs: Runs, words: list[str], expected: dict[str, Any]) -> None:
    assert config_of(runs, "train", "sft", *words) == TrainConfig(**{"data": ("a",), **expected})


def test_positional_words(runs: Runs) -> None:
    assert config_of(runs, "data", "check", "x.jsonl").file == "x.jsonl"
    assert config_of(runs, "data", "check", "--file", "x.jsonl").file == "x.jsonl"
    assert config_of(runs, "data", "check", "--", "--x").file == "--x"
    assert config_of(runs, "compare", "a", "b") == FileConfig(file="a", against="b")
    assert config_of(runs, "compare", "a") == FileConfig(file="a")
    assert config_of(runs, "merge", "a", "b").data == ("a", "b")
    # A switch does not take the file behind it for its value.
    assert config_of(runs, "merge", "--skip-bad", "a").data == ("a",)


def test_flags_stand_over_the_file(runs: Runs, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: [a]\noptimizer:\n  lr: 1e-4\n  max_grad_norm: 3\nskip_bad: true\n")
    config = config_of(runs, "train", "sft", "--config", str(file), "--optimizer.lr", "2e-4", "--no-skip-bad")
    assert config == TrainConfig(data=("a",), optimizer=Optimizer(lr=2e-4, max_grad_norm=3), skip_bad=False)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("train sft --dta x", "--dta: unknown flag; did you mean --data? `prefloop train sft --help` lists all"),
        ("train sft --dat x", "--dat: unknown flag; did you mean --data? `prefloop train sft --help` lists all"),
        ("train sft --lr 1", "--lr: unknown flag; did you mean --optimizer.lr? `prefloop train sft --help` lists all"),
        ("train sft --zzzz", "--zzzz: unknown flag; `prefloop train sft --help` lists all"),
        (
            "train sft --optimizer 3",
            "--optimizer: is a section of settings; give one of --optimizer.lr, --optimizer.max-grad-norm",
        ),
        ("train sft", "--data: is required; give --data VALUE"),
        ("train sft --data", "--data: needs a value; give --data VALUE..."),
        ("train sft --model --data a", "--model: needs a value; give --model VALUE, or --model=VALUE if it begins"),
        ("train sft --data a --optimizer.lr x", '--optimizer.lr: is "x"; should be a number'),
        ("train sft --data a --optimizer.lr 0", "--optimizer.lr: is 0; should be greater than 0"),
        ("train sft --data a --offset", "--offset: needs a value"),
        ("train sft --data a --json=1", "--json: takes no value"),
        ("train sft --stages 3", "--stages: can only be given in a --config file"),
        ("train policy --algorithm", "--algorithm: needs a value"),
        (
            "train policy --data a -- --algorithm rloo",
            "unexpected word: --algorithm; `prefloop train policy` takes flags",
        ),
        ("merge", "DATA: is required; give DATA"),
        ("train sft a", "unexpected word: a; `prefloop train sft` takes flags only"),
        ("train policy -h extra --config", "--config: needs a value"),
        ("data check", "FILE: is required; give FILE"),
        ("data check a b", "unexpected word: b; `prefloop data check` takes FILE"),
        ("trian sft", "unknown command: trian sft; did you mean `prefloop train sft`? `prefloop --help` lists all"),
        ("data chek x", "unknown command: data chek; did you mean `prefloop data check`?"),
        ("zzz", "unknown command: zzz; `prefloop --help` lists all"),
        ("--data x", "unknown command: --data x"),
        ("train --data x", "`prefloop train` is not a whole command; one of train sft, train policy"),
        ("train policy --algorithm poo", "--algorithm: unknown algorithm poo; did you mean ppo? known: ppo, rloo"),
        ("train policy --data a --settings.group-size 2", "--settings.group-size: unknown flag"),
        ("train sft --config nowhere.yaml", "nowhere.yaml: no such file"),
    ],
)
def test_bad_input_is_one_line(runs: Runs, capsys: Any, words: str, line: str) -> None:
    assert error_of(capsys, *words.split()).startswith(line)
    assert runs.config is None


def test_a_bad_file_is_named_with_its_line(runs: Runs, capsys: Any, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: [a]\noptimizer:\n  lr: fast\n")
    assert (
        error_of(capsys, "train", "sft", "--config", str(file))
        == f'{file}:3: optimizer.lr: is "fast"; should be a number'
    )


def test_the_variant_picks_the_settings(runs: Runs, capsys: Any, tmp_path: Path) -> None:
    base = ("train", "policy", "--data", "a")
    assert config_of(runs, *base) == PPOConfig(data=("a",))
    assert config_of(runs, *base, "--algorithm", "rloo", "--settings.group-size", "8") == RLOOConfig(
        data=("a",), algorithm="rloo", settings=RLOO(group_size=8)
    )
    file = tmp_path / "c.yaml"
    file.write_text("algorithm: rloo\nsettings: {group_size: 2}\n")
    assert config_of(runs, *base, "--config", str(file)).settings == RLOO(group_size=2)
    capsys.readouterr()
    # A flag stands over the file for the variant too, whose settings are then unknown.
    assert "settings.group_size: unknown key" in error_of(capsys, *base, f"--config={file}", "--algorithm=ppo")
    file.write_text("algorithm: 3\n")
    assert error_of(capsys, *base, "--config", str(file)) == f"{file}:1: algorithm: is 3; should be text"


def test_json_is_one_object_and_all_else_goes_to_standard_error(runs: Runs, capsys: Any) -> None:
    runs.answer = {"rate": math.nan, "limits": (1, math.inf), "where": Path("x"), "next": "prefloop demo"}
    assert main(["data", "check", "x", "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert json.loads(out) == {"rate": None, "limits": [1, None], "where": "x", "next": "prefloop demo"}
    assert err == "chatter\n"


def test_a_run_result_is_answered_whole(runs: Runs, capsys: Any) -> None:
    runs.answer = RunResult("runs/x", "train sft", "kl_budget", {"kl": math.nan}, {"model": "checkpoints/step-1"})
    assert main(["train", "sft", "--data", "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "run": "runs/x",
        "command": "train sft",
        "stopped": "kl_budget",
        "metrics": {"kl": None},
        "outputs": {"model": "checkpoints/step-1"},
        "next": "",
    }


def test_the_answer_for_people() -> None:
    text = as_text(
        {
            "next": "prefloop train sft --data x",
            "rows": 12,
            "length": {"mean": 3.14159, "words": {"p95": 7}},
            "ok": True,
            "missing": None,
            "sources": ["a", "b"],
            "sides": [{"train": 3, "eval": {"rows": 1}}, {"text": "x" * 80}],
            "runs": [["a", 1], {"b": 2.5}],
            "bad": [{"line": 3, "problem": "no text"}, {"line": 17, "field": "chosen"}],
            "empty": [],
        }
    )
    assert text == textwrap.dedent("""\
        rows              12
        length.mean       3.142
        length.words.p95  7
        ok                yes
        missing           -
        sources           a, b
        runs              a, 1, b: 2.5
        empty             -

        sides
          train  eval.rows  text
              3          1
                            xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...

        bad
          line  problem  field
             3  no text
            17           chosen

        next: prefloop train sft --data x""")


def test_numbers_of_numpy_are_numbers() -> None:
    import numpy as np

    assert json.loads(as_json({"n": np.int64(3), "x": np.float32(0.5), "nan": np.float64("nan")})) == {
        "n": 3,
        "x": 0.5,
        "nan": None,
    }
    with pytest.raises(TypeError, match="may not hold a set"):
        as_json({"s": {1}})


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("is empty", path="x.jsonl", line=17), 2, "x.jsonl:17: is empty\n"),
        (
            EnvironmentStop("reward server away"),
            3,
            "stopped: reward server away; run the same command again to go on\n",
        ),
        (OSError(errno.ENOSPC, "No space", "runs/x"), 3, "stopped: disk full at runs/x; make room and run the same"),
        (OSError(errno.EDQUOT, "Quota"), 3, "stopped: disk full; make room and run the same command again"),
        (
            PermissionError(errno.EACCES, "", "data/x"),
            2,
            "data/x: permission denied; change its permissions, or give an",
        ),
        (OSError(errno.ENAMETOOLONG, "", "x" * 300), 2, f"{'x' * 300}: file name too long; "),
        (PermissionError(errno.EACCES, "a socket of the station"), 70, "Traceback"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to go on\n"),
        (OSError(errno.EIO, "I/O error"), 70, "Traceback"),
        (ValueError("unforeseen"), 70, "Traceback"),
        (BrokenPipeError(errno.EPIPE, "a socket of the station"), 70, "Traceback"),
    ],
)
def test_exit_codes(runs: Runs, capfd: Any, error: BaseException, code: int, text: str) -> None:
    runs.answer = error
    assert main(["train", "sft", "--data", "a", "--json"]) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.removeprefix("chatter\n").startswith(text)
    assert ("this is a bug; please report it" in err) == (code == 70)
    assert ("Traceback" in err) == (code == 70)


def test_help_says_everything_about_a_command(runs: Runs, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["train", "policy", "-h", "--algorithm", "rloo"]) == 0
    text = capsys.readouterr().out
    for line in (
        "usage:    prefloop train policy --data VALUE... [--FLAG VALUE]...",
        "example:  prefloop train policy --data x",
        "  --data        Training files. [text..., required]",
        "  --skip-bad    Leave unusable rows out. [true|false, default false]",
        "  --no-shuffle  Draw rows in random order. [true|false, default true]",
        "  --model       Starting weights. [text, default none]",
        "  --loss        The loss. [dpo|ipo, default dpo]",
        "  stages:       Stages of the schedule. Only in a --config file. [Stage..., default (empty)]",
        "optimizer: How weights are updated.",
        "  --optimizer.lr             Peak learning rate. [number > 0, default 1e-05]",
        "settings: Leave-one-out baseline.",
        "  --config FILE.yaml ",
    ):
        assert line in text
    assert "these are for rloo. For others: `prefloop train policy --algorithm ppo --help`." in " ".join(text.split())
    assert "clip-range" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert runs.config is None


def test_commands_are_listed(runs: Runs, capsys: Any) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split("  ")[1] for line in lines if line.startswith("  ")] == list(cli.COMMANDS)
        assert "" in lines[2:]
    assert main(["train", "-h"]) == 0
    assert main(["train"]) == 0
    text = capsys.readouterr().out
    assert "train sft" in text
    assert "train policy" in text
    assert "data check" not in text


# What follows needs a process of its own: signals, closed pipes and what gets imported.

PROGRAM = """
import sys, time, types
from prefloop import cli
from prefloop.config import Section
class Config(Section):
    text: str = ""
def run(config):
    print("started", flush=True)
    {body}
module = types.ModuleType("station")
module.Config, module.run = Config, run
sys.modules["station"] = module
cli.COMMANDS["go"] = cli.Command("station:Config", "station:run", "Goes.", "prefloop go")
sys.argv = ["prefloop", "go"]
cli.entry()
"""


def start(body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_interrupt(number: signal.Signals) -> None:
    with start("time.sleep(60)") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "started\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "interrupted; run the same command again to go on\n")


def test_a_closed_reader_ends_the_command_without_noise() -> None:
    with start("return {'rows': list(range(100_000))}") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (128 + signal.SIGPIPE, "started\n")


def test_an_interrupt_while_modules_load_waits_until_they_are_whole(tmp_path: Path) -> None:
    """Where it hits in the middle of an import that guards against errors, a module is left half loaded."""
    (tmp_path / "slow.py").write_text(
        "import time\nprint('loading', flush=True)\ntry:\n    time.sleep(2)\nexcept BaseException:\n"
        "    raise ImportError('half loaded') from None\ndef run(config): pass\n"
    )
    program = PROGRAM.format(body="").replace('"station:run"', '"slow:run"')
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{program}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "interrupted; run the same command again to go on\n")


def test_the_answer_is_utf8_whatever_the_locale() -> None:
    command = [sys.executable, "-c", PROGRAM.format(body="return {'text': 'Füße 日本'}")]
    for encoding in ("ascii", "latin-1", "utf-16"):
        done = subprocess.run(
            command, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
        )
        assert (done.returncode, done.stdout.decode("utf-8")) == (0, "text  Füße 日本\n")


def test_python_m_prefloop() -> None:
    done = subprocess.run([sys.executable, "-m", "prefloop", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0.1.0\n", "")
    done = subprocess.run([sys.executable, "-m", "prefloop", "nonsense"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
