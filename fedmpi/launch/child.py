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

# Signals passed on, and the signals sent for them: a launcher may not know HUP (the terminal was closed).
FORWARDED = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
}
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 2.0  # seconds between TERM and KILL
STOPPING = "stopping when this round is over; a second time ends it at once"

_PDEATHSIG, _SUBREAPER = 1, 36  # of Linux's prctl
_prctl: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "prctl", None)


def supervise(argv: Sequence[str], environ: Mapping[str, str], ranks: Ranks | None = None) -> int:
    """Run a command and return its exit code; 128 + n where signal n killed it, or stopped it when passed on.

    INT, TERM, HUP and USR1 go to the command once: it has a process group of its own, so the terminal's Ctrl-C, which
    reaches a whole group, does not reach it a second time (two of them mean "at once" to Open MPI).  The command reads
    no input, since a background group is stopped when it reads from its terminal.  On Linux it gets TERM when this
    process is killed, and ranks left behind by a killed `mpirun` become children of this process and are ended.

    Where the command starts `ranks`, their output passes through this process, and the first of these signals goes to
    the command as USR1, which it hands on to them; as long as not all of them listen, it goes as TERM.  The second one
    ends the command at once.
    """
    signals: list[int] = [] if ranks is None else ranks.signals
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if child is not None:
            pass_on(child, number)

    def pass_on(child: subprocess.Popen[bytes], number: int) -> None:
        if ranks is None:
            child.send_signal(FORWARDED[signal.Signals(number)])
        elif len(signals) == 1 and ranks.listening:
            ranks.forwarded = True
            child.send_signal(signal.SIGUSR1)
            write(f"fedmpi: {STOPPING}\n".encode())
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
        for number in signals.copy():  # those that came before there was a child
            pass_on(child, number)
        code = child.wait()
        _end(before)
        for reader in readers:
            reader.join(GRACE)  # a detached process may hold the other end for ever
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _tell_kernel(_SUBREAPER, 0)
    stopped = next((number for number in signals if number in STOPS), None)
    if ranks is None and code != 0 and stopped is not None:
        return 128 + stopped  # Open MPI ends with 1 then, which would read as a failure
    return code if code >= 0 else 128 - code


def _relay(source: int, target: int, ranks: Ranks) -> None:
    """Pass on an output of the child as it comes; its standard error goes without the ranks' records."""
    while data := os.read(source, 2**16):
        write(ranks.take_records(data) if target == 2 else ranks.keep(data), target)
    if target == 2:
        write(ranks.rest())


def write(data: bytes, target: int = 2) -> None:
    """Write all of `data` to an output of this process, after its waiting line; drop it where nobody reads any more."""
    if data:
        waiting("")
    with suppress(OSError):
        while data:
            data = data[os.write(target, data) :]


Handler = Callable[[int, FrameType | None], object] | int | None


def _handle(forward: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Handler]:
    """Install `forward` and return the earlier handlers; an ignored signal (nohup, a shell's `&`) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    live = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, forward) for number in live}


def _end_with_parent() -> None:
    """Let the kernel send this process TERM when its parent ends; called in the child, before its command."""
    _tell_kernel(_PDEATHSIG, signal.SIGTERM)


def _tell_kernel(option: int, value: int) -> None:
    """Set an option of this process by Linux's prctl; elsewhere do nothing."""
    if sys.platform == "linux" and _prctl is not None:
        _prctl(option, value)


def _children() -> set[int]:
    """Return the process ids of this process's children; none where there is no Linux to list them."""
    pids = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended while we looked
            if int(stat.read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                pids.add(int(stat.parent.name))
    return pids


def _end(before: set[int]) -> None:
    """End the children of this process other than `before`: by TERM, and from GRACE seconds on by KILL."""
    began, warned = time.monotonic(), set[int]()
    while (left := _children() - before) and time.monotonic() < began + 2 * GRACE:
        late = time.monotonic() > began + GRACE
        for pid in left if late else left - warned:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        warned |= left
        for pid in left:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)
