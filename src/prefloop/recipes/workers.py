"""Jobs side by side in two processes. They load what their jobs need, and this module for itself nothing that takes
time."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

from prefloop.types import EnvironmentStop

Job = tuple[Callable[..., Any], tuple[Any, ...]]


class Workers:
    """Two processes, started with their first job and kept to the end of the block: each loads its libraries once.

    They are deaf to the terminal's interrupt: this process gets it too, and tells them once, by SIGTERM.
    """

    def __enter__(self) -> Workers:
        # Started on the first use otherwise, when it would lift the mask of `_starting`.
        resource_tracker.ensure_running()
        spawn = multiprocessing.get_context("spawn")
        self.pool = concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn, initializer=_listen)
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()

    def side_by_side(self, *jobs: Job) -> list[Any]:
        """Run functions with their arguments, in order. The first error, or an interrupt, ends them all, and the
        workers with them.

        Raises EnvironmentStop if a worker is killed.
        """
        try:
            with _starting():
                futures = [self.pool.submit(_interruptible, *job) for job in jobs]
            done, _ = concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise EnvironmentStop("a worker process was killed, perhaps for lack of memory") from error
        except BaseException:
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Signals wait while workers start: one that hits here leaves half a worker. Workers inherit the mask, not the
    handler, so that SIGTERM ends one that has not yet begun its job."""
    arrived: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if arrived:
        raise KeyboardInterrupt


_stops: list[int] = []
"""The signals that have told this worker to stop. It stays alive: the pool answers the death of one worker with a
second SIGTERM to the others, which would cut into the step that they are finishing."""


def _listen() -> None:
    """In a worker that has nothing in hand: SIGTERM is noted."""
    signal.signal(signal.SIGTERM, lambda number, _: _stops.append(number))


def _interruptible(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call a function in a worker; SIGTERM interrupts it, so that it leaves nothing half-written. A worker that was
    told to stop begins no other."""
    signal.signal(signal.SIGTERM, _interrupt_once)
    try:
        if _stops:
            raise KeyboardInterrupt
        return function(*arguments)
    except KeyboardInterrupt:
        _stops.append(signal.SIGTERM)
        raise
    finally:
        _listen()


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    _listen()
    raise KeyboardInterrupt
