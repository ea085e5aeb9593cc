"""The target column of a table: classes or numbers to be learned, and a person's line about it."""

from __future__ import annotations

from collections import Counter

import numpy as np

from fedmpi.cells import WHOLE, is_marker
from fedmpi.data.columns import Array, Kind, Pair, shown, targets
from fedmpi.data.errors import ShardError
from fedmpi.data.importers.features import (
    Content,
    counted,
    doubles,
    is_code,
    number_line,
    singles,
)
from fedmpi.data.importers.sheet import Sheet
from fedmpi.data.importers.words import option
from fedmpi.job import JobError

FEW = 20  # different whole numbers that may be classes
INT64 = 2**63

Target = tuple[Pair, str, tuple[str, ...], str]


def target(train: Sheet, test: Sheet | None, name: str, content: Content, task: Kind | None) -> Target:
    """Return the targets of both splits as they are stored, the task, the classes, and a line about them.

    Raises ShardError for a cell that is neither a class nor a number, JobError where the options contradict each other.
    """
    if content.declared and task == "regression":
        raise JobError(f"category: {name!r} given, which --task regression learns as numbers; leave one of them out")
    sheets = [train] if test is None else [train, test]
    if content.kind == "number":
        raw = np.concatenate(_numbers(sheets, name, task))
    else:
        if not content.declared:
            _refuse_markers(sheets, name)
        raw = np.array([cell for sheet in sheets for cell in sheet.columns[name]])
    count = len(train.lines)
    where = f"{train.path}: column {name!r}"
    (y, y_test), task_, classes = targets(where, raw[:count], None if test is None else raw[count:], task)
    return (y, y_test), task_, classes, _told(train, test, name, (y, y_test), task_, classes, task)


def _numbers(sheets: list[Sheet], name: str, task: Kind | None) -> list[Array]:
    """Return each file's numeric targets: whole ones as int64, codes such as 007 as written, others as floats."""
    values: list[Array] = [doubles(sheet, name) for sheet in sheets]
    cells = {cell for sheet in sheets for cell in sheet.columns[name]}
    if task == "regression" or not all(WHOLE.fullmatch(cell) for cell in cells):
        return [singles(sheet, name) for sheet in sheets] if task in (None, "regression") else values
    whole = {cell: int(cell) for cell in cells}
    where = f"{sheets[0].path}: column {name!r}"
    far = next((cell for cell, value in whole.items() if not -INT64 <= value < INT64), None)
    if far is not None:
        fault = (
            f"{far[:40]} is beyond 64 bits; --task regression learns numbers, {option('category', name)} makes classes"
        )
        raise ShardError(f"{where}: {fault}")
    if any(is_code(cell) for cell in cells):
        if len(set(whole.values())) < len(cells):
            fault = "writes one number in several ways, with zeros before it"
            raise ShardError(f"{where}: {fault}; {option('category', name)} makes a class of each way")
        return [np.array(sheet.columns[name]) for sheet in sheets]
    return [np.array([whole[cell] for cell in sheet.columns[name]], dtype=np.int64) for sheet in sheets]


def _refuse_markers(sheets: list[Sheet], name: str) -> None:
    """Refuse NA among classes: nobody but a person knows whether it is one of them."""
    for sheet in sheets:
        row = next((row for row, cell in enumerate(sheet.columns[name]) if is_marker(cell)), None)
        if row is not None:
            cell = sheet.columns[name][row]
            remedy = f"{option('missing', cell)} or {option('category', name)}"
            raise ShardError(f"{sheet.where(row, name)}: {cell!r} may be a missing target or a class; say {remedy}")


def _told(
    train: Sheet, test: Sheet | None, name: str, y: Pair, task: str, classes: tuple[str, ...], asked: Kind | None
) -> str:
    if task == "regression":
        line = f"target: {number_line(train, name)}, for regression"
        values = np.unique(np.concatenate(y))
        if asked is None and len(values) <= FEW and (values == np.rint(values)).all():
            held = shown([f"{value:g}" for value in values])
            line += f"; only whole ones ({held}): if they are classes, --task classification"
        return line
    counts = Counter(y[0].tolist())
    line = f"target: {counted(counts, 'class', 'classes')}: {shown(classes, 10)}"
    if asked is None and counts and "most" in line and all(WHOLE.fullmatch(each) for each in classes):
        line += "; if they are numbers to be learned, --task regression"
    strange = [classes[label] for label in np.unique(y[1]).tolist() if label not in counts]
    if strange and test is not None:
        line += f"; {shown(strange)} in {test.path} alone"
    return line
