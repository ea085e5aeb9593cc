"""Checksums in a run folder's files: a damaged file is refused, and one without a checksum is noted."""

from __future__ import annotations

import functools
import json
import stat
import zlib
from pathlib import Path
from typing import Any

from fedmpi.flow import Refused
from fedmpi.tell import note

LARGEST = 2**26  # bytes of a file of text, or of one line of a journal


def ordinary(path: Path) -> None:
    """Raise FileNotFoundError where nothing is, Refused for anything but a file: a pipe would wait for ever."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise Refused(f"{path}: is a {'folder' if stat.S_ISDIR(mode) else 'pipe or device'}, not a file")


def text(path: Path) -> bytes:
    """Return the bytes of a text file; OSError where it cannot be read, Refused where it is none or far too large."""
    ordinary(path)
    if path.stat().st_size > LARGEST:
        raise Refused(f"{path}: has {path.stat().st_size:,} bytes, which no run wrote")
    return path.read_bytes()


def table_sum(table: Any) -> str:
    """Return the crc32 of a table of plain values, as 8 hexadecimal digits, whatever the order of its names."""
    return f"{zlib.crc32(json.dumps(table, sort_keys=True, default=str).encode()):08x}"


def unsealed(path: Path) -> None:
    """Print a note, once for each run folder, about a file in it without a checksum."""
    folder = path.parent
    _tell(folder.parent if folder.name in ("checkpoints", "clients") else folder)


@functools.cache
def _tell(folder: Path) -> None:
    note(f"{folder}: {NONE}")


NONE = "has files without a checksum (an earlier fedmpi wrote them); damage to them would go unnoticed"
