from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from prefloop import console
from prefloop.console import Progress, say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_go_to_standard_error(capsys: Any) -> None:
    say("stage 1: [bold] is text here")
    assert capsys.readouterr() == ("", "stage 1: [bold] is text here\n")


def test_without_a_terminal_progress_is_a_plain_line_now_and_then(capsys: Any, monkeypatch: Any) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with Progress("train sft", total=40) as progress:
        for step in range(1, 41):
            now += 0.75
            progress.update(step, f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    # Every 10 s, which is after 14 steps of 0.75 s (10.5 s), and none for the rest.
    assert lines == ["train sft: 14/40 after 10 s, loss 14", "train sft: 28/40 after 21 s, loss 28"]


def test_on_a_terminal_lines_are_printed_above_the_bar(monkeypatch: Any) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("train sft", total=4) as progress:
        progress.update(2, "loss 1.23")
        say("KL [is] high")
        with Progress("evaluate", total=2) as inner:
            inner.update(1)
        progress.update(4, "loss 1.20")
    say("done")
    text = screen.getvalue()
    assert "train sft" in text
    assert "4/4" in text
    assert "loss 1.20" in text
    assert "KL [is] high" in text
    assert text.endswith("done\n")


def test_an_error_ends_the_bar(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(ZeroDivisionError), Progress("train sft", total=4):
        raise ZeroDivisionError
    assert console._open == []
