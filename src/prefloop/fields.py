"""What a config class asks for: its fields as a flat list of dotted keys, and text read as their types."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

KeyPath = tuple[str | int, ...]
"""Where a value stands in a tree of settings: keys of mappings and indices of lists."""

_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?inf|nan")
_WHOLE_NUMBER = re.compile(r"[-+]?[0-9]{1,300}")
_LABELS = {types.NoneType: "none", bool: "true|false", int: "whole number", float: "number", str: "text", Path: "path"}
_MAPPINGS = (dict, Mapping)
_COLLECTIONS = (tuple, list, set, frozenset, Sequence, *_MAPPINGS)


@dataclass(frozen=True)
class Field:
    """One value that a user can set. Sections are not fields: theirs are."""

    key: str
    """Dotted from the top of the config, for example `optimizer.lr`."""
    info: FieldInfo
    section: type[BaseModel]
    """The class that declares it."""
    holder: BaseModel | None = None
    """The default of the section around it, which may change the class's own default."""

    @property
    def annotation(self) -> Any:
        return self.info.annotation

    @property
    def required(self) -> bool:
        return self.info.is_required()

    @property
    def doc(self) -> str:
        """The field's docstring, on one line; empty if it has none."""
        return " ".join((self.info.description or "").split())

    @property
    def default(self) -> str:
        """The default as a user would type it; empty if there is none."""
        if self.holder is not None:
            return as_text(getattr(self.holder, self.key.rpartition(".")[2]))
        return "" if self.required else as_text(_default(self.info))


def as_text(value: Any) -> str:
    """A value as a user would type it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return " ".join(f"{key}={as_text(item)}" for key, item in value.items()) or "(empty)"
    if isinstance(value, tuple | list | frozenset | set):
        return " ".join(as_text(item) for item in value) or "(empty)"
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value) or '""'


def fields_of(model: type[BaseModel], prefix: str = "", holder: BaseModel | None = None) -> Iterator[Field]:
    """All fields of `model`, those of nested sections after its own. `holder`: the instance that holds the defaults."""
    nested: list[tuple[str, type[BaseModel], BaseModel | None]] = []
    for name, info in model.model_fields.items():
        section = section_type(info.annotation)
        if section is None:
            yield Field(prefix + name, info, model, holder)
        else:
            default = getattr(holder, name) if holder is not None else _default(info)
            nested.append((f"{prefix}{name}.", section, default if isinstance(default, BaseModel) else None))
    for inner, section, default in nested:
        yield from fields_of(section, inner, default)


def _default(info: FieldInfo) -> Any:
    return info.get_default(call_default_factory=True, validated_data={})


def given_words(config: BaseModel, *, leave_out: Sequence[str] = ()) -> list[str]:
    """The flags that make such a config: those of all settings that are not at their default.

    What only a file can give, a mapping and an empty list are left out.
    """
    words = []
    for item in fields_of(type(config)):
        *sections, name = item.key.split(".")
        section: Any = config
        for each in sections:
            section = section and getattr(section, each)
        if section is None or item.key in leave_out or not is_flag(item):
            continue
        value = getattr(section, name)
        if isinstance(value, Mapping) or as_text(value) == item.default:
            continue
        texts = [as_text(each) for each in value] if isinstance(value, tuple) else [as_text(value)]
        words += ["--" + item.key.replace("_", "-"), *texts] if texts else []
    return words


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """`int | None` as (int, NoneType); every other type as itself alone."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is Union:
        return tuple(kind for part in get_args(annotation) for kind in alternatives(part))
    return (annotation,)


def section_type(annotation: Any) -> type[BaseModel] | None:
    """The config class that a field nests (perhaps optionally), or None for a plain value."""
    kinds = [kind for kind in alternatives(annotation) if kind is not types.NoneType]
    return kinds[0] if len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel) else None


def collection_type(annotation: Any) -> Any:
    """`tuple[int, ...]` of `tuple[int, ...] | None`: the one alternative that holds several values, or None."""
    for kind in alternatives(annotation):
        if get_origin(kind) in _COLLECTIONS:
            return kind
    return None


def is_flag(field: Field) -> bool:
    """Whether the field can be given on the command line: everything but lists and mappings of sections."""
    return not any(
        section_type(part) for kind in alternatives(field.annotation) for part in get_args(kind) if part is not Ellipsis
    )


def type_label(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """The type as help shows it, with its range: `number > 0`, `sft|tuned`, `text...`, `whole number >= 1 or none`."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return type_label(inner, [*metadata, *more])
    if len(alternatives(annotation)) > 1 and not metadata:
        return " or ".join(type_label(part) for part in get_args(annotation))
    bounds = "".join(
        f" {sign} {value:g}"
        for part in metadata
        for sign, name in ((">", "gt"), (">=", "ge"), ("<", "lt"), ("<=", "le"))
        if (value := getattr(part, name, None)) is not None
    )
    return " or ".join(_kind_label(kind) for kind in alternatives(annotation)) + bounds


def _kind_label(kind: Any) -> str:
    names = {
        types.NoneType: "none",
        bool: "true|false",
        int: "whole number",
        float: "number",
        str: "text",
        Path: "path",
    }
    if kind in names:
        return names[kind]
    if get_origin(kind) is Literal:
        return "|".join(as_text(value) for value in get_args(kind))
    inner = get_args(kind)
    if not inner:
        return str(getattr(kind, "__name__", kind))
    if get_origin(kind) in _MAPPINGS:
        return f"name={type_label(inner[1])}..."
    if get_origin(kind) is tuple and inner[-1] is not Ellipsis:
        return " ".join(type_label(part) for part in inner)
    return f"{type_label(inner[0])}..."


def from_text(text: str | Sequence[str], annotation: Any) -> Any:
    """What was typed, as the value that `annotation` asks for; unchanged where it does not read as one.

    Whether the value is allowed is for the config class to say.
    """
    if isinstance(text, str):
        return _one_from_text(text, annotation)
    collection = collection_type(annotation)
    if list(text) in (["none"], ["null"]) and types.NoneType in alternatives(annotation):
        return None
    if collection is None:
        # More than one value for a field that takes one: left to the config class to refuse.
        return _one_from_text(text[0], annotation) if len(text) == 1 else list(text)
    inner = get_args(collection)
    if get_origin(collection) in _MAPPINGS:
        pairs = (item.partition("=") for item in text)
        return {key: from_text(value, inner[1]) if equals else None for key, equals, value in pairs}
    if get_origin(collection) is tuple and Ellipsis not in inner:
        kinds = [*inner, *[str] * len(text)]
        return [from_text(item, kind) for item, kind in zip(text, kinds, strict=False)]
    return [from_text(item, inner[0]) for item in text]


def _one_from_text(text: str, annotation: Any) -> Any:
    kinds = alternatives(annotation)
    if collection_type(annotation) is not None:
        return from_text([text], annotation)
    literals = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    for value in literals:
        if as_text(value) == text:
            return value
    if types.NoneType in kinds and text.lower() in ("none", "null"):
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if {int, float} & set(kinds):
        if _WHOLE_NUMBER.fullmatch(text):
            return int(text)
        if _NUMBER.fullmatch(text):
            return float(text)
    return text


def dotted(path: KeyPath) -> str:
    """`("sources", 0, "path")` as `sources[0].path`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
