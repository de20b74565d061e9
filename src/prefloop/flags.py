"""Command-line words -> the settings that they give; and the help of a command, from the same fields.

A word that begins with `--` is a flag and every other word a value, so `-1e-3` is one too; after a bare `--` all words
are positional. A flag takes one value, a flag of a list takes all values up to the next flag, and a switch takes none
or `true` or `false`. Names are written in full, with dashes or underscores. Given twice, a list grows and any other
setting takes the last value.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel

from prefloop.config import nearest
from prefloop.fields import Field, alternatives, collection_type, fields_of, is_flag, type_label
from prefloop.types import InputError

ALWAYS = {
    "--config FILE.yaml": "Read settings from this file; flags go on top of it.",
    "--json": "Answer with one JSON object on standard output.",
    "--help": "Show this help.",
}

_NO_BREAK = "\u00a0"


@dataclass
class Given:
    """What a command line says, not yet validated."""

    overrides: dict[str, str | list[str]] = field(default_factory=dict)
    """Dotted key -> text, or texts for a field that holds several values."""
    origins: dict[str, str] = field(default_factory=dict)
    """Dotted key -> what the user calls it, where that is not the flag."""
    config: str | None = None
    json: bool = False
    help: bool = False


def flag_of(key: str) -> str:
    """`optimizer.max_grad_norm` -> `--optimizer.max-grad-norm`."""
    return "--" + key.replace("_", "-")


def parse(words: Sequence[str], model: type[BaseModel], positionals: Sequence[str] = (), *, command: str) -> Given:
    """Sort the words after a command's name into settings of `model`.

    Args:
        positionals: keys that words without a flag give, in order; the last one may hold several.
        command: the command's words, for messages.

    Raises:
        InputError: for a flag that `model` does not have, a flag without its value, or a word too many.
    """
    settings = {item.key: item for item in fields_of(model) if is_flag(item)}
    given = Given(origins={key: key.upper() for key in positionals})
    loose: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            loose += queue
            break
        if word == "-h":
            word = "--help"
        if not word.startswith("--"):
            loose.append(word)
            continue
        flag, equals, value = word.partition("=")
        name = flag[2:].replace("-", "_")
        attached = [value] if equals else None
        if name in ("json", "help"):
            if equals:
                raise InputError("takes no value", field=flag)
            setattr(given, name, True)
        elif name == "config":
            given.config = _one_value(flag, attached, queue)
        elif name in settings:
            _give(given, settings[name], flag, attached, queue)
        elif name.startswith("no_") and name[3:] in settings and _is_switch(settings[name[3:]]) and not equals:
            given.overrides[name[3:]] = "false"
            given.origins[name[3:]] = flag
        else:
            raise _unknown_flag(flag, model, [*settings, "config", "json", "help"], command)
    _give_positionals(given, loose, positionals, settings, command)
    return given


def value_of(words: Sequence[str], key: str) -> str | None:
    """The last value that the words give the flag of `key`, before it is known which flags there are."""
    value = None
    for index, word in enumerate(words):
        if word == "--":
            break
        flag, equals, attached = word.partition("=")
        if flag.startswith("--") and flag[2:].replace("-", "_") == key:
            value = attached if equals else _one_value(flag, None, list(words[index + 1 :]))
    return value


def _give(given: Given, item: Field, flag: str, attached: list[str] | None, queue: list[str]) -> None:
    """Note the value of one flag; takes it from the head of `queue` if it is not attached."""
    given.origins[item.key] = flag
    if collection_type(item.annotation) is not None:
        values = attached or list(_take_values(queue))
        if not values:
            raise InputError("needs a value", field=flag, remedy=f"give {flag} {_placeholder(item)}")
        before = given.overrides.get(item.key, [])
        given.overrides[item.key] = [*before, *values]
    elif _is_switch(item) and attached is None and not (queue and queue[0].lower() in ("true", "false")):
        given.overrides[item.key] = "true"
    else:
        given.overrides[item.key] = _one_value(flag, attached, queue)


def _give_positionals(
    given: Given, loose: list[str], positionals: Sequence[str], settings: Mapping[str, Field], command: str
) -> None:
    for key in positionals:
        if collection_type(settings[key].annotation) is not None:
            if loose:
                given.overrides[key] = [*loose, *given.overrides.get(key, [])]
            loose = []
        elif loose:
            given.overrides[key] = loose.pop(0)
            given.origins[key] = key.upper()
    if loose:
        known = " ".join(key.upper() for key in positionals) or "flags only"
        raise InputError(f"unexpected word: {loose[0]}", remedy=f"`prefloop {command}` takes {known}")


def _take_values(queue: list[str]) -> Iterator[str]:
    while queue and not queue[0].startswith("--"):
        yield queue.pop(0)


def _one_value(flag: str, attached: list[str] | None, queue: list[str]) -> str:
    if attached is not None:
        return attached[0]
    if not queue or queue[0].startswith("--"):
        raise InputError("needs a value", field=flag, remedy=f"give {flag} VALUE, or {flag}=VALUE if it begins with --")
    return queue.pop(0)


def _is_switch(item: Field) -> bool:
    return bool in alternatives(item.annotation)


def _unknown_flag(flag: str, model: type[BaseModel], known: Sequence[str], command: str) -> InputError:
    name = flag[2:].replace("-", "_")
    inside = [flag_of(key) for key in known if key.startswith(f"{name}.")]
    if inside:
        return InputError("is a section of settings", field=flag, remedy=f"give one of {', '.join(inside)}")
    if any(item.key == name for item in fields_of(model)):
        return InputError("can only be given in a --config file", field=flag)
    close = nearest(name, known) or next((key for key in known if key.rpartition(".")[2] == name), None)
    meant = f"did you mean {flag_of(close)}? " if close else ""
    return InputError("unknown flag", field=flag, remedy=f"{meant}`prefloop {command} --help` lists all")


def _placeholder(item: Field) -> str:
    return "VALUE..." if collection_type(item.annotation) is not None else "VALUE"


@dataclass(frozen=True)
class HelpRow:
    """One setting in the help of a command."""

    flag: str
    type: str
    default: str
    """Empty for a required setting."""
    required: bool
    doc: str


@dataclass(frozen=True)
class HelpSection:
    """The settings of one section; the first one, without title, holds the command's own."""

    title: str
    doc: str
    rows: tuple[HelpRow, ...]


def help_sections(model: type[BaseModel], positionals: Sequence[str] = ()) -> list[HelpSection]:
    """All settings of a command, by section, in the order of their declaration; required ones first."""
    sections: dict[str, list[HelpRow]] = {"": []}
    docs: dict[str, str] = {"": ""}
    for item in fields_of(model):
        title = item.key.rpartition(".")[0]
        docs.setdefault(title, " ".join((item.section.__doc__ or "").split()))
        name = item.key.upper() if item.key in positionals else flag_of(item.key)
        doc = item.doc
        if not is_flag(item):
            name, doc = f"{item.key}:", f"{doc} Only in a --config file."
        elif _is_switch(item) and item.default == "true":
            name = flag_of(f"no_{item.key}")
        label = type_label(item.annotation, item.info.metadata)
        sections.setdefault(title, []).append(HelpRow(name, label, item.default, item.required, doc))
    return [
        HelpSection(title, docs[title], tuple(sorted(rows, key=lambda row: not row.required)))
        for title, rows in sections.items()
        if rows
    ]


def help_text(
    command: str,
    model: type[BaseModel],
    *,
    summary: str,
    example: str,
    positionals: Sequence[str] = (),
    note: str = "",
) -> str:
    """The text of `prefloop COMMAND --help`, wrapped to the terminal."""
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    required = [
        f"{flag_of(item.key)} {_placeholder(item)}"
        for item in fields_of(model)
        if item.required and "." not in item.key and item.key not in positionals
    ]
    usage = " ".join([f"prefloop {command}", *(key.upper() for key in positionals), *required, "[--FLAG VALUE]..."])
    about = " ".join((model.__doc__ or "").split())
    parts = [f"{summary}", *([textwrap.fill(about, width)] if about and about != summary else [])]
    parts += [f"usage:    {usage}\nexample:  {example}"]
    parts += [textwrap.fill(note, width)] if note else []
    for section in help_sections(model, positionals):
        head = f"{section.title}: {section.doc}".strip() if section.title else "settings:"
        parts.append("\n".join([*textwrap.wrap(head, width), *_help_lines(section.rows, width)]))
    parts.append("always:\n" + "\n".join(f"  {name:<20} {doc}" for name, doc in ALWAYS.items()))
    return "\n\n".join(parts) + "\n"


def _help_lines(rows: Sequence[HelpRow], width: int) -> Iterator[str]:
    column = min(max(len(row.flag) for row in rows), 34) + 4
    for row in rows:
        end = f"[{row.type.removesuffix(' or none')}, {'required' if row.required else f'default {row.default}'}]"
        # A name too long for the column pushes its text to the right; the bracket stays in one piece.
        text = f"  {row.flag}".ljust(column - 1) + f" {row.doc} {end.replace(' ', _NO_BREAK)}"
        wrapped = textwrap.fill(
            text, width, subsequent_indent=" " * column, break_on_hyphens=False, break_long_words=False
        )
        yield wrapped.replace(_NO_BREAK, " ")
