"""The journal: a line of JSON per round, which every report reads; each line ends in its own checksum."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmpi.flow import Refused
from fedmpi.records.seal import LARGEST, ordinary, unsealed
from fedmpi.tell import note

TORN = "its last line was cut short, and is left out"
MARK = b'"crc":"'
TAIL = len(MARK) + 8 + len('"}')  # how many bytes a line's checksum takes


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal, without their checksums; a torn last line is left out, with a note.

    A line of an earlier round takes the place of the lines from that round on.  Refused for any other fault; a note
    where there are no checksums.
    """
    lines, sealed, torn = sealed_journal(path)
    if not sealed:
        unsealed(path)
    if torn:
        note(f"{path}: {TORN}")
    return lines


def sealed_journal(path: Path) -> tuple[list[dict[str, Any]], bool, bool]:
    """Return the same, whether the lines have checksums (all or none), and whether the last is torn; without notes."""
    lines: list[dict[str, Any]] = []
    sealed: list[bool] = []
    torn = False
    try:
        ordinary(path)
        with path.open("rb") as file:
            for number, raw in enumerate(iter(lambda: file.readline(LARGEST), b""), 1):
                text = raw.removesuffix(b"\n")
                try:
                    line, whole = parsed(text) if text else (None, None)
                except (ValueError, RecursionError):
                    if text == raw and len(raw) < LARGEST:
                        torn = True  # it has no end
                        break
                    raise Refused(
                        f"{path}: line {number} is no line of a journal; the file was changed or damaged"
                    ) from None
                if line is not None:
                    while lines and _round(line) and _round(lines[-1]) >= _round(line):
                        lines.pop()
                    lines.append(line)
                    sealed.append(bool(whole))
    except OSError as error:
        raise Refused(f"{path}: cannot be read: {error}") from None
    if any(sealed) and not all(sealed):
        raise Refused(f"{path}: line {sealed.index(False) + 1} has lost its checksum; the file was changed or damaged")
    return lines, all(sealed), torn


def parsed(text: bytes) -> tuple[dict[str, Any], bool]:
    """Return a line, and whether it has a checksum.  ValueError where it is no table, or the checksum differs."""
    sealed = text[-TAIL:].startswith(MARK)
    if sealed:
        body = text[:-TAIL].removesuffix(b",") + b"}"
        if text[-TAIL:] != _tail(body):
            raise ValueError("its checksum differs")
        text = body
    line = json.loads(text)
    if not isinstance(line, dict):
        raise ValueError("no table")
    return line, sealed


def _round(line: Mapping[str, Any]) -> int:
    """Return a line's round; 0 where it has none."""
    round = line.get("round")
    return round if type(round) is int else 0


class Journal:
    """`journal.jsonl`, which grows by whole lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut(self, round: int) -> None:
        """Drop the lines from `round` on, which will be written again.  Atomic."""
        if not self.path.exists():
            return
        lines = [line for line in sealed_journal(self.path)[0] if line["round"] < round]
        aside = self.path.with_name(".journal.part")
        with aside.open("wb") as file:
            file.writelines(rendered(line) for line in lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self.path)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line.  Refused where the disk does not take it."""
        text = rendered(line)
        try:
            with self.path.open("ab") as file:
                file.write(text)
        except OSError as error:
            raise Refused(f"{self.path}: could not be written: {error}") from None

    def sync(self) -> None:
        """Wait until the lines are on disk, before a checkpoint counts on them.  Refused where they are not."""
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        except FileNotFoundError:
            return  # no line yet
        except OSError as error:
            raise Refused(f"{self.path}: could not be written: {error}") from None


def rendered(line: Mapping[str, Any]) -> bytes:
    """Return a line as JSON, with its checksum and a newline at its end."""
    body = json.dumps(line, allow_nan=False, separators=(",", ":")).encode()
    return body[:-1] + (b"," if line else b"") + _tail(body) + b"\n"


def _tail(body: bytes) -> bytes:
    """Return the end of a line with this body: `"crc":"xxxxxxxx"}`."""
    return MARK + f'{zlib.crc32(body):08x}"}}'.encode()
