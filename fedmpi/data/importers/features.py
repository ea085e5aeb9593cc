"""A table's feature columns: numbers, categories or nothing, and a person's line about each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedmpi.cells import Missing, is_marker, looks_like, number
from fedmpi.data.columns import shown
from fedmpi.data.errors import ShardError
from fedmpi.data.importers.sheet import Sheet
from fedmpi.data.importers.words import option

CATEGORIES = 1000  # most values of a text column: more are names or keys, not categories
MANY = 10  # values of a category from which on it is odd that most of them are there once
DATE = re.compile(r"[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}|[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{2}")
EXACT = 2**24  # whole numbers up to here are float32 too

Block = tuple[NDArray[np.float32], NDArray[np.float32]]
Feature = tuple[Block, list[str], str]


@dataclass(frozen=True)
class Content:
    """The kind of a column: most of its cells that hold something are numbers, or words, or none holds anything.

    `numbers` counts the cells that are numbers, or that a person would read as some; `declared`: a person named the
    kind.
    """

    kind: Literal["number", "category", "nothing"]
    numbers: int = 0
    declared: bool = False


def look(cells: Iterable[str], missing: Missing, declared: bool = False) -> Content:
    """Return the kind of a training file's column; `declared` makes it a category, whatever its cells look like."""
    counts = Counter(cells)
    present = [cell for cell in counts if not (missing.word(cell, True) if declared else missing.quantity(cell))]
    numbers = sum(counts[cell] for cell in present if number(cell) is not None or looks_like(cell) is not None)
    if not present:
        return Content("nothing")
    if declared or 2 * numbers <= sum(counts[cell] for cell in present):
        return Content("category", numbers, declared)
    return Content("number", numbers)


def lacks(cells: Sequence[str], content: Content, missing: Missing) -> NDArray[np.bool_]:
    """Return a mask `(N,)` of a column's missing cells."""
    known = {
        cell: missing.quantity(cell) if content.kind == "number" else missing.word(cell, content.declared)
        for cell in set(cells)
    }
    return np.array([known[cell] for cell in cells], dtype=np.bool_)


def doubles(sheet: Sheet, name: str) -> NDArray[np.float64]:
    """Return a complete column of numbers `(N,)`; ShardError, with its place and the way out, for any other cell."""
    cells = sheet.columns[name]
    known = {cell: number(cell) for cell in set(cells)}
    wrong = next((row for row, cell in enumerate(cells) if known[cell] is None), None)
    if wrong is not None:
        cell, like = cells[wrong], looks_like(cells[wrong])
        if like:
            fault = f"seems to be {like}; write a plain decimal one"
        else:
            fault = f"is no number, and most of its column are; {option('missing', cell[:60])} if it means none"
        remedy = f"{option('category', name)} if these are words"
        raise ShardError(f"{sheet.where(wrong, name)}: {cell[:60]!r} {fault}; {remedy}")
    return np.array([known[cell] for cell in cells], dtype=np.float64)


def singles(sheet: Sheet, name: str) -> NDArray[np.float32]:
    """Return `doubles` as float32; ShardError for a number too large for it."""
    values = doubles(sheet, name)
    with np.errstate(over="ignore", under="ignore"):
        single = values.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(single))
    if len(wrong):
        cell = sheet.columns[name][wrong[0]]
        fault = f"{cell[:60]} is not a finite float32; {option('missing', cell[:60])} if it means none"
        raise ShardError(f"{sheet.where(int(wrong[0]), name)}: {fault}")
    return single


def numbers(name: str, train: Sheet, test: Sheet | None) -> Feature:
    """Return a column of numbers in both splits `(N, 1)`, its name, and a line about it."""
    in_test = np.zeros(0, np.float32) if test is None else singles(test, name)
    return (singles(train, name)[:, None], in_test[:, None]), [name], number_line(train, name)


def number_line(sheet: Sheet, name: str) -> str:
    """Return a line with the range of a column of numbers, and the loss by float32."""
    values, single = doubles(sheet, name), singles(sheet, name)
    line = f"numbers, {values.min():g} to {values.max():g}"
    rounded = int(((np.abs(values) > EXACT) & (values == np.rint(values)) & (single != values)).sum())
    if rounded:
        line += f"; {rounded} whole ones are rounded to float32"
    gone = int(((single == 0) & (values != 0)).sum())
    if gone:
        line += f"; {gone} are too small for float32 and became 0"
    if any(is_code(cell) for cell in set(sheet.columns[name])):
        line += f"; some begin with 0: if they are codes, {option('category', name)}"
    return line


def is_code(cell: str) -> bool:
    """Whether a number is written with zeros before it, as codes are."""
    return len(cell) > 1 and cell[0] == "0" and cell.isdigit()


def category(name: str, train: Sheet, test: Sheet | None, content: Content) -> Feature:
    """Return a column of words in both splits, with names of its indicators, and a line about it.

    There is one indicator `(N, values)` per value of the training file, sorted.  ShardError for too many values.
    """
    counts = Counter(train.columns[name])
    values = sorted(counts)
    if len(values) > CATEGORIES:
        fault = f"column {name!r} has {len(values)} different texts, too many; {option('drop', name)}"
        raise ShardError(f"{train.path}: {fault}")
    hot = np.array(values)
    words = [train.columns[name], [] if test is None else test.columns[name]]
    first, second = ((np.array(cells, dtype=np.str_)[:, None] == hot).astype(np.float32) for cells in words)
    line = f"category with {counted(counts)}"
    odd = [value for value in values if is_marker(value)]
    if odd:
        line += f", one of them {shown([repr(value) for value in odd])} ({option('missing', odd[0])}, if it means none)"
    if sum(DATE.match(value) is not None for value in values) * 2 > len(values):
        line += f"; they look like dates: {option('drop', name)}, or put numbers in their place"
    if content.numbers:
        line += f"; {content.numbers} of its cells look like numbers"
    if test is not None:
        strange = Counter(word for word in test.columns[name] if word not in counts)
        if strange:
            line += f"; {strange.total()} cells of {test.path} hold others ({shown(sorted(strange))}): all zeros"
    return (first, second), [f"{name}={value}" for value in values], line


def counted(counts: Counter[Any], one: str = "value", more: str = "values") -> str:
    """Return the number of values, and whether most occur once: then they may be keys, dates or odd numbers."""
    once = sum(count == 1 for count in counts.values())
    line = f"{len(counts)} {one if len(counts) == 1 else more}"
    return f"{line}, most of them once" if len(counts) >= MANY and 2 * once > len(counts) else line
