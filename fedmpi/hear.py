"""Signals to stop this process, heard by a thread while the main thread may wait.

A Python handler runs between two instructions of the main thread, and a thread in a collective executes none.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

STOPS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)  # of a process alone with its run
RANK = (signal.SIGUSR1,)  # of a rank: mpirun hands it on, and does not end the ranks itself soon after

_heard: list[int] = []
_listens = False


def asked() -> bool:
    """Return whether somebody asked this process to stop."""
    return bool(_heard)


@contextmanager
def listening(numbers: Sequence[int] = RANK, again: Callable[[int], None] | None = None) -> Iterator[None]:
    """Hear these signals for a while; `again(number)` is called, on a thread, for each one after the first.

    An ignored signal stays ignored and one with a handler of the program keeps it.  Nothing is done where this process
    listens already, or outside the main thread: only that may set handlers.
    """
    global _listens
    free = [number for number in numbers if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)]
    if _listens or not free or threading.current_thread() is not threading.main_thread():
        yield
        return
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    before = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    handlers = {}
    for number in free:
        handlers[number] = signal.signal(number, _nothing)
        signal.siginterrupt(number, False)  # a library reading a file meanwhile reads on
    thread = threading.Thread(target=_hear, args=(ear, before, frozenset(free), again), daemon=True)
    thread.start()
    _listens = True
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.write(mouth, b"\0")
        thread.join()
        os.close(ear)
        os.close(mouth)
        _heard.clear()
        _listens = False


def _nothing(number: int, frame: FrameType | None) -> None:
    """Do nothing, as the handler in Python's own sense: the thread does the work."""


def _hear(ear: int, before: int, numbers: frozenset[int], again: Callable[[int], None] | None) -> None:
    while (number := os.read(ear, 1)[0]) != 0:
        if before >= 0:  # an event loop listened here
            with suppress(OSError):
                os.write(before, bytes([number]))
        if number in numbers:
            _heard.append(number)
            if again is not None and len(_heard) > 1:
                again(number)
