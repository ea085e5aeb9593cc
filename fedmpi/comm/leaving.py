"""The end of a rank: with the others where all agreed to it, else by an abort, since they wait in a collective.

`python -m mpi4py` aborts when a rank raises.  This module does so for a script started without it, and prints a
person's mistake in one line, where Python would show a traceback on every rank.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Protocol

from mpi4py import MPI

from fedmpi import tell
from fedmpi.tell import Refused

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]
ThreadHook = Callable[[threading.ExceptHookArgs], Any]

FORWARDING = 0.2  # seconds: mpirun forwards the output so far before it hears of an abort


class Watched(Protocol):
    """The part of a communicator over MPI needed to leave it; `owes` is true while others wait for this rank."""

    mpi: MPI.Comm
    me: int
    owes: bool


_worlds: list[Watched] = []  # of several ranks
_threads: set[int] = set()  # of their making: another thread may fail and harm nobody


def leave(code: int) -> NoReturn:
    """Leave MPI together, with the same exit status on every rank, and without the launcher's long complaints."""
    sys.stdout.flush()
    sys.stderr.flush()
    if MPI.Is_initialized() and not MPI.Is_finalized():
        MPI.Finalize()
    os._exit(code)


def abort(world: Watched, code: int) -> None:
    """End every rank now."""
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(FORWARDING)
    world.mpi.Abort(code)


def watch(world: Watched) -> None:
    """Let an error that nobody catches, in this rank's main thread or this one, end the launch from now on."""
    if not _worlds:
        sys.excepthook = _hook(sys.excepthook)
        threading.excepthook = _thread_hook(threading.excepthook)
        atexit.register(_at_exit)
    _worlds.append(world)
    _threads.add(threading.get_ident())


def _hook(previous: Hook) -> Hook:
    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, Refused):
            if error.tells is not False:
                tell.end(str(error), error.code)
            if error.tells is not None:  # settled: every rank comes here
                leave(error.code)
            abort(_worlds[0], error.code)
        previous(kind, error, trace)
        _failed(error)

    return hook


def _thread_hook(previous: ThreadHook) -> ThreadHook:
    def hook(failure: threading.ExceptHookArgs) -> None:
        previous(failure)
        if failure.exc_value is not None and failure.thread is not None and failure.thread.ident in _threads:
            _failed(failure.exc_value)

    return hook


def _failed(error: BaseException) -> None:
    """End the other ranks for an error with its traceback shown already."""
    code = 130 if isinstance(error, KeyboardInterrupt) else 1
    if os.environ.get(tell.TOLD):
        message = str(error).partition("\n")[0]
        reason = f"{type(error).__name__}: {message}" if message else type(error).__name__
        tell.end(f"rank {_worlds[0].me} failed: {reason} (its traceback is above)", code)
    abort(_worlds[0], code)


def _at_exit() -> None:
    """End the other ranks where this one leaves in the middle of a run (`sys.exit` in a callback): they wait for it."""
    for world in _worlds:
        if world.owes and world.mpi and not MPI.Is_finalized():
            tell.end(f"rank {world.me} left in the middle of the run", 1)
            abort(world, 1)
