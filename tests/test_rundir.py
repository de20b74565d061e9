"""Run directories: whose they are, what is recorded, what counts as done."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from prefloop.config import Section
from prefloop.rundir import RunDir, atomic_file, output_file, resolve_model, sha256_of, write_json
from prefloop.types import InputError


class Config(Section):
    """A small config."""

    out: str | None = None
    """Run directory."""
    seed: int = 3
    """Seed."""
    lr: float = 0.1
    """Learning rate."""


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


def opened(out, inputs=None, command="train thing", **settings):
    return RunDir(command, Config(out=str(out), **settings), inputs or {})


def test_a_run_records_config_inputs_and_versions(out, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"some rows\n")
    with opened(out, {"data:a.jsonl": tmp_path / "a.jsonl"}, lr=0.2):
        pass
    assert (out / "config.yaml").read_text() == f"out: {out}\nseed: 3\nlr: 0.2\n"
    record = json.loads((out / "inputs.json").read_text())
    assert record["inputs"]["data:a.jsonl"]["sha256"] == hashlib.sha256(b"some rows\n").hexdigest()
    assert (record["command"], record["seed"]) == ("train thing", 3)
    assert {"torch", "numpy"} <= record["packages"].keys()
    assert not list(out.glob(".*")), "no temporary file is left"


def test_the_default_directory_has_the_hash_of_the_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunDir("train thing", Config(), {}) as run:
        assert run.path.parent == Path("runs") and run.path.name.startswith("train-thing-")
        first = run.path.name
    with RunDir("train thing", Config(lr=0.3), {}) as run:
        assert run.path.name != first
    with RunDir("train thing", Config(), {}) as run:
        assert run.path.name == first


def test_finished_means_that_the_result_is_there(out, capsys):
    with opened(out) as run:
        assert run.finished is None
        made = run.finish(stopped="done", metrics={"a/b": 1.0}, outputs={"model": "m"}, answer={"x": [1]})
        assert run.finished == made
    assert f"already finished: {out / 'result.json'}" in capsys.readouterr().err
    assert json.loads((out / "result.json").read_text())["answer"] == {"x": [1]}


def test_what_is_not_finite_is_null_in_the_files_of_a_run(out):
    nan, infinite = float("nan"), float("inf")
    with opened(out) as run:
        run.log(1, {"a/b": nan, "a/c": 2.0})
        run.finish(
            stopped="done", metrics={"a/b": nan}, outputs={}, answer={"interval": (-infinite, 1.0), "x": [{"y": nan}]}
        )

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    row, result = (
        json.loads((out / name).read_text(), parse_constant=refuse) for name in ("metrics.jsonl", "result.json")
    )
    assert row == {"step": 1, "a/b": None, "a/c": 2.0}
    assert result["metrics"] == {"a/b": None}
    assert result["answer"] == {"interval": [None, 1.0], "x": [{"y": None}]}


def test_a_directory_in_which_nothing_was_made_is_taken_over(out):
    with opened(out):
        (out / ".inputs.json.99.tmp").write_text("half")
        (out / "checkpoints" / ".step-000001.tmp").mkdir(parents=True)
        (out / "checkpoints" / ".step-000001.tmp" / "weights").write_text("half")
    with opened(out, command="train other", lr=0.5):
        assert "lr: 0.5" in (out / "config.yaml").read_text()
        assert json.loads((out / "inputs.json").read_text())["command"] == "train other"


def test_once_something_was_made_it_belongs_to_its_config(out, tmp_path):
    data = tmp_path / "a.jsonl"
    data.write_text("a")
    with opened(out, {"data:a": data}) as run:
        run.log(1, {"x/y": 1.0})
    with pytest.raises(InputError, match=r"these differ: lr, seed; give another --out"):
        opened(out, {"data:a": data}, lr=0.2, seed=4)
    with pytest.raises(InputError, match=r"belongs to `train thing`; give another --out"):
        opened(out, {"data:a": data}, command="train other")
    data.write_text("b")
    with pytest.raises(InputError, match=r"these differ: data:a \(its content changed\); give"):
        opened(out, {"data:a": data})
    data.write_text("a")
    # A refusal leaves no lock behind.
    with opened(out, {"data:a": data}):
        pass


def test_one_process_at_a_time(out):
    with opened(out), pytest.raises(InputError, match="another process is running here; wait for it, or"):
        opened(out)
    with opened(out):
        pass


def test_directories_that_are_no_runs(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; give a directory"):
        opened(tmp_path / "file")
    with pytest.raises(InputError, match="holds files that are no run of prefloop; give another --out"):
        opened(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["file"]
    with pytest.raises(InputError, match=r"cannot be made \(not a directory\); give another --out"):
        opened(tmp_path / "file" / "run")
    with pytest.raises(InputError, match=r"cannot be made \(no such file or directory\)"):
        opened(Path("/proc/prefloop/run"))


def test_inputs_must_exist_before_anything_is_made(out, tmp_path):
    with pytest.raises(InputError) as caught:
        opened(out, {"data:none.jsonl@2": tmp_path / "none.jsonl"})
    assert str(caught.value) == f"{tmp_path / 'none.jsonl'}: data: no such file"
    assert not out.exists()


def test_forgetting_keeps_whole_rows_up_to_a_step(out):
    with opened(out) as run:
        for step in (1, 2, 3):
            run.log(step, {"x/y": step / 2})
        (out / "rollouts").mkdir()
        rows = [{"step": step, "response": f"{{é}}\u2028{step}\x85}}"} for step in (1, 2, 3)]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / "rollouts" / "rollouts.jsonl").write_bytes(text.encode() + b'{"step": 2, "response": "caf}' + b"\xc3")
        run.forget_after(2)
    assert (out / "metrics.jsonl").read_text() == '{"step": 1, "x/y": 0.5}\n{"step": 2, "x/y": 1.0}\n'
    kept = (out / "rollouts" / "rollouts.jsonl").read_bytes().decode().split("\n")
    assert [json.loads(line) for line in kept[:-1]] == rows[:2] and kept[-1] == ""


def test_an_atomic_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": "é"})
    before = path.read_bytes()
    with pytest.raises(OSError, match="full"), atomic_file(path) as file:
        file.write("half")
        raise OSError(errno.ENOSPC, "full")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_hash_of_a_directory_is_that_of_names_and_contents(tmp_path):
    def tree(name, files):
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(content)
        return sha256_of(tmp_path / name)

    first = tree("first", {"a": "1", "sub/b": "2"})
    assert tree("same", {"sub/b": "2", "a": "1"}) == first
    # Without the sizes, the first of these two would read as the second.
    assert tree("two files", {"a": "1", "b": "2"}) != tree("one file", {"a": "1b\x002"})
    others = [{"a": "1", "sub/b": "3"}, {"a": "1", "b": "2"}, {"a": "1"}, {"a": "12", "sub/b": ""}]
    assert len({first, *(tree(f"other-{place}", files) for place, files in enumerate(others))}) == 5


def test_a_model_is_a_directory_or_the_output_of_a_finished_run(out, tmp_path):
    with opened(out) as run:
        with pytest.raises(InputError, match="this run is not finished; run its command again"):
            resolve_model(str(out), "model")
        run.finish(stopped="done", metrics={}, outputs={"model": "m", "value": "v"})
    assert resolve_model(str(out), "model") == out / "m"
    assert resolve_model(str(out), "value", output="value") == out / "v"
    assert resolve_model(str(tmp_path), "model") == tmp_path
    with opened(tmp_path / "other") as run:
        run.finish(stopped="done", metrics={}, outputs={"report": "r"})
    with pytest.raises(InputError, match=r"this run made no model \(it made: report\)"):
        resolve_model(str(tmp_path / "other"), "model")
    with pytest.raises(InputError, match="model: no such directory; give a model directory or a finished run"):
        resolve_model(str(tmp_path / "none"), "model")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff{", r"result\.json: is not JSON"),
        (b'{"outputs"', r"result\.json: is not JSON"),
        (b"[]", r"result\.json: is not a JSON object"),
        (b'{"outputs": ["m"]}', r"result\.json: outputs: is missing or no object"),
        (b"{}", r"result\.json: outputs: is missing or no object"),
    ],
)
def test_a_result_that_is_none_names_the_file(out, content, problem):
    with opened(out) as run:
        run.finish(stopped="done", metrics={}, outputs={"model": "m"})
    (out / "result.json").write_bytes(content)
    with pytest.raises(InputError, match=f"{problem}.*; run the command that made it again"):
        resolve_model(str(out), "model")
    with opened(out) as run, pytest.raises(InputError, match=r"result\.json: .*; run the command that made it again"):
        assert run.finished


@pytest.mark.parametrize(
    ("name", "place"), [("inputs.json", "inputs.json: is not JSON"), ("config.yaml", "config.yaml:1")]
)
def test_a_damaged_record_of_a_run_names_the_file(out, name, place):
    with opened(out) as run:
        run.log(1, {"x/y": 1.0})
    (out / name).write_text("{{{")
    with pytest.raises(InputError, match=place):
        opened(out)


def test_a_full_disk_says_where(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_json(tmp_path / "a.json", {})
    assert caught.value.filename == str(tmp_path / "a.json")
    assert os.listdir(tmp_path) == []


def test_output_files_are_checked_before_the_work(tmp_path, monkeypatch):
    assert output_file(str(tmp_path / "x")) == tmp_path / "x"
    with pytest.raises(InputError, match="out: is a directory; give a file to write"):
        output_file(str(tmp_path))
    with pytest.raises(InputError, match="out: no such directory; make it first"):
        output_file(str(tmp_path / "none" / "x"))
    # Not by chmod: the superuser, who runs the tests in some places, may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(InputError, match=f"^{tmp_path}: out: may not be written to; give a file elsewhere"):
        output_file(str(tmp_path / "x"))


def test_an_atomic_file_that_cannot_be_opened_is_named_as_the_user_knows_it(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught:
        write_json(tmp_path / "file" / "x.json", {})
    assert caught.value.filename == str(tmp_path / "file" / "x.json")


def test_what_speaks_about_a_model_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "weights").write_text("1")
    before = sha256_of(tmp_path)
    for place in (tmp_path, tmp_path / "inner"):
        for name in ("README.md", "prefloop-audit.json"):
            (place / name).write_text("said later")
    assert sha256_of(tmp_path) == before
    (tmp_path / "inner" / "other.md").write_text("content")
    assert sha256_of(tmp_path) != before
