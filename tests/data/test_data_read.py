"""Files to records: kinds, weights, bad rows, counts, and the real data where it is present."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from prefloop.data.read import iter_pairs, read_demonstrations, read_pairs, read_prompts, read_unpaired
from prefloop.data.stream import BadRow, Source, Tally, parse_source
from prefloop.types import InputError, Message

U, A = (lambda text, role=role: Message(role, text) for role in ("user", "assistant"))

ASKED_AGAIN = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]
PAIR = {"prompt": "p", "chosen": "good", "rejected": "bad"}


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(row + "\n" if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


def vote(choice: str, annotator: str | None = None, **changes: Any) -> dict[str, Any]:
    row = {"prompt": "p", "response_a": "x", "response_b": "y", "choice": choice, "annotator_id": annotator}
    return {**row, **changes}


def test_several_files_each_with_its_weight(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [PAIR, {**PAIR, "prompt": "q", "weight": 3}])
    second = write(tmp_path / "b.jsonl", [{**PAIR, "chosen": "fine"}])
    loaded = read_pairs([first, f"{second}@0.25", f"{first}@2"])
    assert [pair.weight for pair in loaded.records] == [1.0, 3.0, 0.25, 2.0, 6.0]
    assert (loaded.num_rows, loaded.bad, loaded.counts) == (5, [], {})


def test_source_with_an_at_sign_in_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a@2", [])
    assert parse_source(path) == Source(path)
    assert parse_source(f"{path}@3") == Source(path, 3.0)
    assert parse_source("data@home.jsonl") == Source("data@home.jsonl")


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "two", ""])
def test_weights_that_are_none(tmp_path: Path, weight: str) -> None:
    path = write(tmp_path / "a.jsonl", [PAIR])
    with pytest.raises(InputError) as caught:
        read_pairs([f"{path}@{weight}"])
    assert str(caught.value) == f"{path}: the weight '{weight}' is not a number above 0; write PATH@WEIGHT"


BAD_ROWS = ['{"prompt": "p" "c"}', {"prompt": "p", "chosne": "x", "rejected": "y"}, {**PAIR, "chosen": "bad"}, "[]"]


def test_the_first_bad_row_stops_the_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [PAIR, BAD_ROWS[1], BAD_ROWS[0]])
    with pytest.raises(InputError) as caught:
        read_pairs([path])
    shape = "pairs have prompt, chosen, rejected (or whole dialogues in chosen and rejected)"
    assert str(caught.value) == (
        f"{path}:2: chosne: unknown field; did you mean chosen?; {shape}; --skip-bad leaves such rows out"
    )


def test_skip_bad_counts_and_lists_every_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [PAIR, *BAD_ROWS, PAIR])
    loaded = read_pairs([path], skip_bad=True)
    assert (len(loaded.records), loaded.num_rows) == (2, 6)
    assert loaded.bad == [
        BadRow(path, 2, "", "broken JSON at column 16: expecting ',' delimiter"),
        BadRow(path, 3, "chosne", "unknown field; did you mean chosen?"),
        BadRow(path, 4, "rejected", "chosen and rejected are identical"),
        BadRow(path, 5, "", "the row is a list"),
    ]


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.jsonl", [PAIR, *[{**PAIR, "chosen": ""}] * 6, "{broken"])
    read_pairs([path], skip_bad=True)
    said = capsys.readouterr().err
    assert said.startswith(f"left out 7 of 8 rows that cannot be used: {path}:2 (chosen: is empty), {path}:3 (")
    assert said.endswith(f"{path}:6 (chosen: is empty), ...\n")
    broken = write(tmp_path / "b.jsonl", [PAIR, "{broken"])
    read_pairs([broken], skip_bad=True)
    assert f"1 of 2 rows that cannot be used: {broken}:2 (broken JSON" in capsys.readouterr().err
    read_pairs([write(tmp_path / "c.jsonl", [vote("a"), vote("tie", prompt="q")])])
    assert capsys.readouterr().err == "rows without a record of their own: ties 1\n"
    read_pairs([write(tmp_path / "d.jsonl", [PAIR])])
    assert capsys.readouterr().err == ""


def test_every_record_knows_the_line_it_was_read_from(tmp_path: Path) -> None:
    pairs = write(tmp_path / "a.jsonl", [PAIR, "", {**PAIR, "prompt": "q"}])
    assert [pair.place for pair in read_pairs([f"{pairs}@2"]).records] == [f"{pairs}:1", f"{pairs}:3"]
    assert [row.place for row in read_demonstrations([pairs]).records] == [f"{pairs}:1", f"{pairs}:3"]
    assert [row.place for row in read_prompts([pairs]).records] == [f"{pairs}:1", f"{pairs}:3"]
    labelled = write(tmp_path / "b.jsonl", [{"prompt": "p", "completion": "x", "label": True}])
    assert [row.place for row in read_unpaired([labelled]).records] == [f"{labelled}:1"]
    assert read_pairs([pairs]).records[0] == next(iter_pairs([write(tmp_path / "c.jsonl", [PAIR])]))


def test_no_usable_row_is_an_error_even_with_skip_bad(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [BAD_ROWS[1], BAD_ROWS[0]])
    with pytest.raises(InputError) as caught:
        read_pairs([path], skip_bad=True)
    assert str(caught.value) == (
        f"{path}:1: none of 2 rows can be used; here: chosne: unknown field; did you mean chosen?"
    )
    path = write(tmp_path / "b.jsonl", [{"prompt": "p", "responses": ["x", "y"], "ratings": [1, 1]}])
    with pytest.raises(InputError) as caught:
        read_pairs([path])
    assert str(caught.value) == f"{path}: no row of 1 gives a record (ties 1)"


def test_other_kinds_are_not_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "c"}])
    with pytest.raises(InputError, match=r"a\.jsonl:1: chosen: missing \(the row has prompt, completion\)"):
        read_pairs([path])


def test_iterating_reads_no_further_than_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [PAIR, PAIR, "broken"])
    tally = Tally()
    assert len(list(islice(iter_pairs([path], tally=tally), 2))) == 2
    assert tally.num_rows == 2
    with pytest.raises(InputError, match=r"a\.jsonl:3"):
        list(iter_pairs([path]))


def test_iterating_takes_no_memory_for_the_rows_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        for i in range(2000):
            file.write(json.dumps({**PAIR, "prompt": f"p{i}", "chosen": "long " * 2000}) + "\n")
    tracemalloc.start()
    assert sum(1 for _ in iter_pairs([str(path)])) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The file unpacks to 20 MB; one row is 10 kB.
    assert peak < 2_000_000


def test_rankings_and_ratings_become_pairs(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "responses": ["x", "y", "z"], "ranking": [2, 0, 1], "annotator_id": "ann", "source": "s"},
        {"prompt": "p", "responses": ["x", "y", "z"], "ranks": [2, 1, 2]},
        {"prompt": "p", "responses": ["x", "y", "z"], "ratings": [1, 4.5, 3], "weight": 2},
        {"prompt": "p", "responses": ["x", "y"], "ranks": [1, 1]},
    ]
    loaded = read_pairs([write(tmp_path / "a.jsonl", rows)])
    assert [(pair.chosen + pair.rejected, pair.strength) for pair in loaded.records] == [
        *[("zx", None), ("zy", None), ("xy", None)],
        *[("yx", None), ("yz", None)],
        *[("yz", 1.5), ("yx", 3.5), ("zx", 2.0)],
    ]
    assert loaded.counts == {"ties": 1}
    assert (loaded.records[0].annotator_id, loaded.records[0].source, loaded.records[-1].weight) == ("ann", "s", 2.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranking": [1, 2, 3]}, "ranking: is not an order of all 3 responses; give each index from 0 to 2 once"),
        ({"ranking": [0, 1]}, "ranking: holds 2 numbers for 3 responses"),
        ({"ranks": [0, "1", 2]}, "ranks[1]: is text; a number belongs here"),
        ({"ranks": "012"}, "ranks: is text; a list of numbers belongs here"),
        ({}, "ranking: missing (the row has prompt, responses)"),
        (
            {"responses": ["x", [{"role": "assistant", "content": "a"}, *ASKED_AGAIN], "z"], "ranks": [1, 2, 3]},
            "responses[1]: shares no prompt with responses[0]",
        ),
        ({"responses": ["x"], "ranks": [1]}, "responses: holds 1 of at least 2 responses"),
        ({"responses": "xyz", "ranks": [1]}, "responses: is text; a list of responses belongs here"),
        ({"responses": ["x", "y", "x "], "ranks": [1, 2, 3]}, "responses: responses[0] and responses[2] are identical"),
        ({"responses": ["x", "", "z"], "ranks": [1, 2, 3]}, "responses[1]: is empty; a response says something"),
    ],
)
def test_rankings_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "responses": ["x", "y", "z"], **changes}])
    with pytest.raises(InputError) as caught:
        read_pairs([path])
    assert str(caught.value).startswith(f"{path}:1: {message}")


def test_judgments_become_pairs_by_majority_also_where_a_and_b_are_swapped(tmp_path: Path) -> None:
    swapped = {"response_a": "y", "response_b": "x"}
    rows = [
        *[vote("a", "ann"), vote("b", "ben", **swapped), vote("b", "cem")],
        *[vote("tie", "ann", prompt="q"), vote("skip", "ben", prompt="r"), vote("both_bad", "ann", prompt="s")],
        *[vote("a", "ann", prompt="t"), vote("b", "ben", prompt="t")],
        *[vote("b", "ann", prompt="u", source="survey"), vote("a", "ann", prompt="u", source="survey")],
    ]
    path = write(tmp_path / "a.jsonl", rows)
    loaded = read_pairs([f"{path}@3"])
    assert [(pair.prompt.messages[0].content, pair.chosen, pair.rejected) for pair in loaded.records] == [
        ("p", "x", "y"),
        ("u", "x", "y"),
    ]
    assert [pair.num_judgments for pair in loaded.records] == [3, 1]
    assert [pair.annotator_id for pair in loaded.records] == ["", "ann"]
    assert [pair.source for pair in loaded.records] == ["", "survey"]
    assert [pair.weight for pair in loaded.records] == [3.0, 3.0]
    assert loaded.counts == {"ties": 1, "skipped": 1, "both_bad": 1, "undecided": 1, "repeated_votes": 1}
    assert loaded.num_rows == len(rows)


def test_demonstrations_from_every_kind(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "completion": "c"},
        PAIR,
        {"prompt": "p", "responses": ["x", "y", "z"], "ranking": [2, 0, 1]},
        {"prompt": "p", "responses": ["x", "y"], "ratings": [1, 1]},
        {"prompt": "p", "completion": "liked", "label": True},
        {"prompt": "p", "completion": "disliked", "label": False},
        vote("b"),
    ]
    loaded = read_demonstrations([write(tmp_path / "a.jsonl", rows)])
    assert [demonstration.completion[0].content for demonstration in loaded.records] == ["c", "good", "z", "liked", "y"]
    assert all(demonstration.prompt == (U("p"),) for demonstration in loaded.records)
    assert loaded.counts == {"ties": 1, "labelled_false": 1}


def test_demonstrations_name_the_misspelt_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "completoin": "c"}])
    with pytest.raises(InputError, match=r"a\.jsonl:1: completoin: unknown field; did you mean completion\?"):
        read_demonstrations([path])
    path = write(tmp_path / "a.jsonl", [{"prompt": "p"}])
    with pytest.raises(InputError, match=r"a\.jsonl:1: completion: missing"):
        read_demonstrations([path])


def test_prompts_once_for_the_same_columns(tmp_path: Path) -> None:
    rows = [PAIR, {**PAIR, "chosen": "fine"}, {"prompt": "p", "gold": 1}, {"prompt": "q"}, {"prompt": "p "}]
    loaded = read_prompts([write(tmp_path / "a.jsonl", rows)])
    assert [(prompt.messages[0].content, prompt.columns) for prompt in loaded.records] == [
        ("p", {}),
        ("p", {"gold": 1}),
        ("q", {}),
    ]
    assert loaded.counts == {"repeated_prompts": 2}


def test_columns_are_the_same_whatever_the_order_of_their_keys(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "a": {"x": 1, "y": [2]}, "b": 3}, {"b": 3, "a": {"y": [2], "x": 1}, "prompt": "p"}]
    loaded = read_prompts([write(tmp_path / "a.jsonl", [*rows, {"prompt": "p", "a": {"x": 1, "y": [2, 2]}, "b": 3}])])
    assert [prompt.columns["a"]["y"] for prompt in loaded.records] == [[2], [2, 2]]
    assert loaded.counts == {"repeated_prompts": 1}


def test_one_prompt_with_many_columns_takes_no_quadratic_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "id": number} for number in range(30_000)])
    started = time.process_time()
    assert len(read_prompts([path]).records) == 30_000
    # Comparing each with all before it takes above 20 s; a hash of each takes about 1 s.
    assert time.process_time() - started < 10


def test_unpaired(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": "c", "label": True}, {"prompt": "p", "completion": "d", "label": False}]
    loaded = read_unpaired([write(tmp_path / "a.jsonl", rows)])
    assert [(response.response, response.label) for response in loaded.records] == [("c", True), ("d", False)]
    path = write(tmp_path / "b.jsonl", [{"prompt": "p", "completion": "c"}])
    with pytest.raises(InputError, match=r"b\.jsonl:1: label: missing"):
        read_unpaired([path])


REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def real() -> Iterator[Path]:
    if not REAL.is_dir():
        pytest.skip("../shared/data is not here: no real data to read")
    yield REAL


def raw_rows(path: str) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_hh_harmless(real: Path) -> None:
    path = str(real / "preferences/hh-harmless.jsonl.gz")
    loaded = read_pairs([path], skip_bad=True)
    # Two empty answers; two dialogues that part before the last turn.
    assert [(row.line, row.field) for row in loaded.bad] == [
        (46, "chosen"),
        (321, "chosen"),
        (1256, "rejected"),
        (1258, "chosen"),
    ]
    assert (len(loaded.records), loaded.num_rows) == (1486, 1490)
    raw = raw_rows(path)
    bad = {row.line for row in loaded.bad}
    for pair, row in zip(loaded.records, (row for i, row in enumerate(raw, 1) if i not in bad), strict=True):
        assert row["chosen"].endswith(pair.chosen)
        assert row["rejected"].rsplit("\n\nAssistant:", 1)[1].strip() == pair.rejected
        assert sum(message.role == "user" for message in pair.prompt.messages) == row["chosen"].count("\n\nHuman:")
    words = [(len(pair.chosen.split()), len(pair.rejected.split())) for pair in loaded.records]
    assert sum(chosen > rejected for chosen, rejected in words) / len(words) == pytest.approx(0.44, abs=0.015)
    with pytest.raises(InputError, match=r"hh-harmless\.jsonl\.gz:46: chosen: is empty"):
        read_pairs([path])


def test_oasst1(real: Path) -> None:
    loaded = read_pairs([str(real / "preferences/oasst1.jsonl.gz")], skip_bad=True)
    assert (len(loaded.records), loaded.num_rows) == (640, 641)
    assert loaded.bad[0].line == 35 and loaded.bad[0].problem == "chosen and rejected are identical"
    turns = [len(pair.prompt.messages) for pair in loaded.records]
    assert {n: turns.count(n) for n in set(turns)} == {1: 305, 3: 329, 5: 6}
    by_prompt: dict[str, list[bool]] = {}
    for pair in loaded.records:
        by_prompt.setdefault(pair.prompt.prompt_id, []).append(len(pair.chosen) > len(pair.rejected))
    share = sum(sum(longer) / len(longer) for longer in by_prompt.values()) / len(by_prompt)
    assert share == pytest.approx(0.66, abs=0.015)


@pytest.mark.parametrize(("name", "num_rows"), [("gsm8k", 7473), ("self-instruct-seed", 175)])
def test_demonstrations_of_real_files(real: Path, name: str, num_rows: int) -> None:
    path = str(real / f"sft/{name}.jsonl.gz")
    loaded = read_demonstrations([path])
    raw = raw_rows(path)
    assert len(loaded.records) == num_rows
    assert [demonstration.completion for demonstration in loaded.records] == [(A(row["completion"]),) for row in raw]
    assert len(read_prompts([path]).records) == len({" ".join(row["prompt"].split()) for row in raw})
