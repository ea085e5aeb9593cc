"""A file of separated text as named columns of cells: its line of names, columns without one, commas at lines' ends."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmpi.cells import WHOLE, number
from fedmpi.data.columns import shown
from fedmpi.data.errors import ShardError
from fedmpi.data.importers.words import option
from fedmpi.job import JobError

Row = tuple[int, list[str]]  # the line of the file that it ends in, and its cells

UNNAMED = re.compile(r"Unnamed: [0-9.]+")  # what pandas calls a column without a name


@dataclass(frozen=True)
class Sheet:
    """The rows of a file, column by column, and the line of the file where each row ends.

    A column without a name is called as pandas calls it, `Unnamed: 0` for the first.  `notes` are lines about the
    reading of the file.
    """

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]
    nameless: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def where(self, row: int, name: str) -> str:
        """Return a cell's place in the file, for a message."""
        return f"{self.path}, line {self.lines[row]}, column {name!r}"

    def only(self, keep: NDArray[np.bool_]) -> Sheet:
        """Return the sheet of the rows in the mask `(N,)`."""
        rows = np.flatnonzero(keep).tolist()
        columns = {name: [cells[row] for row in rows] for name, cells in self.columns.items()}
        return replace(self, columns=columns, lines=[self.lines[row] for row in rows])

    def leaves_out(self, name: str) -> str | None:
        """Return why a column without a name of its own is no feature; None where it may be one.

        ShardError for a nameless column that is neither an index nor empty.
        """
        cells = self.columns[name]
        if name in self.nameless and not any(cells):
            return "it has no name and no cell: a comma at the end of lines"
        first = name == next(iter(self.columns))
        if UNNAMED.fullmatch(name) and (first or name not in self.nameless) and len(set(cells)) == len(cells):
            if all(WHOLE.fullmatch(cell) for cell in cells):
                return "an index, as pandas writes it: no name, and a number of its own for each row"
            if name in self.nameless and all(cell and number(cell) is None for cell in cells):
                return "names of rows: no name itself, and another text in each row"
        if name not in self.nameless:
            return None
        place = list(self.columns).index(name) + 1
        raise ShardError(f"{self.path}: column {place} has no name; give it one there, or {option('drop', name)}")


def rows(path: Path, sep: str) -> Iterator[Row]:
    """Return a file's rows without blank ones, cells without spaces around them; ShardError for no table."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=sep, skipinitialspace=True, strict=True)
            try:
                for cells in reader:
                    row = [cell.strip() for cell in cells]
                    if any("\0" in cell for cell in row):
                        raise ShardError(f"{path}, line {reader.line_num}: holds a zero character (NUL); take it out")
                    if any(row):
                        yield reader.line_num, row
            except csv.Error as error:
                fault = {"unexpected end of data": "a quotation mark is never closed"}.get(str(error), str(error))
                raise ShardError(f"{path}, line {reader.line_num}: cannot be read as a table: {fault}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"{path}: cannot be read as a table of UTF-8 text: {error}") from None


def read_sheet(option: str, path: Path, sep: str, names: Sequence[str] | None) -> Sheet:
    """Return a whole file; `names` where it has no line of names, or one that repeats them."""
    if not path.is_file():
        raise JobError(f"{option}: there is no file {path}")
    body = list(rows(path, sep))
    notes = []
    if names is None:
        if not body:
            raise ShardError(f"{path}: has no complete row: it is empty")
        names = body.pop(0)[1]
    elif body and _repeats(path, body[0][1], names):
        body.pop(0)
        notes.append(f"{path}: its first line holds the columns' names, and is no row")
    count = _width(path, sep, body, names)
    if count != len(names) or any(len(cells) != count for _, cells in body):
        notes.append(f"{path}: lines end in a comma, behind which there is nothing")
    names = names[:count]
    called = [name or f"Unnamed: {place}" for place, name in enumerate(names)]
    if len(set(called)) != len(called) or not any(names):
        fault = f"its first line should name each column once: {shown(called)}"
        raise ShardError(f"{path}: {fault}; --columns can")
    if not body:
        raise ShardError(f"{path}: has no complete row: it has a line of names alone")
    cells = [list(column) for column in zip(*(row[:count] for _, row in body), strict=True)]
    nameless = frozenset(name for name, given in zip(called, names, strict=True) if not given)
    lines = [line for line, _ in body]
    return Sheet(path, dict(zip(called, cells, strict=True)), lines, nameless, tuple(notes))


def _repeats(path: Path, first: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether a first row is a line of names, though the columns' names were given."""
    same = [cell for cell, name in zip(first, names, strict=False) if cell and cell == name]
    if same and 2 * len(same) < sum(bool(cell) for cell in first):
        fault = f"holds {shown(same)}, as --columns does: it seems to be a line of names"
        raise ShardError(f"{path}, line 1: {fault}; give its names as they are, or leave --columns out")
    return bool(same)


def _width(path: Path, sep: str, body: Sequence[Row], names: Sequence[str]) -> int:
    """Return the number of columns, without an empty one behind every line's last comma; ShardError for other lines."""
    sizes = {len(cells) for _, cells in body}
    if sizes == {len(names) + 1} and not any(cells[-1] for _, cells in body):
        return len(names)  # every row ends in a comma, the line of names does not
    if sizes == {len(names) - 1} and len(names) > 1 and not names[-1]:
        return len(names) - 1  # the line of names alone does
    for line, cells in body:
        if len(cells) != len(names):
            why = f"--sep {sep!r}?"
            if len(cells) == len(names) + 1 and not cells[-1]:
                why = "the last is empty: a trailing comma, which other lines lack"
            elif not names[-1]:
                why = "the line of names ends in a comma"
            raise ShardError(f"{path}, line {line}: {len(cells)} cells where there are {len(names)} columns; {why}")
    return len(names)
