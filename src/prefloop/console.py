"""What a running command tells the person at the terminal, on standard error: narrative lines and progress.

Standard output is left to the answer, which a `Sheet` draws where people get a table.
"""

from __future__ import annotations

import io
import shutil
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

PLAIN_SECONDS = 10.0
"""Least time between two progress lines where standard error is no terminal."""

_open: list[Progress] = []
"""The bars on screen, so that `say` writes above them rather than through them."""


def say(text: str) -> None:
    """Print a line to standard error, above any progress bar."""
    for progress in _open:
        if progress.bar is not None:
            progress.bar.console.print(text, markup=False, highlight=False)
            return
    print(text, file=sys.stderr, flush=True)


SHOWN_CHARS = 160
"""How much of a text a terminal shows of an example."""
PIPE_WIDTH = 110
"""Columns where standard output is no terminal."""


def in_a_line(text: str) -> str:
    """A text on one line, cut to what a terminal shows of an example."""
    words = " ".join(text.split())
    return words if len(words) <= SHOWN_CHARS else f"{words[: SHOWN_CHARS - 1]}\u2026"


class Sheet:
    """Text for a terminal, drawn by rich as wide as that is, into a string."""

    def __init__(self) -> None:
        # Loaded here: slow, and no help needs it.
        from rich.console import Console

        self._stream = io.StringIO()
        width = max(80, shutil.get_terminal_size((PIPE_WIDTH, 24)).columns)
        self._console = Console(file=self._stream, width=width, highlight=False)

    def draw(self, what: Any = "", *, indent: int = 0, wrapped: bool = True) -> None:
        """Add a line of rich's markup, or what rich can draw."""
        from rich.padding import Padding

        self._console.print(Padding(what, (0, 0, 0, indent)) if indent else what, soft_wrap=not wrapped)

    def text(self) -> str:
        """All of it, without blanks at the ends of lines."""
        return "\n".join(line.rstrip() for line in self._stream.getvalue().rstrip().splitlines())


class Progress:
    """Progress of a loop of known length: a bar on a terminal, a plain line now and then elsewhere.

    with Progress("train sft", total=100) as progress:
        progress.update(step, "loss 1.23")
    """

    def __init__(self, title: str, *, total: int) -> None:
        self.title, self.total = title, total
        self.bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._started = self._printed = 0.0

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
        # The first line waits too: a loop that is done by then needs none.
        self._printed = self._started
        # Only one live display fits on a terminal: a bar inside another one's loop prints plain lines.
        if sys.stderr.isatty() and not _open:
            self.bar = _rich_bar()
            self._task = self.bar.add_task(self.title, total=self.total, note="")
            self.bar.start()
        _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _open.remove(self)
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of the total is behind us; `note` stands after it."""
        if self.bar is not None and self._task is not None:
            self.bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if now - self._printed < PLAIN_SECONDS:
            return
        self._printed = now
        say(f"{self.title}: {done}/{self.total} after {now - self._started:.0f} s" + (f", {note}" if note else ""))


def _rich_bar() -> RichProgress:
    # Loaded here: most of what prints needs no bar, and `--help` must be quick.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
    )
