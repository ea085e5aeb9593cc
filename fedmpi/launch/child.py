"""A command run as a child: signals are passed on to it, its exit code comes back, and nothing of it is left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from fedmpi.launch.ranks import Ranks
from fedmpi.launch.waiting import waiting

# What is passed on, and as what: a launcher knows what TERM means, HUP (the terminal was closed) it may not know.
FORWARDED = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
}
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 2.0  # seconds that what is left behind has between TERM and KILL
ASKED = "stopping when this round is over; a second time ends it at once"

_PDEATHSIG, _SUBREAPER = 1, 36  # of Linux's prctl
_prctl: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "prctl", None)


def supervise(argv: Sequence[str], environ: Mapping[str, str], ranks: Ranks | None = None) -> int:
    """Run a command to its end: its exit code, or 128 + n where signal n killed it or was passed on and stopped it.

    INT, TERM, HUP and USR1 go to the command, once: it has a process group of its own, so that the terminal's Ctrl-C,
    which reaches a whole group, does not reach it a second time (to Open MPI two mean "at once").  It reads no input,
    since a group in the background that reads its terminal is stopped.  On Linux the command is told to stop when this
    process is killed, and ranks that a killed `mpirun` leaves behind become children here and are ended.

    Where it starts `ranks` that listen, the first of these signals is USR1 to the command, which hands it on to them;
    before they listen it is TERM.  The second one ends the command at once.  What they write passes through here.
    """
    asked: list[int] = [] if ranks is None else ranks.asked
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if child is not None:
            pass_on(child, number)

    def pass_on(child: subprocess.Popen[bytes], number: int) -> None:
        if ranks is None:
            child.send_signal(FORWARDED[signal.Signals(number)])
        elif len(asked) == 1 and ranks.listen:
            ranks.listened = True
            child.send_signal(signal.SIGUSR1)
            write(f"fedmpi: {ASKED}\n".encode())
        else:
            child.send_signal(signal.SIGTERM)
            late = threading.Timer(GRACE, child.kill)  # it may hang as well
            late.daemon = True
            late.start()

    before = _children()
    _tell_kernel(_SUBREAPER, 1)
    handlers = _handle(forward)
    sys.stdout.flush()
    sys.stderr.flush()
    readers: list[threading.Thread] = []
    pipe = None if ranks is None else subprocess.PIPE
    try:
        child = subprocess.Popen(
            argv,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            process_group=0,
            preexec_fn=_end_with_parent,
        )
        if ranks is not None and child.stdout is not None and child.stderr is not None:
            for source, target in ((child.stdout, 1), (child.stderr, 2)):
                reader = threading.Thread(target=_relay, args=(source.fileno(), target, ranks), daemon=True)
                reader.start()
                readers.append(reader)
        for number in asked.copy():  # what came while there was nobody to pass it on to
            pass_on(child, number)
        code = child.wait()
        _end(before)
        for reader in readers:
            reader.join(GRACE)  # a process that was detached may hold the other end for ever
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _tell_kernel(_SUBREAPER, 0)
    stopped = next((number for number in asked if number in STOPS), None)
    if ranks is None and code != 0 and stopped is not None:
        return 128 + stopped  # Open MPI's own code is then 1, which would read as a failure
    return code if code >= 0 else 128 - code


def _relay(source: int, target: int, ranks: Ranks) -> None:
    """What comes, as it comes; what comes on standard error without the ranks' records."""
    while data := os.read(source, 2**16):
        write(ranks.take_records(data) if target == 2 else ranks.keep(data), target)
    if target == 2:
        write(ranks.rest())


def write(data: bytes, target: int = 2) -> None:
    """To an output of our own, whole, whoever else writes; where nobody reads it any more, nowhere."""
    if data:
        waiting("")
    with suppress(OSError):
        while data:
            data = data[os.write(target, data) :]


Handler = Callable[[int, FrameType | None], object] | int | None


def _handle(forward: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Handler]:
    """Install `forward`, and return what was there; a signal that is ignored (nohup, a shell's `&`) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    live = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, forward) for number in live}


def _end_with_parent() -> None:
    _tell_kernel(_PDEATHSIG, signal.SIGTERM)


def _tell_kernel(option: int, value: int) -> None:
    if sys.platform == "linux" and _prctl is not None:
        _prctl(option, value)


def _children() -> set[int]:
    """Processes whose parent is this one; only Linux tells."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended while we looked
            if int(stat.read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def _end(before: set[int]) -> None:
    """End what became a child of this process since `before`: TERM, then KILL."""
    began, told = time.monotonic(), set[int]()
    while (left := _children() - before) and time.monotonic() < began + 2 * GRACE:
        late = time.monotonic() > began + GRACE
        for pid in left if late else left - told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        told |= left
        for pid in left:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)
