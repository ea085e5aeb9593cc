"""The ledger: a line of JSON for each crossing with a cost, on disk before the crossing begins.

Unlike the journal it is never cut: a round that was trained again after a stop or a crash cost what it costs twice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmpi.flow import Refused
from fedmpi.records.journal import parsed, rendered
from fedmpi.records.seal import ordinary


class Ledger:
    """`ledger.jsonl`, which grows by whole lines, each with its checksum."""

    def __init__(self, path: Path) -> None:
        self.path, self.whole = path, False

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line, and return when it is on disk.  Refused where the disk does not take it.

        A last line that was cut short is dropped: its crossing never began.
        """
        try:
            with self.path.open("r+b" if self.path.exists() else "w+b") as file:
                if not self.whole:
                    file.truncate(file.read().rfind(b"\n") + 1)
                    self.whole = True
                file.seek(0, os.SEEK_END)
                file.write(rendered(line))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Refused(f"{self.path}: could not be written: {error.strerror}") from None


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a ledger, without their checksums; none where there is no such file.

    A torn last line is left out.  Refused for any other fault.
    """
    if not path.exists():
        return []
    try:
        ordinary(path)
        *whole, _ = path.read_bytes().split(b"\n")
    except OSError as error:
        raise Refused(f"{path}: cannot be read: {error.strerror}") from None
    lines = []
    for number, text in enumerate(whole, 1):
        try:
            line, sealed = parsed(text)
        except (ValueError, RecursionError):
            sealed = False
        if not sealed:
            raise Refused(f"{path}: line {number} is no line of a ledger; the file was changed or damaged")
        lines.append(line)
    return lines
