"""Records of ranks for the process that started them, in lines of their own on standard error."""

from __future__ import annotations

import json
import re
import signal
from contextlib import suppress

from fedmpi.launch.waiting import waiting
from fedmpi.tell import MARK

SIGN = MARK.encode()
TAIL = 2**14  # bytes of the latest output: a launcher's banner is about 1,000
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
# How launchers report a killed rank: Open MPI by its number; MPICH by its pid, Intel MPI by both.
NOTICE = re.compile(r"process rank\s+(\d+)[^.]*?exited\s+on\s+signal\s+(\d+)")
BANNER = re.compile(r"PID (\d+) RUNNING AT")
STRING = re.compile(r"(?:EXIT STRING: .*\(signal |KILLED BY SIGNAL: )(\d+)")
EXITED = re.compile(r"non-zero\s+status|EXIT CODE: [1-9]|EXIT STATUS: [1-9]")


class Ranks:
    """`size` ranks, as known from their output; `end` is the first reason given for the end, and its exit status."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pids: dict[int, int] = {}  # of the ranks listening to signals, by rank
        self.end: tuple[str, int] | None = None
        self.signals: list[int] = []  # to stop the run, in the order they came
        self.forwarded = False  # whether the first of these went on to listening ranks
        self.output = b""  # the end of all output but records
        self.pending = b""  # a record as far as it has come

    @property
    def listening(self) -> bool:
        """Whether every rank listens to signals, so they can be asked to stop."""
        return len(self.pids) == self.size

    def take_records(self, data: bytes) -> bytes:
        """Note the records in `data`, and return the rest, meant for the person."""
        self.pending += data
        rest = b""
        while self.pending:
            before, sign, after = self.pending.partition(SIGN)
            rest += before
            record, newline, behind = after.partition(b"\n")
            if not newline:
                self.pending = sign + after
                break
            self._note(record)
            self.pending = behind
        return self.keep(rest)

    def keep(self, data: bytes) -> bytes:
        """Return the same data; its end stays in `output`, since MPICH's banner comes on standard output."""
        self.output = (self.output + data)[-TAIL:]
        return data

    def rest(self) -> bytes:
        """Return a record cut off by the end of the output, without its mark."""
        pending, self.pending = self.pending.removeprefix(SIGN), b""
        return pending

    def _note(self, text: bytes) -> None:
        """Note one record; a malformed one is ignored."""
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(text)
            if "end" in record:
                self.end = self.end or (record["end"], int(record["code"]))
            elif "waiting" in record:
                waiting(record["waiting"])
            else:
                self.pids[int(record["rank"])] = int(record["pid"])

    def killed(self) -> tuple[str, int] | None:
        """Return the killed rank, in words, and its signal, as the launcher reports them, or None."""
        text = self.output.decode(errors="replace")
        if match := NOTICE.search(text):
            return f"rank {match[1]}", int(match[2])
        if match := STRING.search(text):
            banner = BANNER.search(text)
            pid = int(banner[1]) if banner else 0
            rank = next((rank for rank, known in self.pids.items() if known == pid), None)
            return "a rank" if rank is None else f"rank {rank}", int(match[1])
        return None

    @property
    def exited(self) -> bool:
        """Whether the launcher reports a rank that ended by itself, with a status other than 0."""
        return EXITED.search(self.output.decode(errors="replace")) is not None


def killed(name: str, number: int) -> str:
    """Return the words for a process killed by a signal: "rank 2 was killed (137: out of memory?)"."""
    try:
        cause = CAUSES.get(signal.Signals(number), signal.Signals(number).name)
    except ValueError:
        cause = f"signal {number}"
    return f"{name} was killed ({128 + number}: {cause})"
