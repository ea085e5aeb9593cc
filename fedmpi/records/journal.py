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
    """The lines of a journal, without their checksums; a torn last line, which a kill may leave, is left out and told.

    A line that goes back to an earlier round takes the place of what followed that.  Refused for any other fault; told
    where there are no checksums.
    """
    lines, sealed, torn = sealed_journal(path)
    if not sealed:
        unsealed(path)
    if torn:
        note(f"{path}: {TORN}")
    return lines


def sealed_journal(path: Path) -> tuple[list[dict[str, Any]], bool, bool]:
    """The same, whether the lines have checksums (all of them, or none), whether the last is torn; tells nothing."""
    lines: list[dict[str, Any]] = []
    sealed: list[bool] = []
    torn = False
    try:
        ordinary(path)
        with path.open("rb") as file:
            for number, raw in enumerate(iter(lambda: file.readline(LARGEST), b""), 1):
                text = raw.removesuffix(b"\n")
                try:
                    line, whole = _line(text) if text else (None, None)
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


def _line(text: bytes) -> tuple[dict[str, Any], bool]:
    """A line, and whether it has a checksum.  ValueError where it is none, or the checksum differs."""
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
    """The round that a line is of; 0 where it does not say."""
    round = line.get("round")
    return round if type(round) is int else 0


class Journal:
    """`journal.jsonl`, which grows by whole lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut(self, round: int) -> None:
        """Keep the lines of rounds before `round` alone: what follows is told again.  Atomic."""
        if not self.path.exists():
            return
        kept = [line for line in sealed_journal(self.path)[0] if line["round"] < round]
        aside = self.path.with_name(".journal.part")
        with aside.open("wb") as file:
            file.writelines(_text(line) for line in kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self.path)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line.  Refused where the disk does not take it."""
        text = _text(line)
        try:
            with self.path.open("ab") as file:
                file.write(text)
        except OSError as error:
            raise Refused(f"{self.path}: could not be written: {error}") from None

    def sync(self) -> None:
        """Let the lines reach the disk, before a checkpoint that counts on them."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())


def _text(line: Mapping[str, Any]) -> bytes:
    body = json.dumps(line, allow_nan=False, separators=(",", ":")).encode()
    return body[:-1] + (b"," if line else b"") + _tail(body) + b"\n"


def _tail(body: bytes) -> bytes:
    return MARK + f'{zlib.crc32(body):08x}"}}'.encode()
