"""Two processes side by side: in order, and all of them ended by an error or an interrupt, with nothing left behind."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from prefloop.recipes.workers import Workers
from prefloop.types import EnvironmentStop, InputError

JOBS = """
import os, signal, time
from prefloop.rundir import atomic_file
from prefloop.types import InputError

def double(number):
    return 2 * number

def refuse():
    raise InputError("is wrong", field="x")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def write_slowly(path):
    with atomic_file(path) as file:
        file.write("half")
        time.sleep(600)
"""
"""In a module of its own, which workers can import wherever the tests are run from."""

PROGRAM = """
import signal, sys
from pathlib import Path
from prefloop.recipes.workers import Workers
from side_by_side_jobs import write_slowly

def stop(number, frame):
    raise KeyboardInterrupt

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    try:
        print("starting", flush=True)
        with Workers() as workers:
            workers.side_by_side(*((write_slowly, (Path(name),)) for name in sys.argv[1:]))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.fixture
def jobs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "side_by_side_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "side_by_side_jobs", raising=False)
    return importlib.import_module("side_by_side_jobs")


def test_answers_come_in_the_order_of_the_jobs(jobs: ModuleType) -> None:
    with Workers() as workers:
        assert workers.side_by_side(*((jobs.double, (number,)) for number in range(3))) == [0, 2, 4]
        at_work = {*workers.side_by_side(*((os.getpid, ()) for _ in range(20)))}
        at_work |= {*workers.side_by_side(*((os.getpid, ()) for _ in range(20)))}
        assert len(at_work) <= 2 and os.getpid() not in at_work, "the same two workers go on"
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(EnvironmentStop, match="a worker process was killed"), Workers() as workers:
        workers.side_by_side((jobs.die, ()))
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_an_error_ends_the_other_job_at_once(jobs: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="x: is wrong"), Workers() as workers:
        workers.side_by_side((jobs.write_slowly, (tmp_path / "a",)), (jobs.refuse, ()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("early", "to_all"),
    [(True, True), (False, False)],
    ids=["Ctrl-C in a terminal, while workers start", "SIGTERM to the program alone, while they work"],
)
def test_an_interrupt_ends_every_worker_and_leaves_nothing_half_written(
    tmp_path: Path, early: bool, to_all: bool
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "side_by_side_jobs.py").write_text(JOBS)
    (tmp_path / "out").mkdir()
    command = [sys.executable, str(tmp_path / "program.py"), *(str(tmp_path / "out" / name) for name in "abc")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "starting\n"
    deadline = time.monotonic() + 120
    while not early and len(list((tmp_path / "out").iterdir())) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    if to_all:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("interrupted\n", "")
    assert list((tmp_path / "out").iterdir()) == []
