"""Tables of text: a CSV file with a target column and, for the natural partition, a client column."""

from __future__ import annotations

import csv as reader
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmpi.data.columns import Array, Columns, Kind, shown, targets
from fedmpi.data.errors import ShardError
from fedmpi.job import JobError

CATEGORIES = 1000  # most values of a text column: more are names or keys, not categories


@dataclass(frozen=True)
class Table:
    """The complete rows of a file, column by column, and the line that each row was read from."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]
    dropped: int

    def numbers(self, name: str) -> NDArray[np.float32] | None:
        """A column as float32 `(N,)`; None where it holds text; ShardError where a number is not finite."""
        values = self.columns[name]
        try:
            found = np.array(values, dtype=np.float64) if values else np.zeros(0)
        except ValueError:
            return None
        with np.errstate(over="ignore"):
            single = found.astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(single))
        if len(wrong):
            where = f"{self.path}, line {self.lines[wrong[0]]}, column {name!r}"
            raise ShardError(f"{where}: {values[wrong[0]]} is not a finite float32; say missing=... if it means none")
        return single


def csv(
    source: Path,
    target: str,
    group: str | None = None,
    test_source: Path | None = None,
    sep: str = ",",
    missing: str = "?",
    columns: str | None = None,
    drop: str = "",
    task: Kind | None = None,
) -> Columns:
    """Rows of text: `target` names what is learned, `group` the client column; every other column is a feature.

    Columns of numbers become float32 as they are; text becomes one column per value of the training file, sorted (a
    value that only `test_source` has is all zeros).  Rows with an empty or `missing` cell in a column that is used are
    left out.  Integer or text targets are classes, others are for regression, unless `task` says.  `columns` names the
    columns, separated by commas, where the file has no line of names; those in `drop` are not used.
    """
    if len(sep) != 1:
        raise JobError(f"sep: {sep!r} given; should be one character")
    unused = [name.strip() for name in drop.split(",") if name.strip()]
    header = None if columns is None else [name.strip() for name in columns.split(",")]
    train = _read("source", source, sep, missing, header, unused)
    test = None if test_source is None else _read("test_source", test_source, sep, missing, header, unused)
    for option, name in [("target", target), *([("group", group)] if group else []), *(("drop", n) for n in unused)]:
        if name not in train.columns:
            raise JobError(f"{option}: {name!r} given; {source} has the columns {shown(list(train.columns), 20)}")
    features = [name for name in train.columns if name not in {target, group, *unused}]
    if not features:
        raise ShardError(f"{source}: has no column beside {target!r} to learn from")
    for name in [*features, target]:
        if test is not None and name not in test.columns:
            raise ShardError(f"{test.path}: has no column {name!r}, which {source} has")
    raw = _typed(train.columns[target] + (test.columns[target] if test else []))
    count = len(train.lines)
    (y, y_test), kind, classes = targets(
        f"{source}: column {target!r}", raw[:count], raw[count:] if test else None, task
    )
    if kind == "regression" and not (np.isfinite(y).all() and np.isfinite(y_test).all()):
        raise ShardError(f"{source}: column {target!r} holds a value that is not a finite number")
    blocks = [_feature(name, train, test) for name in features]
    x_test = np.concatenate([block[1] for block in blocks], axis=1)
    files = [train] if test is None else [train, test]
    return Columns(
        x=np.concatenate([block[0] for block in blocks], axis=1),
        y=y,
        task=kind,
        classes=classes,
        test=None if test is None else (x_test, y_test),
        features=tuple(name for block in blocks for name in block[2]),
        groups=None if group is None else np.array(train.columns[group]),
        notes=tuple(f"{t.path}: {t.dropped} rows with missing values left out" for t in files if t.dropped),
    )


def _feature(name: str, train: Table, test: Table | None) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
    """One column in both splits `(N, width)`, and names: of width 1 for numbers, else one per training value."""
    numbers = train.numbers(name)
    if numbers is not None:
        in_test = np.zeros(0, np.float32) if test is None else test.numbers(name)
        if test is not None and in_test is None:
            raise ShardError(f"{test.path}: column {name!r} holds text; in {train.path} it holds numbers alone")
        assert in_test is not None
        return numbers[:, None], in_test[:, None], [name]
    values = sorted(set(train.columns[name]))
    if len(values) > CATEGORIES:
        raise ShardError(f"{train.path}: column {name!r} has {len(values)} different texts, too many; drop={name}")
    hot = np.array(values)
    return (
        (np.array(train.columns[name])[:, None] == hot).astype(np.float32),
        (np.array(test.columns[name] if test else [], dtype=np.str_)[:, None] == hot).astype(np.float32),
        [f"{name}={value}" for value in values],
    )


def _typed(values: list[str]) -> Array:
    """Text as integers where all of it is, else as floats where all of it is."""
    for dtype in (np.int64, np.float64):
        try:
            return np.array(values).astype(dtype)
        except (ValueError, OverflowError):
            continue
    return np.array(values)


def _read(option: str, path: Path, sep: str, missing: str, names: list[str] | None, unused: list[str]) -> Table:
    if not path.is_file():
        raise JobError(f"{option}: there is no file {path}")
    rows, lines, dropped = [], [], 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            cells = reader.reader(file, delimiter=sep, skipinitialspace=True)
            for row in cells:
                row = [cell.strip() for cell in row]
                if not any(row):
                    continue
                if names is None:
                    names = row
                elif len(row) != len(names):
                    where = f"{path}, line {cells.line_num}"
                    raise ShardError(f"{where}: {len(row)} cells where there are {len(names)} columns; sep={sep!r}?")
                elif any(cell in ("", missing) for cell, name in zip(row, names, strict=True) if name not in unused):
                    dropped += 1
                else:
                    rows.append(row)
                    lines.append(cells.line_num)
    except (OSError, UnicodeDecodeError, reader.Error) as error:
        raise ShardError(f"{path}: cannot be read as a table of UTF-8 text: {error}") from None
    if not rows or names is None:
        raise ShardError(f"{path}: has no complete row ({dropped} left out for missing values)")
    if len(set(names)) != len(names) or "" in names:
        raise ShardError(f"{path}: its first line should name each column once: {shown(names)}; columns=... can")
    return Table(path, dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), lines, dropped)
