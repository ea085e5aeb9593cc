"""The journal: a line of JSON per round, which every report reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmpi.flow import Refused


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal; a torn last line, which a kill may leave, is left out.  Refused for any other fault."""
    try:
        texts = path.read_bytes().split(b"\n")
    except OSError as error:
        raise Refused(f"{path}: cannot be read: {error}") from None
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            if text:
                lines.append(json.loads(text))
        except ValueError:  # no JSON, or no UTF-8
            if number < len(texts):
                raise Refused(f"{path}: line {number} is not JSON; the file was changed or damaged") from None
    return lines


class Journal:
    """`journal.jsonl`, which grows by whole lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut(self, round: int) -> None:
        """Keep the lines of rounds before `round` alone: what follows is told again.  Atomic."""
        if not self.path.exists():
            return
        kept = [line for line in read(self.path) if line["round"] < round]
        aside = self.path.with_name(".journal.part")
        with aside.open("w", encoding="utf-8") as file:
            file.writelines(_text(line) for line in kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self.path)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line.  Refused where the disk does not take it."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_text(line))
        except OSError as error:
            raise Refused(f"{self.path}: could not be written: {error}") from None

    def sync(self) -> None:
        """Let the lines reach the disk, before a checkpoint that counts on them."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n"
