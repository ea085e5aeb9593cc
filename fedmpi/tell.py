"""Lines for the person at a run: notes, the current wait, and the reason of its end, told last by `fedmpi train`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

TOLD = "FEDMPI_TOLD"  # set for ranks whose stderr our own launcher reads
MARK = "\x1e"  # before each record for it, a line of JSON


class Refused(Exception):
    """A refusal of a person's request; its message gives the reason and the remedy, and is all they see.

    `code` is the exit status: 1 for a fault of data or machine (a broken shard), 2 for one of the request (a field).
    """

    code = 1
    tells: bool | None = None  # whether this rank tells it; None before ranks could agree on one

    def __str__(self) -> str:
        """Return the message, printable: names in other people's files may hold characters for a terminal to obey."""
        text = super().__str__()
        return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)


class Interrupted(Refused):
    """A run stopped at a person's request: its work is saved, and starting it again goes on."""

    code = 75  # sysexits.h's EX_TEMPFAIL: not finished, worth starting again


def end(message: str, code: int) -> None:
    """Tell the reason why this process ends with `code`, in one line; our own launcher prints it after all else."""
    if os.environ.get(TOLD):
        _send({"end": message, "code": code})
    else:
        print(f"fedmpi: {message}", file=sys.stderr, flush=True)


def hello(rank: int) -> None:
    """Tell our own launcher the process id of this rank, which listens to signals from now on."""
    if os.environ.get(TOLD):
        _send({"rank": rank, "pid": os.getpid()})


watched: Callable[[str], None] | None = None  # shows the current wait, where a person watches


def waiting(text: str) -> None:
    """Show the run's current wait, where a person watches; "" when it is over."""
    if watched is not None:
        watched(text)


def note(text: str) -> None:
    """Print one line about the run for the person at it; called at home alone, so it comes once."""
    waiting("")  # the line about it is replaced, not written on
    print(f"fedmpi: {text}", file=sys.stderr, flush=True)


def waits(text: str) -> None:
    """Tell our own launcher this rank's current wait, "" when it is over."""
    _send({"waiting": text})


def _send(record: dict[str, object]) -> None:
    sys.stderr.write(f"{MARK}{json.dumps(record)}\n")
    sys.stderr.flush()
