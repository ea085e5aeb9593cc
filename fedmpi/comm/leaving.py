"""How a rank leaves: with the others where all agreed to, else by an abort, since they wait for it in a collective.

`python -m mpi4py` aborts for a rank that raises.  This does so for a script that was started without it, and says what
a person did wrong in one line, where Python would show a traceback on every rank.
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

FORWARDING = 0.2  # seconds: mpirun forwards what was said before it hears of an abort


class World(Protocol):
    """A communicator over MPI, as far as leaving it goes; `owes` while others wait for this rank."""

    mpi: MPI.Comm
    me: int
    owes: bool


_worlds: list[World] = []  # of several ranks
_threads: set[int] = set()  # that they were made on: another thread may fail and harm nobody


def leave(code: int) -> NoReturn:
    """Leave MPI together, with the same exit status on every rank, and without the launcher's long complaints."""
    sys.stdout.flush()
    sys.stderr.flush()
    if MPI.Is_initialized() and not MPI.Is_finalized():
        MPI.Finalize()
    os._exit(code)


def abort(world: World, code: int) -> None:
    """End every rank now."""
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(FORWARDING)
    world.mpi.Abort(code)


def watch(world: World) -> None:
    """From now on an error that nobody catches, on this rank, ends the launch: in its main thread or this one."""
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
    def hook(found: threading.ExceptHookArgs) -> None:
        previous(found)
        if found.exc_value is not None and found.thread is not None and found.thread.ident in _threads:
            _failed(found.exc_value)

    return hook


def _failed(error: BaseException) -> None:
    """The traceback is shown; the others are ended."""
    code = 130 if isinstance(error, KeyboardInterrupt) else 1
    if os.environ.get(tell.TOLD):
        said = str(error).partition("\n")[0]
        what = f"{type(error).__name__}: {said}" if said else type(error).__name__
        tell.end(f"rank {_worlds[0].me} failed: {what} (its traceback is above)", code)
    abort(_worlds[0], code)


def _at_exit() -> None:
    """A rank that ends in the middle of a run (`sys.exit` in a callback) leaves others that wait for it."""
    for world in _worlds:
        if world.owes and world.mpi and not MPI.Is_finalized():
            tell.end(f"rank {world.me} left in the middle of the run", 1)
            abort(world, 1)
