"""`data check`, `data convert` and `data split`, on small files and on the real data where it is present."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from prefloop.config import load
from prefloop.data.commands import check, convert, split
from prefloop.data.config import DataCheckConfig, DataConvertConfig, DataSplitConfig
from prefloop.data.read import read_demonstrations, read_pairs, read_prompts
from prefloop.types import InputError

PAIRS = [{"prompt": f"p{i}", "chosen": "good answer", "rejected": "bad"} for i in range(40)]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(row + "\n" if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


def error_of(command: Any, config: Any) -> str:
    with pytest.raises(InputError) as caught:
        command(config)
    return str(caught.value)


def test_check_says_what_a_good_file_holds_and_what_comes_next(tmp_path: Path) -> None:
    path = write(tmp_path / "my pairs.jsonl", PAIRS)
    answer = check(DataCheckConfig(file=path))
    assert json.loads(json.dumps(answer)) == answer
    assert (answer["kind"], answer["format"]) == ("pairs", "prompt, chosen, rejected; plain text")
    assert (answer["num_rows"], answer["num_records"], answer["num_bad"], answer["num_prompts"]) == (40, 40, 0, 40)
    assert answer["longer_chosen"]["share"] == 1.0
    assert shlex.split(answer["next"]) == ["prefloop", "train", "sft", "--data", path]


@pytest.mark.parametrize(
    ("row", "kind", "form"),
    [
        ({"prompt": "p", "completion": "c"}, "demonstrations", "prompt, completion; plain text"),
        (
            {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]},
            "demonstrations",
            "messages; lists of messages; the prompt is inside the dialogue",
        ),
        ({"prompt": "p", "completion": "c", "label": True}, "unpaired", "prompt, completion, label; plain text"),
        ({"prompt": [{"role": "user", "content": "p"}]}, "prompts", "prompt; lists of messages"),
        ({"prompt": "p", "responses": ["x", "y"], "ranks": [1, 2]}, "pairs", "prompt, responses, ranks; plain text"),
        (
            {"chosen": "\n\nHuman: p\n\nAssistant: c", "rejected": "\n\nHuman: p\n\nAssistant: d"},
            "pairs",
            "chosen, rejected; dialogues as text (Human: ... Assistant: ...); the prompt is inside the dialogue",
        ),
    ],
)
def test_check_recognises_every_kind(tmp_path: Path, row: dict[str, Any], kind: str, form: str) -> None:
    answer = check(DataCheckConfig(file=write(tmp_path / "a.jsonl", [row])))
    assert (answer["kind"], answer["format"], answer["num_records"]) == (kind, form, 1)


def test_check_names_the_first_bad_row_and_the_lines_of_all(tmp_path: Path) -> None:
    rows = [*PAIRS[:16], '{"prompt": "p"', *PAIRS[:3], {**PAIRS[0], "chosen": ""}]
    path = write(tmp_path / "a.jsonl", rows)
    assert error_of(check, DataCheckConfig(file=path)) == (
        f"{path}:17: broken JSON at column 15: expecting ',' delimiter; 2 of 21 rows cannot be used (lines 17, 21): "
        "correct them, or --skip-bad leaves such rows out and lists them"
    )
    one = write(tmp_path / "b.jsonl", [*PAIRS, {**PAIRS[0], "rejected": "good answer"}])
    assert "; 1 of 41 rows cannot be used (line 41): " in error_of(check, DataCheckConfig(file=one))
    answer = check(DataCheckConfig(file=path, skip_bad=True))
    assert answer["bad_rows"] == [
        {"line": 17, "field": "", "problem": "broken JSON at column 15: expecting ',' delimiter"},
        {"line": 21, "field": "chosen", "problem": "is empty"},
    ]
    assert (answer["num_rows"], answer["num_bad"], answer["num_records"]) == (21, 2, 19)
    assert answer["next"].endswith("--skip-bad")


def test_check_counts_every_bad_row_but_lists_twenty(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*PAIRS, *["broken"] * 30])
    answer = check(DataCheckConfig(file=path, skip_bad=True))
    assert (answer["num_bad"], len(answer["bad_rows"])) == (30, 20)
    assert "(lines 41, 42, " in (message := error_of(check, DataCheckConfig(file=path)))
    assert "60, ...)" in message


def test_a_pair_without_its_answers_in_the_first_row_does_not_make_a_file_of_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "p"}, *PAIRS])
    assert error_of(check, DataCheckConfig(file=path)).startswith(f"{path}:1: chosen: missing (the row has prompt); ")
    assert check(DataCheckConfig(file=path, kind="prompts"))["num_records"] == 41


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"x": 1}, {"y": 2}], ":1: prompt: missing (the row has x); pairs have"),
        (["broken", {"y": 2}], ":1: broken JSON at column 1: expecting value"),
        ([{"prompt": ""}, {"prompt": 3}], ":1: none of 2 rows can be used; here: prompt: the last user turn is empty"),
        ([], ": the file holds no rows"),
    ],
)
def test_check_of_a_file_without_a_usable_row(tmp_path: Path, rows: list[Any], message: str) -> None:
    path = write(tmp_path / "a.jsonl", rows)
    assert error_of(check, DataCheckConfig(file=path, skip_bad=True)).startswith(path + message)


def test_judgments_without_a_verdict_are_counted(tmp_path: Path) -> None:
    votes = [
        {"prompt": f"p{i}", "response_a": "x", "response_b": "y", "choice": choice, "annotator_id": "ann"}
        for i, choice in enumerate(["a", "tie", "skip", "b"])
    ]
    answer = check(DataCheckConfig(file=write(tmp_path / "a.jsonl", votes)))
    assert (answer["num_rows"], answer["num_records"], answer["no_record"]) == (4, 2, {"skipped": 1, "ties": 1})


def test_convert_to_each_kind(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", [{"prompt": "p", "responses": ["x", "yy", "z"], "ratings": [1, 3, 2], "gold": 7}]
    )
    outs = {to: str(tmp_path / f"{to}.jsonl") for to in ("pairs", "demonstrations", "prompts")}
    answers = {to: convert(DataConvertConfig(file=path, to=to, out=out)) for to, out in outs.items()}
    assert [answer["num_records"] for answer in answers.values()] == [3, 1, 1]
    assert read_pairs([outs["pairs"]]).records == read_pairs([path]).records
    assert read_demonstrations([outs["demonstrations"]]).records == read_demonstrations([path]).records
    assert read_prompts([outs["prompts"]]).records == read_prompts([path]).records
    assert answers["pairs"]["next"] == f"prefloop data check {outs['pairs']}"
    again = convert(DataConvertConfig(file=outs["pairs"], to="pairs", out=str(tmp_path / "again.jsonl")))
    assert again["num_records"] == 3
    assert (tmp_path / "again.jsonl").read_bytes() == Path(outs["pairs"]).read_bytes()


def test_convert_writes_nothing_when_a_row_is_bad(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*PAIRS, "broken"])
    config = DataConvertConfig(file=path, to="pairs", out=str(tmp_path / "out.jsonl"))
    assert error_of(convert, config).startswith(f"{path}:41: broken JSON at column 1: expecting value")
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]
    answer = convert(DataConvertConfig(file=path, to="pairs", out=str(tmp_path / "out.jsonl"), skip_bad=True))
    assert (answer["num_rows"], answer["num_bad"], answer["num_records"]) == (41, 1, 40)


def test_convert_does_not_replace_its_own_input(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{**PAIRS[0], "margin": 1}])
    before = Path(path).read_bytes()
    assert "exists with other content" in error_of(convert, DataConvertConfig(file=path, to="pairs", out=path))
    assert Path(path).read_bytes() == before


def test_convert_of_what_cannot_become_that(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "c"}])
    config = DataConvertConfig(file=path, to="pairs", out=str(tmp_path / "out.jsonl"))
    assert error_of(convert, config).startswith(f"{path}:1: chosen: missing (the row has prompt, completion)")
    path = write(tmp_path / "b.jsonl", [{"prompt": "p", "responses": ["x", "y"], "ratings": [1, 1]}])
    config = DataConvertConfig(file=path, to="pairs", out=str(tmp_path / "out.jsonl"))
    assert error_of(convert, config) == f"{path}: no row of 1 gives a record (ties 1)"
    assert not (tmp_path / "out.jsonl").exists()


def test_split_keeps_the_turns_of_a_conversation_together(tmp_path: Path) -> None:
    turns = ["Human: Number {}?", "Human: Number {}?\nAssistant: Yes.\nHuman: Why?", "\n\nHuman: Number {}?"]
    rows = [{"prompt": turn.format(number), "chosen": "a", "rejected": "b"} for number in range(30) for turn in turns]
    path = write(tmp_path / "a.jsonl", rows)
    assert check(DataCheckConfig(file=path))["num_conversations"] == 30
    answer = split(DataSplitConfig(file=path, out=str(tmp_path / "out"), eval_fraction=0.3))
    sides = {name: read_pairs([file["path"]]).records for name, file in answer["files"].items()}
    openings = {name: {pair.prompt.messages[0].content for pair in pairs} for name, pairs in sides.items()}
    assert not openings["train"] & openings["eval"]
    assert all(len(sides[name]) == 3 * len(openings[name]) > 0 for name in sides)


def test_split_puts_every_prompt_on_one_side_whatever_the_order(tmp_path: Path) -> None:
    rows = [{**pair, "rejected": rejected} for rejected in ("bad", "worse") for pair in PAIRS]
    path = write(tmp_path / "a.jsonl", rows)
    answer = split(DataSplitConfig(file=path, out=str(tmp_path / "out"), eval_fraction=0.3, seed=1))
    sides = {name: read_pairs([file["path"]]).records for name, file in answer["files"].items()}
    prompts = {name: {pair.prompt.prompt_id for pair in records} for name, records in sides.items()}
    assert set(prompts) == {"train", "eval"} and not prompts["train"] & prompts["eval"]
    assert sorted(pair.pair_id for records in sides.values() for pair in records) == sorted(
        pair.pair_id for pair in read_pairs([path]).records
    )
    assert {name: file["num_prompts"] for name, file in answer["files"].items()} == {
        name: len(ids) for name, ids in prompts.items()
    }
    shuffled = write(tmp_path / "b.jsonl", rows[::-1][:60])
    split(DataSplitConfig(file=shuffled, out=str(tmp_path / "out2"), eval_fraction=0.3, seed=1))
    for name, ids in prompts.items():
        assert {pair.prompt.prompt_id for pair in read_pairs([str(tmp_path / f"out2/{name}.jsonl")]).records} <= ids
    assert answer["next"] == (
        f"prefloop train sft --data {tmp_path}/out/train.jsonl --eval-data {tmp_path}/out/eval.jsonl"
    )


def test_folds_part_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", PAIRS)
    answer = split(DataSplitConfig(file=path, out=str(tmp_path / "out"), folds=3))
    folds = [read_pairs([file["path"]]).records for file in answer["files"].values()]
    assert list(answer["files"]) == ["fold-0", "fold-1", "fold-2"]
    assert sorted(pair.pair_id for fold in folds for pair in fold) == sorted(
        pair.pair_id for pair in read_pairs([path]).records
    )
    out = tmp_path / "out"
    assert answer["next"] == (
        f"prefloop train sft --data {out}/fold-1.jsonl {out}/fold-2.jsonl --eval-data {out}/fold-0.jsonl"
    )


def test_split_again_is_the_same_and_another_split_is_refused(tmp_path: Path) -> None:
    path, out = write(tmp_path / "a.jsonl", PAIRS), str(tmp_path / "out")
    first = split(DataSplitConfig(file=path, out=out))
    before = {file.name: file.read_bytes() for file in Path(out).iterdir()}
    assert split(DataSplitConfig(file=path, out=out)) == first
    assert "exists with other content" in error_of(split, DataSplitConfig(file=path, out=out, seed=5))
    assert {file.name: file.read_bytes() for file in Path(out).iterdir()} == before


def test_split_with_an_empty_side_and_with_one_fold(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", PAIRS[:1])
    message = error_of(split, DataSplitConfig(file=path, out=str(tmp_path / "out"), eval_fraction=0.01))
    assert message == f"{path}: no prompt of 1 falls into eval; give more prompts, another seed or other shares"
    assert not (tmp_path / "out").exists()
    message = error_of(split, DataSplitConfig(file=path, out=str(tmp_path / "out"), folds=1))
    assert message == "folds: one fold is no split; give 2 or more, or 0 for train and eval"


@pytest.mark.parametrize("command", [check, split])
def test_a_missing_file(tmp_path: Path, command: Any) -> None:
    config = DataCheckConfig if command is check else DataSplitConfig
    values = {"file": str(tmp_path / "none.jsonl")} | ({} if command is check else {"out": str(tmp_path / "out")})
    assert error_of(command, config(**values)) == f"{tmp_path}/none.jsonl: no such file"


def test_split_of_prompts_leads_to_policy_training(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": f"p{i}"} for i in range(50)])
    answer = split(DataSplitConfig(file=path, out=str(tmp_path / "out")))
    assert answer["next"].startswith("prefloop train policy ")


def test_configs_refuse_what_is_out_of_range() -> None:
    for model, values in [
        (DataSplitConfig, {"file": "f", "out": "o", "eval_fraction": 0.0}),
        (DataSplitConfig, {"file": "f", "out": "o", "folds": -1}),
        (DataCheckConfig, {"file": "f", "max_chars": 0}),
        (DataCheckConfig, {"file": "f", "kind": "other"}),
        (DataConvertConfig, {"file": "f", "to": "unpaired", "out": "o"}),
    ]:
        with pytest.raises(ValidationError):
            model(**values)
    with pytest.raises(InputError, match="max_char"):
        load(DataCheckConfig, overrides={"file": "f", "max_char": "9"})


REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is not here: no real data to check")
def test_real_pairs_agree_with_what_is_known_of_them(tmp_path: Path) -> None:
    hh = check(DataCheckConfig(file=str(REAL / "preferences/hh-harmless.jsonl.gz"), skip_bad=True))
    assert (hh["num_rows"], hh["num_records"], hh["num_bad"], hh["num_prompts"]) == (1490, 1486, 4, 1484)
    assert hh["longer_chosen"]["share_by_words"] == pytest.approx(0.44, abs=0.015)
    oasst = check(DataCheckConfig(file=str(REAL / "preferences/oasst1.jsonl.gz"), skip_bad=True))
    assert (oasst["num_rows"], oasst["num_records"], oasst["num_prompts"]) == (641, 640, 262)
    assert oasst["longer_chosen"]["share_by_prompt"] == pytest.approx(0.66, abs=0.015)
    for name in ("hh-harmless", "oasst1"):
        path, out = str(REAL / f"preferences/{name}.jsonl.gz"), str(tmp_path / f"{name}.jsonl")
        convert(DataConvertConfig(file=path, to="pairs", out=out, skip_bad=True))
        assert read_pairs([out]).records == read_pairs([path], skip_bad=True).records
