"""The bounds of a job's table, checked first: beyond them no value can be checked, shown or written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fedmpi.job.words import JobError, shown

UNWRITABLE = re.compile("[\0\ud800-\udfff]")  # in a file, a folder's name or a journal
DEEP, LONG, MANY = 16, 4096, 10_000  # tables within tables, characters of a string, entries of a list or table


def sane(table: Mapping[str, Any]) -> None:
    """Raise JobError for a value beyond any job's meaning, on which the checks themselves would fail."""
    waiting: list[tuple[str, Any, int]] = [("", table, 0)]
    while waiting:
        field, value, depth = waiting.pop()
        at = shown(field, quotes=False) or "job"
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise JobError(f"{at}: {shown(value)} given; whole numbers should be less than 2^63 in size")
        if isinstance(value, str) and (len(value) > LONG or UNWRITABLE.search(value)):
            raise JobError(f"{at}: {shown(value)} given; should have at most {LONG} characters, none of them NUL")
        if isinstance(value, (Mapping, list, tuple)):
            if depth == DEEP or len(value) > MANY:
                raise JobError(f"{at}: should have at most {MANY} entries, and no more than {DEEP} tables deep")
            named = value.items() if isinstance(value, Mapping) else enumerate(value)
            for name, inner in named:
                if isinstance(value, Mapping) and (not isinstance(name, str) or len(name) > 200):
                    raise JobError(f"{at}: {shown(name)} is a key; keys should be strings of at most 200 characters")
                waiting.append((f"{field}.{name}" if field else str(name), inner, depth + 1))
