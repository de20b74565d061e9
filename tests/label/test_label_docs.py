"""The page says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from prefloop.label.columns import FIELDS
from prefloop.label.config import ImportConfig, Quotas
from prefloop.label.tables import metadata

PAGE = (Path(__file__).parents[2] / "docs" / "label.md").read_text(encoding="utf-8")


def test_every_quota_has_its_default_and_a_reason() -> None:
    rows = {row[0]: row[1:] for row in re.findall(r"^\| `(\w+)`[^|]*\| `([^`]+)` \| (.+) \|$", PAGE, re.MULTILINE)}
    defaults = {name: field.default for name, field in Quotas.model_fields.items()}
    defaults["pairs_per_prompt"] = ImportConfig.model_fields["pairs_per_prompt"].default
    assert {name: float(value) for name, (value, _) in rows.items()} == defaults
    assert all(len(reason) > 20 for _, reason in rows.values())


def test_the_page_names_the_fields_of_rows_and_the_tables() -> None:
    named = set(re.findall(r"`([a-z_]+)`", PAGE)) | {"task"}
    known = {field for fields in FIELDS.values() for field in fields} - {"item_id", "source"}
    assert known <= named and set(metadata.tables) <= named
