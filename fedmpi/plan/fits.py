"""The check of a model's size against this machine's memory, before any of it is taken."""

from __future__ import annotations

import os
from pathlib import Path

from fedmpi.job import JobError

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def room() -> int:
    """Return this machine's bytes of memory, or those allowed to its container or batch job."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in map(Path, LIMITS):
        text = limit.read_text(encoding="ascii").strip() if limit.is_file() else ""
        limits += [int(text)] if text.isdecimal() else []
    return min(limits)


def fits(field: str, count: int, itemsize: int, copies: int) -> None:
    """Raise JobError where `count` values of a model, in so many copies, are more than all of the memory."""
    needed = count * itemsize * copies
    if needed > room():
        raise JobError(
            f"{field}: a model of {count:,} values takes {needed / 2**30:,.0f} GiB in the {copies:,} copies that a "
            f"rank holds, and there are {room() / 2**30:,.0f} GiB of memory"
        )
