"""A command's answer as one JSON object, or as aligned text for people."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefloop.types import RunResult

MAX_CELL = 60
"""Widest cell of a table, in characters."""


def as_json(answer: Mapping[str, Any] | RunResult) -> str:
    """One line of strict JSON: what is not finite becomes null."""
    return json.dumps(_plain(answer), ensure_ascii=False, allow_nan=False)


def as_text(answer: Mapping[str, Any] | RunResult) -> str:
    """`name  value` lines (nested names as `a.b`), lists of objects as tables, and the next command last."""
    values = _plain(answer)
    following = values.pop("next", None)
    flat = dict(_flattened(values))
    tables = {name: rows for name, rows in flat.items() if _is_table(rows)}
    single = {name: value for name, value in flat.items() if name not in tables}
    width = max((len(name) for name in single), default=0)
    parts = ["\n".join(f"{name:<{width}}  {_cell(value)}".rstrip() for name, value in single.items())] if single else []
    parts += [f"{name}\n{_table(rows)}" for name, rows in tables.items()]
    if following:
        commands = [following] if isinstance(following, str) else following
        parts.append("\n".join(f"next: {command}" for command in commands))
    return "\n\n".join(parts)


def _plain(value: Any) -> Any:
    """`value` out of JSON's own types, with null for NaN and infinities."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise TypeError(f"an answer may not hold a {type(value).__name__}")


def _flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in values.items():
        flat += _flattened(value, f"{prefix}{name}.") if value and isinstance(value, dict) else [(prefix + name, value)]
    return flat


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    flat = [dict(_flattened(row)) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    cells = [[_clipped(_cell(row[name])) if name in row else "" for name in columns] for row in flat]
    is_number = [all(isinstance(row.get(name), int | float | None) for row in flat) for name in columns]
    widths = [max(len(cell) for cell in column) for column in zip(columns, *cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        )
        for line in [columns, *cells]
    ]
    return "\n".join(f"  {line}".rstrip() for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_cell(item)}" for name, item in value.items()) or "-"
    return " ".join(str(value).split())


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 3]}..."
