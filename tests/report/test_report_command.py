"""`prefloop report RUN`: which page, where it goes, and what is refused."""

import json

import pytest

from prefloop.report.command import make
from prefloop.report.config import ReportConfig
from prefloop.types import InputError


@pytest.fixture
def finished(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "result.json").write_text('{"command": "train sft", "stopped": "done"}')
    return path


def test_the_report_goes_into_the_run(finished):
    answer = make(ReportConfig(run=str(finished)))
    assert answer == {"report": str(finished / "report.html")}
    assert "<h1>prefloop train sft</h1>" in (finished / "report.html").read_text()
    assert sorted(path.name for path in finished.iterdir()) == ["report.html", "result.json"]


def test_the_report_goes_where_it_is_told(finished, tmp_path):
    target = tmp_path / "page.html"
    assert make(ReportConfig(run=str(finished), out=str(target))) == {"report": str(target)}
    assert target.exists() and not (finished / "report.html").exists()


def test_a_demo_gets_the_page_of_demos(demo_writer, tmp_path):
    run_dir = demo_writer(tmp_path / "demo")
    make(ReportConfig(run=str(run_dir)))
    assert "one policy tuned, hacked and guarded" in (run_dir / "report.html").read_text()


def test_a_failed_report_leaves_the_old_one(finished):
    make(ReportConfig(run=str(finished)))
    before = (finished / "report.html").read_text()
    (finished / "metrics.jsonl").write_text("{broken")
    with pytest.raises(InputError):
        make(ReportConfig(run=str(finished)))
    assert (finished / "report.html").read_text() == before


def write_nothing(path):
    pass


def write_unfinished(path):
    (path / "inputs.json").write_text("{}")


def write_broken(path):
    (path / "result.json").write_text("{")


def write_list(path):
    (path / "result.json").write_text("[]")


def write_anonymous(path):
    (path / "result.json").write_text(json.dumps({"stopped": "done"}))


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (write_nothing, "run: is not a run directory (no result.json); give a directory that a prefloop command made"),
        (write_unfinished, "run: this run is not finished; run its command again"),
        (write_broken, "result.json: is not JSON"),
        (write_list, "result.json: is not a JSON object"),
        (write_anonymous, "result.json: command: does not say which command made it"),
    ],
)
def test_what_is_no_finished_run_is_refused(tmp_path, write, expected):
    path = tmp_path / "run"
    path.mkdir()
    write(path)
    with pytest.raises(InputError) as error:
        make(ReportConfig(run=str(path)))
    assert expected in str(error.value) and str(path) in str(error.value)
    assert not (path / "report.html").exists()


def test_missing_paths_and_wrong_kinds_of_path(finished, tmp_path):
    with pytest.raises(InputError, match="run: no such directory"):
        make(ReportConfig(run=str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match="run: is a file"):
        make(ReportConfig(run=str(finished / "result.json")))
    with pytest.raises(InputError, match="out: is a directory"):
        make(ReportConfig(run=str(finished), out=str(tmp_path)))
    with pytest.raises(InputError, match="out: no such directory"):
        make(ReportConfig(run=str(finished), out=str(tmp_path / "a" / "b.html")))
