"""Reading rows: every kind of file, every way in which one can be broken."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.data.rows import PARQUET_BATCH_ROWS, describe, shown, stream_rows
from prefloop.types import InputError

ROWS = [{"prompt": "a", "n": 1}, {"prompt": "\u2028 é \x85", "n": None}, {"prompt": "nul \x00", "n": [1.5]}]


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def values(path: Path) -> list[object]:
    return [dict(row.values) for row in stream_rows(path)]


def lines(path: Path) -> list[int]:
    return [row.line for row in stream_rows(path)]


def error_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(stream_rows(path))
    return str(caught.value).replace(f"{path.parent}/", "")


def test_jsonl_keeps_separators_that_are_not_line_ends_inside_strings(tmp_path: Path) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    assert values(write(tmp_path / "a.jsonl", text)) == ROWS


def test_jsonl_counts_blank_lines_but_does_not_take_them_for_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '\r\n{"a": 1}\r\n  \r\n{"a": 2}\r\n\r\n')
    assert (values(path), lines(path)) == ([{"a": 1}, {"a": 2}], [2, 4])


def test_gzip_by_name_of_file(tmp_path: Path) -> None:
    text = "\n".join(map(json.dumps, ROWS)).encode()
    assert values(write(tmp_path / "a.jsonl.gz", gzip.compress(text))) == ROWS
    assert values(write(tmp_path / "a.json.gz", gzip.compress(json.dumps(ROWS).encode()))) == ROWS


def test_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    assert values(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}')) == [{"a": 1}]
    assert values(write(tmp_path / "a.json", b'\xef\xbb\xbf[{"a": 1}]')) == [{"a": 1}]


def test_json_list_knows_the_line_each_row_begins_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[\n  {"a": 1,\n   "b": "]"},\n\n  {"a": 2}, {"a": 3}\n]\n')
    assert lines(path) == [2, 5, 5]
    assert values(path)[0] == {"a": 1, "b": "]"}


def test_json_file_may_hold_objects_one_after_another(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"a": 1}\n{"a": 2}\n')
    assert (values(path), lines(path)) == ([{"a": 1}, {"a": 2}], [1, 2])


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("text", ["", " \n\n "])
def test_empty_file(tmp_path: Path, name: str, text: str) -> None:
    assert error_of(write(tmp_path / name, text)) == f"{name}: the file holds no rows; give one JSON object per row"


def test_empty_list(tmp_path: Path) -> None:
    assert error_of(write(tmp_path / "a.json", "[ ]")) == "a.json: the file holds no rows; give one JSON object per row"


def test_missing_file_directory_and_unknown_suffix(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none.jsonl") == "none.jsonl: no such file"
    (tmp_path / "run").mkdir()
    assert error_of(tmp_path / "run") == (
        "run: is a directory; give a file (.jsonl, .jsonl.gz, .json, .json.gz, .parquet)"
    )
    assert error_of(write(tmp_path / "a.csv", "x")) == (
        "a.csv: unknown kind of data file; give one of .jsonl, .jsonl.gz, .json, .json.gz, .parquet"
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"prompt": "a" "b": 1}', "broken JSON at column 16: expecting ',' delimiter"),
        ('{"prompt": "a', "broken JSON at column 12: unterminated string"),
        ('{"prompt": "a\tb"}', "broken JSON at column 14: invalid control character"),
        ('{"a": 1} {"a": 2}', "broken JSON at column 10: more text follows the JSON object"),
        ('{"a": NaN}', "broken JSON: NaN is not a JSON number"),
        ('{"a": -Infinity}', "broken JSON: -Infinity is not a JSON number"),
        ('{"a": 1e999}', "broken JSON: the number 1e999 is too large"),
        ('{"a": ' + "9" * 5000 + "}", "broken JSON: Exceeds the limit (4300 digits) for integer string conversion"),
        ("[" * 100_000, "JSON nested too deeply"),
        ("[1, 2]", "the row is a list"),
        ('"text"', "the row is text"),
        ("null", "the row is null"),
    ],
)
def test_broken_line_17(tmp_path: Path, line: str, problem: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"a": 1}\n' * 16 + line + '\n{"a": 2}\n')
    message = error_of(path)
    if "digits" in problem:
        assert message.startswith("a.jsonl:17: broken JSON: Exceeds the limit")
    else:
        assert message == f"a.jsonl:17: {problem}; give one JSON object per row"


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"a": 1}\n{"a": "caf\xe9"}\n')
    assert error_of(path) == "a.jsonl:2: not UTF-8 (byte 0xe9); save the file as UTF-8"
    path = write(tmp_path / "a.json", b'[{"a": 1},\n\n{"a": "caf\xe9"}]')
    assert error_of(path) == "a.json:3: not UTF-8 (byte 0xe9); save the file as UTF-8"


def test_bad_lines_go_to_the_caller_and_reading_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"a": 1}\n{oops\n\xff\n[]\n{"a": 2}\n')
    bad: list[InputError] = []
    assert [row.line for row in stream_rows(path, bad.append)] == [1, 5]
    assert [error.line for error in bad] == [2, 3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n {"a": }]', "a.json:2: broken JSON at column 8: expecting value; give one JSON object per row"),
        ('[{"a": 1}\n {"a": 2}]', "a.json:2: broken JSON at column 2: expecting ',' delimiter"),
        ('[{"a": 1}, ]', "a.json:1: broken JSON at column 12: expecting value"),
        ('[{"a": 1},', "a.json: the list does not end: ']' is missing; the file may be cut off"),
        ('[{"a": 1}', "a.json: the list does not end: ']' is missing; the file may be cut off"),
        ('[{"a": 1}] {}', "a.json: more text follows the list; give one list of objects"),
        ('[{"a": 1},\n\n 3]', "a.json:3: the row is a number; give one JSON object per row"),
    ],
)
def test_broken_json_list(tmp_path: Path, text: str, message: str) -> None:
    assert error_of(write(tmp_path / "a.json", text)).startswith(message)


def test_gzip_that_is_cut_off_or_none_at_all(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b'{"a": %d}\n' % i for i in range(5000)))
    assert "broken gzip data after line" in error_of(write(tmp_path / "a.jsonl.gz", whole[: len(whole) // 2]))
    assert error_of(write(tmp_path / "b.jsonl.gz", b'{"a": 1}')).startswith("b.jsonl.gz: broken gzip data after line 0")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = error_of(write(tmp_path / "a.parquet", b"PAR1"))
    assert message == "a.parquet: reading Parquet needs pyarrow; pip install 'prefloop[hf]'"


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (prefloop[hf])")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"prompt": f"p{i}", "chosen": [{"role": "assistant", "content": "é"}]} for i in range(3000)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == rows
    assert lines(tmp_path / "a.parquet")[-1] == 3000
    assert error_of(write(tmp_path / "b.parquet", b"no")).startswith("b.parquet: broken Parquet file")


def damaged_page(path: Path) -> None:
    """Three pages of rows, of which the last has lost its bytes; the footer is whole."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"prompt": f"{i:09}"} for i in range(3 * PARQUET_BATCH_ROWS)]
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, path, row_group_size=PARQUET_BATCH_ROWS, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    place = data.index(f"{2 * PARQUET_BATCH_ROWS:09}".encode())
    data[place : place + 5000] = b"\xff" * 5000
    path.write_bytes(data)


def text_that_is_not_utf8(path: Path) -> None:
    """Writers that do not check leave other encodings in columns of text."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    buffers = [None, pyarrow.array([0, 4], pyarrow.int32()).buffers()[1], pyarrow.py_buffer(b"caf\xe9")]
    parquet.write_table(pyarrow.table({"prompt": pyarrow.Array.from_buffers(pyarrow.string(), 1, buffers)}), path)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (damaged_page, f"a.parquet: broken Parquet file after row {2 * PARQUET_BATCH_ROWS} ("),
        (text_that_is_not_utf8, "a.parquet: broken Parquet file ('utf-8' codec can't decode byte 0xe9"),
    ],
)
def test_parquet_that_breaks_while_it_is_read(tmp_path: Path, damage: Any, expected: str) -> None:
    damage(tmp_path / "a.parquet")
    message = error_of(tmp_path / "a.parquet")
    assert message.startswith(expected) and message.endswith("; write or download it again")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=5), st.booleans())
def test_any_json_survives_in_every_container(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]], ascii_only: bool
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    dumped = [json.dumps(row, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") for row in rows]
    (folder / "a.jsonl").write_bytes(b"\n".join(dumped))
    (folder / "a.json").write_bytes(b" [ " + b" , ".join(dumped) + b" ]\n")
    assert values(folder / "a.jsonl") == rows
    assert values(folder / "a.json") == rows


def test_a_long_value_is_cut_off_in_messages() -> None:
    assert shown("user") == "'user'"
    assert shown("x" * 10**6) == "'" + "x" * 56 + "..."


def test_describe_says_what_a_person_would() -> None:
    named = [describe(value) for value in (None, True, 1, 0.5, "", [], {}, b"")]
    assert named == ["null", "true or false", "a number", "a number", "text", "a list", "an object", "a bytes"]
