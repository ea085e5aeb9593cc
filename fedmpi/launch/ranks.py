"""What ranks say to the process that started them, in lines of their own on standard error."""

from __future__ import annotations

import json
import re
import signal
from contextlib import suppress

from fedmpi.launch.waiting import waiting
from fedmpi.tell import MARK

SIGN = MARK.encode()
KEPT = 2**14  # bytes of what was said last: a launcher's banner is about 1,000
CAUSES = {
    signal.SIGKILL: "out of memory?",
    signal.SIGTERM: "told to stop?",
    signal.SIGINT: "told to stop?",
    signal.SIGUSR1: "told to stop before it listened?",
    signal.SIGSEGV: "a crash in compiled code",
    signal.SIGBUS: "is a disk or /dev/shm full?",
    signal.SIGABRT: "compiled code gave up",
    signal.SIGFPE: "a crash in compiled code",
    signal.SIGILL: "built for another processor?",
    signal.SIGXCPU: "its CPU time is up",
}
# How launchers tell that a rank was killed: Open MPI by its number; MPICH by its pid, Intel MPI by both.
NOTICED = re.compile(r"process rank\s+(\d+)[^.]*?exited\s+on\s+signal\s+(\d+)")
BANNER = re.compile(r"PID (\d+) RUNNING AT")
STRING = re.compile(r"(?:EXIT STRING: .*\(signal |KILLED BY SIGNAL: )(\d+)")
LEFT = re.compile(r"non-zero\s+status|EXIT CODE: [1-9]|EXIT STATUS: [1-9]")


class Ranks:
    """`size` ranks, as far as they are heard of.  `end` is why the first of them ended, and with which exit status."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pids: dict[int, int] = {}  # of those that hear a signal, by rank
        self.end: tuple[str, int] | None = None
        self.asked: list[int] = []  # signals that were to end them
        self.listened = False  # to the first of these
        self.said = b""  # by whoever else wrote
        self.waits = b""

    @property
    def listen(self) -> bool:
        """All of them hear a signal: the run is ended by asking."""
        return len(self.pids) == self.size

    def take_records(self, data: bytes) -> bytes:
        """Take the records out of `data`, and return the rest, which is for the person."""
        self.waits += data
        rest = b""
        while self.waits:
            before, sign, after = self.waits.partition(SIGN)
            rest += before
            record, newline, behind = after.partition(b"\n")
            if not newline:
                self.waits = sign + after  # as much of a record as has come
                break
            self._note(record)
            self.waits = behind
        return self.keep(rest)

    def keep(self, data: bytes) -> bytes:
        """The same data; its end is remembered, since MPICH's banner comes on standard output."""
        self.said = (self.said + data)[-KEPT:]
        return data

    def rest(self) -> bytes:
        """What was left of a record that will not be finished."""
        left, self.waits = self.waits.removeprefix(SIGN), b""
        return left

    def _note(self, text: bytes) -> None:
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(text)
            if "end" in record:
                self.end = self.end or (record["end"], int(record["code"]))
            elif "waiting" in record:
                waiting(record["waiting"])
            else:
                self.pids[int(record["rank"])] = int(record["pid"])

    def killed(self) -> tuple[str, int] | None:
        """Who was killed, and by which signal, as the launcher tells it; None where it tells of nobody."""
        text = self.said.decode(errors="replace")
        if found := NOTICED.search(text):
            return f"rank {found[1]}", int(found[2])
        if found := STRING.search(text):
            banner = BANNER.search(text)
            pid = int(banner[1]) if banner else 0
            rank = next((rank for rank, known in self.pids.items() if known == pid), None)
            return "a rank" if rank is None else f"rank {rank}", int(found[1])
        return None

    @property
    def left(self) -> bool:
        """The launcher tells of a rank that ended by itself, and of how."""
        return LEFT.search(self.said.decode(errors="replace")) is not None


def killed(who: str, number: int) -> str:
    """ "rank 2 was killed (137: out of memory?)" """
    try:
        cause = CAUSES.get(signal.Signals(number), signal.Signals(number).name)
    except ValueError:
        cause = f"signal {number}"
    return f"{who} was killed ({128 + number}: {cause})"
