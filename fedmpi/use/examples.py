"""Examples out of a file, in the form of the training examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi import cells
from fedmpi.data.importers import archive, sheet
from fedmpi.flow import Refused
from fedmpi.job import JobError, regular
from fedmpi.tell import note


def examples(
    source: Path, shape: tuple[int, ...], features: tuple[str, ...], tell: Callable[[str], None] = note
) -> Tensor:
    """Return the examples `(n, *shape)` of a .csv, .npz (its x) or .npy; Refused, naming the place, where one is unfit.

    A CSV file with a line of names gives its columns by name, in the order of `features`, where these are known; its
    cells are read as in a training file.  `tell` is called with a line about each thing taken on trust.
    """
    try:
        regular(source)
        if source.suffix == ".csv":
            x = _table(source, features, tell)
        elif source.suffix in (".npz", ".npy"):
            x = _array(source)
        else:
            raise JobError(f"--source {source}: end it in .csv, .npz or .npy")
    except OSError as error:
        raise Refused(f"{source}: cannot be read: {error.strerror or error}") from None
    if x.dtype.kind not in "biuf":
        raise Refused(f"{source}: x holds {x.dtype}; should hold numbers")
    if not x.ndim or not len(x):
        raise Refused(f"{source}: holds no examples")
    if x[0].size != int(np.prod(shape)):
        raise Refused(f"{source}: an example has {x[0].size} values; the model takes x {shape}")
    wrong = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    if len(wrong):
        raise Refused(f"{source}: {len(wrong)} examples hold NaN or infinity, the first is number {wrong[0]}")
    # torch has native byte order alone, and hardly computes with unsigned integers wider than a byte
    dtype = np.dtype(np.int64) if x.dtype.kind == "u" and x.itemsize > 1 else x.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(x.reshape(len(x), *shape), dtype=dtype, order="C"))  # writable, as torch wants it


def _array(source: Path) -> NDArray[Any]:
    """Return the array of a .npy, or the x of a .npz."""
    if source.suffix == ".npy":
        return archive.single(source)
    loaded = archive.read_archive(source)
    if "x" not in loaded:
        raise Refused(f"{source}: holds no array x; it has {', '.join(loaded) or 'none'}")
    return loaded["x"]


def _table(source: Path, features: tuple[str, ...], tell: Callable[[str], None]) -> NDArray[np.float32]:
    """Return the examples `(n, columns)` of a CSV file; Refused with the line and the column of an unfit cell."""
    table = list(sheet.rows(source, ","))
    if not table:
        raise Refused(f"{source}: holds no examples")
    lines, rows = [line for line, _ in table], [row for _, row in table]
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(rows[0]):
            hint = "; a comma at the end of the line?" if not row[-1] or not rows[0][-1] else ""
            raise Refused(f"{source}, line {line}: {len(row)} cells where there are {len(rows[0])} columns{hint}")
    names = [f"{place + 1}" for place in range(len(rows[0]))]
    order: Sequence[tuple[int, str | None]] = [(place, None) for place in range(len(names))]
    if _is_header(source, rows[0], features):
        names, rows, lines = rows[0], rows[1:], lines[1:]
        if any(_place(name, names) for name in features) or (features and len(names) != len(features)):
            order = _order(source, names, features)
        elif features:
            tell(f"{source}: names none of the columns that the model knows; they are taken in its own order")
    x = np.empty((len(rows), len(order)), dtype=np.float32)
    words: dict[int, set[str]] = {}  # of each column of words, those that the model knows
    for place, value in order:
        if value is not None:
            words.setdefault(place, set()).add(value)
    for column, (place, value) in enumerate(order):
        for number, row in enumerate(rows):
            where = f"{source}, line {lines[number]}, column {names[place]}"
            cell = row[place]
            x[number, column] = _number(where, cell) if value is None else _hot(where, cell, value, words[place])
    for place, known in words.items():
        strange = Counter(row[place] for row in rows if row[place] not in known)
        if strange:
            shown = ", ".join(map(repr, sorted(strange)[:5]))
            tell(
                f"{source}, column {names[place]}: {strange.total()} cells hold what no training example did ({shown})"
            )
    return x


def _is_header(source: Path, row: Sequence[str], features: tuple[str, ...]) -> bool:
    """Return whether a first row names columns; their names may be numbers, if all of them are there."""
    numbers = [cell for cell in row if cells.number(cell) is not None]
    if not features and 0 < len(numbers) < len(row):  # an example with an odd cell would be left out without a word
        odd = next(cell for cell in row if cells.number(cell) is None)
        raise Refused(f"{source}: its first row is neither names nor numbers: it holds {numbers[0]!r} and {odd!r}")
    return len(numbers) < len(row) or (bool(features) and set(features) <= set(row))


def _order(source: Path, names: Sequence[str], features: tuple[str, ...]) -> list[tuple[int, str | None]]:
    """Return each feature's column, and its value of that column where it is one of a text's; Refused without one."""
    places = {name: _place(name, names) for name in features}
    lacking = [name for name, place in places.items() if place is None]
    if lacking:
        more = f", ... ({len(lacking)} in all)" if len(lacking) > 8 else ""
        raise Refused(f"{source}: has no column for {', '.join(lacking[:8])}{more}; it has {', '.join(names[:20])}")
    order = [place for place in places.values() if place is not None]
    twice = sorted({names[place] for place, _ in order if names.count(names[place]) > 1})
    if twice:
        raise Refused(f"{source}: names the column {twice[0]!r} twice")
    return order


def _place(feature: str, names: Sequence[str]) -> tuple[int, str | None] | None:
    """Return a feature's column among `names`, and its value where it is `name=value`; None without such a column."""
    if feature in names:
        return names.index(feature), None
    name = feature
    while "=" in name:  # names and values may hold = too: the longest name that is there
        name = name.rpartition("=")[0]
        if name in names:
            return names.index(name), feature[len(name) + 1 :]
    return None


def _number(where: str, cell: str) -> float:
    """Return a cell's number; Refused, with the remedy, where it is none that float32 holds."""
    value = cells.number(cell)
    if value is None:
        like = cells.looks_like(cell)
        fault = "is a missing value" if cells.is_marker(cell) else f"seems to be {like}" if like else "is not a number"
        remedy = "leave the row out, or put a number there" if cells.is_marker(cell) else "write a plain decimal number"
        raise Refused(f"{where}: {cell!r} {fault}; {remedy}")
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise Refused(f"{where}: {cell!r} is not a finite float32")
    return value


def _hot(where: str, cell: str, value: str, known: set[str]) -> float:
    """Return 1 where a cell holds `value`, else 0; Refused for a missing value, unless it is one of those `known`."""
    if cell not in known and cells.is_marker(cell):
        raise Refused(f"{where}: {f'{cell!r} is a missing value' if cell else 'is empty'}; leave the row out")
    return float(cell == value)
