"""The documentation knows every command and setting, and no others."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from prefloop.cli import COMMANDS, config_class, find, split_words
from prefloop.config import load
from prefloop.fields import fields_of
from prefloop.flags import flag_of, parse

ROOT = Path(__file__).parent.parent
WRITTEN_PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")})
# `prefloop train sft --data ...` in a code block or between backticks.
COMMAND_LINE = re.compile(r"^(?:\$ )?prefloop ([a-z].*)$|`prefloop ([a-z][^`]*)`", re.MULTILINE)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_commands = _load(ROOT / "docs" / "make_commands.py")


def all_models() -> list[Any]:
    """Every config class that a command can have."""
    models = []
    for name, command in COMMANDS.items():
        variants = find(command.variants) if command.variants else [None]
        for variant in variants:
            words = [] if variant is None else [flag_of(command.variant or ""), variant]
            models.append(pytest.param(config_class(name, command, words)[0], id=f"{name} {variant or ''}".strip()))
    return models


def test_the_command_pages_are_fresh() -> None:
    folder = ROOT / "docs" / "commands"
    on_disk = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    assert on_disk == make_commands.pages(), "run `python docs/make_commands.py`"


@pytest.mark.parametrize("model", all_models())
def test_every_setting_says_what_it_means(model: Any) -> None:
    assert (model.__doc__ or "").strip()
    assert [field.key for field in fields_of(model) if not field.doc] == []
    assert [field.key for field in fields_of(model) if not (field.section.__doc__ or "").strip()] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_refers_to_exists(name: str) -> None:
    command = COMMANDS[name]
    assert callable(find(command.run))
    assert command.summary.endswith(".")
    model, _ = config_class(name, command, [])
    keys = {field.key for field in fields_of(model)}
    assert set(command.positionals) <= keys
    assert command.variant is None or command.variant in keys


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_is_valid(name: str) -> None:
    words = shlex.split(COMMANDS[name].example)
    assert words[0] == "prefloop"
    found, rest = split_words(words[1:])
    assert found == name
    model, _ = config_class(name, COMMANDS[name], rest)
    given = parse(rest, model, COMMANDS[name].positionals, command=name)
    load(model, overrides=given.overrides)


def test_pages_show_no_command_that_does_not_exist() -> None:
    shown = [
        (path.name, (match[1] or match[2]).strip())
        for path in WRITTEN_PAGES
        for match in COMMAND_LINE.finditer(path.read_text(encoding="utf-8"))
    ]
    groups = {name.split()[0] for name in COMMANDS}
    unknown = [
        (page, line)
        for page, line in shown
        # `prefloop train` and `prefloop COMMAND` speak of commands in general.
        if split_words(line.split())[0] is None and line not in groups and line.split()[0] not in ("help",)
    ]
    assert unknown == []


def test_a_page_that_shows_an_unknown_command_is_found() -> None:
    matches = COMMAND_LINE.findall("text `prefloop fly now` text\n```\n$ prefloop sing --loud\nprefloop is a package")
    assert matches == [("", "fly now"), ("sing --loud", ""), ("is a package", "")]
