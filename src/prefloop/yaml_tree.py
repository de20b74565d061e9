"""YAML files as plain trees that remember on which line each key stands.

Stricter and closer to YAML 1.2 than PyYAML's defaults: a key given twice is an error, `1e-4` is a number, only
`true` and `false` are booleans (`no` and `on` are text), dates are text. Anchors, aliases and tags are refused: a
settings file has no use for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prefloop.fields import KeyPath, dotted
from prefloop.types import InputError

# (kind, whole-word pattern, first characters): scalars that are not text.
_SCALARS = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]{1,300}", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


@dataclass(frozen=True)
class YamlTree:
    """A mapping read from `path`, and the line (from 1) of each key and list item in it."""

    path: Path
    tree: Mapping[str, Any]
    lines: Mapping[KeyPath, int]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML's own class attribute)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise yaml.composer.ComposerError(None, None, "anchors and aliases are not supported", event.start_mark)
        if event.tag is not None:
            raise yaml.composer.ComposerError(None, None, f"the tag {event.tag} is not supported", event.start_mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Writes text with unusual line breaks in double quotes: PyYAML's other styles do not keep them."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if _LINE_BREAKS & set(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_LINE_BREAKS = set("\r\x85\u2028\u2029")
_Dumper.add_representer(str, _Dumper.represent_str)


for _kind, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        # The dumper keeps PyYAML's own rules beside these: it then quotes whatever either would not read as text.
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), [*_first, *([""] if _kind == "null" else [])]
        )


def read_yaml(path: str | Path) -> YamlTree:
    """Read a YAML file that holds one mapping (or nothing).

    Raises InputError with the line for: a missing or unreadable file, broken YAML, a repeated key, a top level that is
    no mapping, keys that are no plain text, anchors, aliases, tags.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError("no such file", path=path) from None
    except IsADirectoryError:
        raise InputError("is a directory", path=path, remedy="give a YAML file") from None
    except PermissionError:
        raise InputError("may not be read", path=path, remedy="change its permissions") from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 text (byte {error.start})", path=path) from None
    try:
        root = _Loader(text).get_single_node()
    except RecursionError:
        raise InputError("nested too deeply", path=path, remedy="settings are a few levels deep") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"broken YAML: {what}", path=path, line=mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as error:
        raise InputError(f"broken YAML: {error.reason} at character {error.position}", path=path) from None
    lines: dict[KeyPath, int] = {}
    tree = None if root is None else _plain(root, (), lines, path)
    if tree is None:
        return YamlTree(path, {}, lines)
    if not isinstance(tree, dict):
        raise InputError("must hold `key: value` lines", path=path, line=1)
    return YamlTree(path, tree, lines)


def write_yaml(tree: Mapping[str, Any]) -> str:
    """`tree` as YAML text that `read_yaml` and any other YAML reader read back as the same values."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _plain(node: yaml.Node, at: KeyPath, lines: dict[KeyPath, int], path: Path) -> Any:
    """The value of a node; notes the line of every key and item below it in `lines`."""
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, key_line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
                raise InputError("a key must be plain text", path=path, line=key_line)
            if key in mapping:
                raise InputError(
                    f"this key stands already in line {lines[(*at, key)]}",
                    path=path,
                    line=key_line,
                    field=dotted((*at, key)),
                    remedy="keep one of the two",
                )
            lines[(*at, key)] = key_line
            mapping[key] = _plain(value_node, (*at, key), lines, path)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*at, index)] = item.start_mark.line + 1
        return [_plain(item, (*at, index), lines, path) for index, item in enumerate(node.value)]
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    text: str = node.value
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        case kind:
            raise AssertionError(f"no resolver makes {kind}")
