"""What ends a process is told in one line, to the person who started it or to `fedmpi train`, which says it last."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

TOLD = "FEDMPI_TOLD"  # set for ranks whose stderr our own launcher reads
MARK = "\x1e"  # what is meant for it: a line of JSON behind this


class Refused(Exception):
    """What a person asked for and cannot have; the message says why and what to do, and is all they see.

    `code` is the exit status: 1 for what was found (a broken shard), 2 for what was asked (a job's field).
    """

    code = 1
    tells: bool | None = None  # whether this rank tells it; None before ranks could agree on who does

    def __str__(self) -> str:
        """The message; names and cells of other people's files may hold what a terminal would obey, or cannot show."""
        text = super().__str__()
        return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)


class Interrupted(Refused):
    """Somebody asked a run to stop: what was made is kept, and starting it again goes on."""

    code = 75  # sysexits.h's EX_TEMPFAIL: not finished, worth starting again


def end(message: str, code: int) -> None:
    """Tell why this process ends with `code`: one line, which our own launcher keeps back until all else is said."""
    if os.environ.get(TOLD):
        _send({"end": message, "code": code})
    else:
        print(f"fedmpi: {message}", file=sys.stderr, flush=True)


def hello(rank: int) -> None:
    """Tell our own launcher that this rank hears it, and under which number it may be found dead."""
    if os.environ.get(TOLD):
        _send({"rank": rank, "pid": os.getpid()})


watched: Callable[[str], None] | None = None  # who shows what is waited for, where somebody does


def waiting(text: str) -> None:
    """Show what the run waits for now, where a person watches."""
    if watched is not None:
        watched(text)


def note(text: str) -> None:
    """Tell the person who started a run what they should know of it, in one line; called at home alone, to be once."""
    waiting("")  # the line that says so is replaced, not written on
    print(f"fedmpi: {text}", file=sys.stderr, flush=True)


def waits(text: str) -> None:
    """Tell our own launcher what this rank waits for, "" when that is over."""
    _send({"waiting": text})


def _send(record: dict[str, object]) -> None:
    sys.stderr.write(f"{MARK}{json.dumps(record)}\n")
    sys.stderr.flush()
