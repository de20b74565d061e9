"""Writing records: reading them back gives the same records, and nothing appears half-written."""

from __future__ import annotations

import datetime
import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefloop.data.formats import labelled_of, make_demonstration, make_pair, make_prompt, pair_of, prompt_of
from prefloop.data.read import read_demonstrations, read_pairs, read_prompts, read_unpaired
from prefloop.data.write import line_of, needs_messages, record_files, row_of, write_records
from prefloop.types import Demonstration, InputError, LabelledResponse, Message, PreferencePair, Prompt

U, A, S = (lambda text, role=role: Message(role, text) for role in ("user", "assistant", "system"))

text = st.one_of(
    st.text(min_size=1).filter(str.strip),
    st.sampled_from(["Human: a", "\n\nHuman: a\n\nAssistant: b", "\n\nAssistant: c", "Human: a\nAssistant:", " x\n"]),
)
label = st.text(max_size=4)
json_values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(), max_size=2)
columns = st.dictionaries(st.sampled_from(["gold", "id", "\ud83d", "topic"]), json_values, max_size=2)
weights = st.floats(0.01, 100)


@st.composite
def dialogues(draw: st.DrawFn) -> tuple[Message, ...]:
    """A prompt: perhaps a system turn, then user and assistant turns, the user's last."""
    turns = draw(st.lists(text, min_size=1, max_size=5).filter(lambda turns: len(turns) % 2))
    spoken = tuple(Message("assistant" if i % 2 else "user", turn) for i, turn in enumerate(turns))
    return (S(draw(st.text())), *spoken) if draw(st.booleans()) else spoken


@st.composite
def pairs(draw: st.DrawFn) -> PreferencePair:
    source = draw(label)
    chosen, rejected = draw(st.tuples(text, text).filter(lambda both: both[0].strip() != both[1].strip()))
    return make_pair(
        make_prompt(draw(dialogues()), source=source, columns=draw(columns)),
        chosen,
        rejected,
        source=source,
        strength=draw(st.none() | st.floats(-5, 5)),
        num_judgments=draw(st.integers(1, 9)),
        weight=draw(weights),
        annotator_id=draw(label),
    )


@st.composite
def demonstrations(draw: st.DrawFn) -> Demonstration:
    prompt, answer = draw(dialogues()), (A(draw(text)),)
    more = draw(st.sampled_from([(), (U("more"), A("again"))]))
    parts = ((), (*prompt, *answer, *more)) if draw(st.booleans()) else (prompt, (*answer, *more))
    return make_demonstration(*parts, source=draw(label), weight=draw(weights))


@settings(max_examples=40)
@given(st.lists(pairs(), min_size=1, max_size=4))
def test_pairs_come_back(tmp_path_factory: pytest.TempPathFactory, records: list[PreferencePair]) -> None:
    path = tmp_path_factory.mktemp("write") / "a.jsonl"
    write_records(path, records)
    assert read_pairs([str(path)]).records == records


@settings(max_examples=40)
@given(st.lists(demonstrations(), min_size=1, max_size=4))
def test_demonstrations_come_back(tmp_path_factory: pytest.TempPathFactory, records: list[Demonstration]) -> None:
    path = tmp_path_factory.mktemp("write") / "a.jsonl"
    write_records(path, records)
    assert read_demonstrations([str(path)]).records == records


@settings(max_examples=40)
@given(
    st.lists(st.builds(make_prompt, dialogues(), source=label, columns=columns, weight=weights), min_size=1, max_size=4)
)
def test_prompts_come_back(tmp_path_factory: pytest.TempPathFactory, records: list[Prompt]) -> None:
    path = tmp_path_factory.mktemp("write") / "a.jsonl"
    distinct = [
        p
        for i, p in enumerate(records)
        if (p.prompt_id, p.columns) not in [(q.prompt_id, q.columns) for q in records[:i]]
    ]
    write_records(path, records)
    assert read_prompts([str(path)]).records == distinct


@settings(max_examples=40)
@given(dialogues(), text, st.booleans(), label, label, weights, columns)
def test_labelled_responses_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    messages: tuple[Message, ...],
    response: str,
    wanted: bool,
    source: str,
    annotator: str,
    weight: float,
    further: dict[str, Any],
) -> None:
    path = tmp_path_factory.mktemp("write") / "a.jsonl"
    prompt = make_prompt(messages, source=source, columns=further)
    record = LabelledResponse("", prompt, response, wanted, source, weight, annotator)
    write_records(path, [record])
    (back,) = read_unpaired([str(path)]).records
    assert LabelledResponse("", *[getattr(back, name) for name in list(back.__dataclass_fields__)[1:]]) == record


def test_columns_are_those_of_trl() -> None:
    pair = pair_of({"prompt": "p", "chosen": "c", "rejected": "r", "margin": 2, "source": "s"})
    assert row_of(pair, as_messages=False) == {
        "prompt": "p",
        "chosen": "c",
        "rejected": "r",
        "strength": 2.0,
        "source": "s",
    }
    assert row_of(pair, as_messages=True)["chosen"] == [{"role": "assistant", "content": "c"}]
    assert row_of(pair, as_messages=True)["prompt"] == [{"role": "user", "content": "p"}]
    unpaired = labelled_of({"prompt": "p", "completion": "c", "label": False, "weight": 2})
    assert row_of(unpaired, as_messages=False) == {"prompt": "p", "completion": "c", "label": False, "weight": 2.0}
    dialogue = make_demonstration((), (U("p"), A("c")))
    assert row_of(dialogue, as_messages=False) == {
        "messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]
    }


def test_one_dialogue_makes_message_lists_of_the_whole_file(tmp_path: Path) -> None:
    """Mixed columns do not load as one table."""
    single = pair_of({"prompt": "p", "chosen": "c", "rejected": "r"})
    several = pair_of({"prompt": "Human: p\nAssistant: a\nHuman: q", "chosen": "c", "rejected": "r"})
    assert (needs_messages(single), needs_messages(several)) == (False, True)
    write_records(tmp_path / "a.jsonl", [single, several])
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert {type(row[name]) for row in rows for name in ("prompt", "chosen", "rejected")} == {list}
    assert read_pairs([str(tmp_path / "a.jsonl")]).records == [single, several]


def test_text_stays_readable(tmp_path: Path) -> None:
    write_records(tmp_path / "a.jsonl", [prompt_of({"prompt": "Füße"})])
    assert (tmp_path / "a.jsonl").read_bytes() == '{"prompt": "Füße"}\n'.encode()


def test_dates_are_written_and_other_values_refused() -> None:
    assert line_of({"at": datetime.date(2026, 11, 24)}) == '{"at": "2026-11-24"}\n'
    with pytest.raises(InputError, match=r"^a column holds a value of type bytes; leave that column out$"):
        line_of({"raw": b"x"})
    with pytest.raises(InputError, match=r"^a column holds NaN or infinity, which JSON has not"):
        line_of({"score": float("nan")})


def files_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_an_existing_file_stays_unless_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_records(path, [prompt_of({"prompt": "p"})])
    write_records(path, [prompt_of({"prompt": "p"})])
    before = files_in(tmp_path)
    with pytest.raises(InputError) as caught:
        write_records(path, [prompt_of({"prompt": "q"})])
    assert str(caught.value) == f"{path}: exists with other content; name another file, or remove it"
    assert files_in(tmp_path) == before == {"a.jsonl": '{"prompt": "p"}\n'}


def test_of_several_files_all_appear_or_none(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text("mine")
    prompt = prompt_of({"prompt": "p"})
    with (
        pytest.raises(InputError, match=r"b\.jsonl: exists with other content"),
        record_files([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], as_messages=False) as writers,
    ):
        for write in writers:
            write(prompt)
    assert files_in(tmp_path) == {"b.jsonl": "mine"}
    with pytest.raises(KeyboardInterrupt), record_files([tmp_path / "a.jsonl"], as_messages=False) as (write,):
        write(prompt)
        raise KeyboardInterrupt
    assert files_in(tmp_path) == {"b.jsonl": "mine"}


def test_a_disk_that_is_full_for_the_last_file_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where space is given out late, only fsync tells."""
    calls: list[int] = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    paths = [tmp_path / "new" / "deep" / name for name in ("a.jsonl", "b.jsonl")]
    with pytest.raises(OSError, match="No space left"), record_files(paths, as_messages=False) as writers:
        for write in writers:
            write(prompt_of({"prompt": "p"}))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_others_used_meanwhile_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), record_files([tmp_path / "new" / "a.jsonl"], as_messages=False):
        (tmp_path / "new" / "theirs").write_text("")
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["theirs"]


def test_where_records_cannot_be_written(tmp_path: Path) -> None:
    prompt = [prompt_of({"prompt": "p"})]
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.jsonl").mkdir()
    for name, problem in {
        "a.json": "records are written as JSON Lines; name a file that ends in .jsonl",
        "folder.jsonl": "records are written as JSON Lines; name a file that ends in .jsonl",
        "file/a.jsonl": "a file is where a folder should be",
    }.items():
        with pytest.raises(InputError, match=f"{problem}$"):
            write_records(tmp_path / name, prompt)
    write_records(tmp_path / "new" / "deep" / "a.jsonl", prompt)
    assert read_prompts([str(tmp_path / "new/deep/a.jsonl")]).records == prompt
