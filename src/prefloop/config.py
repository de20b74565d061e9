"""YAML + command-line overrides -> one frozen, validated config.

A config is one pydantic model per command, composed of its stations' sections. The YAML file and the overrides are
merged into one tree, which is validated once, strictly: text where a number belongs is an error, and so is an unknown
key. What is wrong comes out as one `InputError` that names the file and line, or the flag.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from prefloop.fields import KeyPath, dotted, fields_of, from_text, section_type
from prefloop.types import InputError

SectionT = TypeVar("SectionT", bound="Section")


class Section(BaseModel):
    """Base of every config: frozen, unknown keys refused, field docstrings are the help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


def load(
    model: type[SectionT],
    *,
    yaml_path: str | Path | None = None,
    overrides: Mapping[str, str | Sequence[str]] | None = None,
    origins: Mapping[str, str] | None = None,
) -> SectionT:
    """The config of a YAML file with `overrides` on top.

    Args:
        overrides: dotted key -> text as typed, for example `{"optimizer.lr": "1e-4"}`; a list for a field that holds
            several values.
        origins: dotted key -> how the user spelled it, for messages; `--optimizer.lr` by default.

    Raises:
        InputError: for whatever is wrong in the file or the overrides.
    """
    source = _Source(yaml_path, overrides or {}, origins or {})
    tree = _with_section_defaults(source.merged(model), model)
    source.require_texts(tree, model)
    try:
        # Strict JSON is the mode in which "3" is no int, while a list still makes a tuple and a text a path.
        return model.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        raise source.explain(error, model, tree) from None


def config_hash(config: Section, exclude: Collection[str] = ("out",)) -> str:
    """sha256 (hex) of a config's values, defaults included, without the top-level keys in `exclude`."""
    values = config.model_dump(mode="json", exclude=set(exclude))
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def dump_yaml(config: Section) -> str:
    """All values of a config as YAML, defaults included; `load` reads them back as the same config."""
    from prefloop.yaml_tree import write_yaml

    return write_yaml(config.model_dump(mode="json"))


def differing_keys(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ between two trees, or which only one of them has; sorted."""
    differing = []
    for key in a.keys() | b.keys():
        if key in a and key in b and isinstance(a[key], Mapping) and isinstance(b[key], Mapping):
            differing += [f"{key}.{inner}" for inner in differing_keys(a[key], b[key])]
        elif key not in a or key not in b or a[key] != b[key]:
            differing.append(key)
    return sorted(differing)


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that `name` most likely means, or None if none is close."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown_name(name: str, known: Collection[str]) -> str:
    """The remedy for an unknown name: the nearest one, then all of them."""
    close = nearest(name, known)
    meant = f"did you mean {close}? " if close else ""
    return f"{meant}known: {', '.join(known) or 'none'}"


class _Source:
    """Where the values of one config come from: a YAML file, flags, or both."""

    def __init__(
        self, yaml_path: str | Path | None, overrides: Mapping[str, str | Sequence[str]], origins: Mapping[str, str]
    ) -> None:
        self.path = yaml_path
        self.tree: Mapping[str, Any] = {}
        self.lines: Mapping[KeyPath, int] = {}
        if yaml_path is not None:
            # Not needed, and not loaded, for a command given by flags alone.
            from prefloop.yaml_tree import read_yaml

            document = read_yaml(yaml_path)
            self.tree, self.lines = document.tree, document.lines
        self.overrides, self.origins = overrides, origins

    def merged(self, model: type[BaseModel]) -> dict[str, Any]:
        """The YAML tree with the overrides put in, typed by the fields of `model`."""
        annotations = {field.key: field.annotation for field in fields_of(model)}
        tree = _copied(self.tree)
        for key, text in self.overrides.items():
            *parents, last = key.split(".")
            section = tree
            for depth, parent in enumerate(parents, start=1):
                inner = section.get(parent)
                if inner is None:
                    inner = section[parent] = {}
                elif not isinstance(inner, dict):
                    at = tuple(parents[:depth])
                    problem, remedy = f"is {_shown(inner)}", "should be a section of keys"
                    raise InputError(problem, path=self.path, line=self.lines.get(at), field=dotted(at), remedy=remedy)
                section = inner
            section[last] = from_text(text, annotations[key]) if key in annotations else text
        return tree

    def require_texts(self, tree: Mapping[str, Any], model: type[BaseModel]) -> None:
        """Refuse text that UTF-8 cannot hold (bytes of another encoding on the command line, half a character), and
        empty text by flag (a shell variable that is not set) but for fields that are empty by default."""
        may_be_empty = {field.key for field in fields_of(model) if field.info.default == ""}
        for path, text in _texts(tree):
            if not text and (key := self._given(path)) is not None and key not in may_be_empty:
                raise self._at(path, "is empty", "give a value, or leave it out")
            if _is_broken(text):
                raise self._at(path, f"is {text!a}, which UTF-8 cannot hold", "rename the file, or correct the text")

    def explain(self, error: ValidationError, model: type[BaseModel], tree: Mapping[str, Any]) -> InputError:
        """The one error to show for all that pydantic found: a misspelt key before what it leaves missing."""
        found = [(details, _path_in(tree, details)) for details in error.errors()]
        ranks = {"extra_forbidden": 0, "missing": 2}
        details, path = min(found, key=lambda item: ranks.get(_kind(item[0]), 1))
        kind = _kind(details)
        if kind == "extra_forbidden":
            known = _known_keys(model, path[:-1])
            return self._at(
                path, "unknown key" if self._line(path) else "unknown setting", unknown_name(str(path[-1]), known)
            )
        if kind == "missing":
            return self._missing([at for other, at in found if _kind(other) == "missing"], model)
        if kind == "value_error":
            return self._at(path, str(details["ctx"]["error"]), None)
        wanted = dict.fromkeys(_wanted(other) for other, at in found if at == path and _kind(other) != "value_error")
        return self._at(path, f"is {_shown(details['input'])}", f"should be {' or '.join(wanted)}")

    def _missing(self, paths: Sequence[KeyPath], model: type[BaseModel]) -> InputError:
        line = self._line(paths[0][:-1])
        if line is not None:
            return InputError("is required", path=self.path, line=line, field=dotted(paths[0]))
        names = [self._flag(path) for path in paths]
        also = f", and so {'is' if len(names) == 2 else 'are'} {', '.join(names[1:])}" if names[1:] else ""
        where = f", or put `{dotted(paths[0])}: ...` into {self.path}" if self.path else ""
        return InputError(f"is required{also}", field=names[0], remedy=f"give {names[0]} VALUE{where}")

    def _at(self, path: KeyPath, problem: str, remedy: str | None) -> InputError:
        line, given = self._line(path), self._given(path)
        if line is not None:
            return InputError(problem, path=self.path, line=line, field=dotted(path), remedy=remedy)
        if given is None:
            # About several values together: the file is named only if all of them come from it.
            file = None if self.overrides else self.path
            return InputError(problem, path=file, field=dotted(path) or None, remedy=remedy)
        return InputError(problem, field=self._flag(path[: len(given.split("."))]), remedy=remedy)

    def _given(self, path: KeyPath) -> str | None:
        """The override that set the value at `path`, or something inside it."""
        for key in self.overrides:
            if path and all(a == b for a, b in zip(key.split("."), path, strict=False)):
                return key
        return None

    def _line(self, path: KeyPath) -> int | None:
        """The line of a value that the file gives and no flag replaces or adds to."""
        return None if self._given(path) else self.lines.get(path)

    def _flag(self, path: KeyPath) -> str:
        key = dotted(path)
        return self.origins.get(key, "--" + key.replace("_", "-"))


def _with_section_defaults(tree: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """`tree` with the defaults of each section that it gives in part.

    A field may change its section's defaults (`optimizer: Optimizer = Optimizer(lr=1e-6)`). Setting another key of that
    section must not bring the class's own defaults back.
    """
    for name, info in model.model_fields.items():
        section, given = section_type(info.annotation), tree.get(name)
        if section is not None and isinstance(given, dict):
            default = info.get_default(call_default_factory=True, validated_data={})
            if isinstance(default, BaseModel):
                given = _over(given, default.model_dump(mode="json", exclude_unset=True))
            tree[name] = _with_section_defaults(given, section)
    return tree


def _over(given: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**below, **given}
    for key in given.keys() & below.keys():
        if isinstance(given[key], Mapping) and isinstance(below[key], Mapping):
            merged[key] = _over(given[key], below[key])
    return merged


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in tree.items()}


def _kind(details: ErrorDetails) -> str:
    """Pydantic's name of an error, but for a tuple that is too short: that is reported as a missing item."""
    return "too_short" if details["type"] == "missing" and isinstance(details["loc"][-1], int) else details["type"]


def _path_in(tree: Any, details: ErrorDetails) -> KeyPath:
    """Where in `tree` an error is. Pydantic's location also names the members of unions, which are no keys."""
    path: list[str | int] = []
    part: Any
    for part in details["loc"]:
        if isinstance(tree, list) and isinstance(part, int):
            if part >= len(tree):
                break
        elif not isinstance(tree, dict) or part not in tree:
            continue
        tree = tree[part]
        path.append(part)
    if _kind(details) == "missing":
        path.append(details["loc"][-1])
    return tuple(path)


def _known_keys(model: type[BaseModel], path: KeyPath) -> list[str]:
    section: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, str) and section is not None:
            info = section.model_fields.get(part)
            section = _section_inside(info.annotation) if info else None
    return list(section.model_fields) if section is not None else []


def _section_inside(annotation: Any) -> type[BaseModel] | None:
    """The section of a field that holds one, or several in a list or mapping."""
    section = section_type(annotation)
    if section is not None:
        return section
    inner = (_section_inside(part) for part in getattr(annotation, "__args__", ()))
    return next((section for section in inner if section is not None), None)


def _wanted(details: ErrorDetails) -> str:
    """What would have been right, for an error of one value."""
    kind, context = _kind(details), details.get("ctx", {})
    match kind.partition("_")[0]:
        case "int":
            return "a whole number"
        case "float":
            return "a number"
        case "finite":
            return "a finite number"
        case "bool":
            return "true or false"
        case "string" if kind == "string_type":
            return "text"
        case "string" if "min_length" in context:
            return f"text of at least {context['min_length']} characters"
        case "string" if "pattern" in context:
            return f"text that matches {context['pattern']}"
        case "too":
            least, most = context.get("min_length"), context.get("max_length")
            return f"at least {least} values" if least else f"at most {most} values" if most else "more values"
        case "literal" | "enum":
            return f"one of {context['expected'].replace(' or ', ', ')}"
        case "model" | "dict" | "mapping":
            return "a section of keys"
        case "tuple" | "list" | "set" | "frozen":
            return "a list"
        case _:
            # For example "Input should be greater than 0".
            return details["msg"].partition("should be ")[2] or details["msg"]


def _texts(tree: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Every text in a tree, and where it stands."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, Mapping | list):
        for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from _texts(value, (*path, key))


def _is_broken(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a section of keys"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
