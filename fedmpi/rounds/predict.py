"""Examples out of a file, as a model was trained on them, and its predictions into one."""

from __future__ import annotations

import csv
import os
import secrets
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow import Refused
from fedmpi.job import JobError


def examples(source: Path, shape: tuple[int, ...], features: tuple[str, ...]) -> Tensor:
    """`(n, *shape)` of a .csv, .npz (its x) or .npy; Refused, naming the place, for what does not fit.

    A CSV file with a line of names gives its columns by name, in the order of `features`, where these are known.
    """
    try:
        if source.suffix == ".csv":
            x = _table(source, features)
        elif source.suffix in (".npz", ".npy"):
            x = _array(source)
        else:
            raise JobError(f"--source {source}: end it in .csv, .npz or .npy")
    except OSError as error:
        raise Refused(f"{source}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, csv.Error, zipfile.BadZipFile, zlib.error) as error:
        raise Refused(f"{source}: cannot be read: {error}") from None
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
    return torch.from_numpy(np.ascontiguousarray(x.reshape(len(x), *shape), dtype=dtype))


def _array(source: Path) -> NDArray[Any]:
    loaded = np.load(source)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        if "x" not in loaded:
            raise Refused(f"{source}: holds no array x; it has {', '.join(loaded) or 'none'}")
        return np.asarray(loaded["x"])


def _table(source: Path, features: tuple[str, ...]) -> NDArray[np.float32]:
    rows, lines = [], []
    with source.open(newline="", encoding="utf-8-sig") as file:
        cells = csv.reader(file, skipinitialspace=True)
        for row in cells:
            if any(cell.strip() for cell in row):
                rows.append([cell.strip() for cell in row])
                lines.append(cells.line_num)
    if not rows:
        raise Refused(f"{source}: holds no examples")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(rows[0]):
            raise Refused(f"{source}, line {line}: {len(row)} cells where there are {len(rows[0])} columns")
    names = [f"{place + 1}" for place in range(len(rows[0]))]
    order: Sequence[tuple[int, str | None]] = [(place, None) for place in range(len(names))]
    if _is_header(rows[0], features):
        names, rows, lines = rows[0], rows[1:], lines[1:]
        if any(_place(name, names) for name in features) or (features and len(names) != len(features)):
            order = _order(source, names, features)
    x = np.empty((len(rows), len(order)), dtype=np.float32)
    for column, (place, value) in enumerate(order):
        for number, row in enumerate(rows):
            where = f"{source}, line {lines[number]}, column {names[place]}"
            x[number, column] = _number(where, row[place]) if value is None else _hot(where, row[place], value)
    return x


def _is_header(row: Sequence[str], features: tuple[str, ...]) -> bool:
    """Whether a first row names columns; columns may be named by numbers, if all of them are there."""
    try:
        [float(cell) for cell in row]
    except ValueError:
        return True
    return bool(features) and set(features) <= set(row)


def _order(source: Path, names: Sequence[str], features: tuple[str, ...]) -> list[tuple[int, str | None]]:
    """For each feature the column that it comes from, and the value that it stands for if it is one of a text's."""
    found = {name: _place(name, names) for name in features}
    lacking = [name for name, place in found.items() if place is None]
    if lacking:
        more = f", ... ({len(lacking)} in all)" if len(lacking) > 8 else ""
        raise Refused(f"{source}: has no column for {', '.join(lacking[:8])}{more}; it has {', '.join(names[:20])}")
    order = [place for place in found.values() if place is not None]
    twice = sorted({names[place] for place, _ in order if names.count(names[place]) > 1})
    if twice:
        raise Refused(f"{source}: names the column {twice[0]!r} twice")
    return order


def _place(feature: str, names: Sequence[str]) -> tuple[int, str | None] | None:
    if feature in names:
        return names.index(feature), None
    name = feature
    while "=" in name:  # names and values may hold = too: the longest name that is there
        name = name.rpartition("=")[0]
        if name in names:
            return names.index(name), feature[len(name) + 1 :]
    return None


def _number(where: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise Refused(f"{where}: {cell!r} is not a number") from None
    if not abs(value) <= np.finfo(np.float32).max:
        raise Refused(f"{where}: {cell!r} is not a finite float32")
    return value


def _hot(where: str, cell: str, value: str) -> float:
    if not cell:
        raise Refused(f"{where}: is empty")
    return float(cell == value)


def check(out: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed."""
    if out.suffix not in (".csv", ".npz"):
        raise JobError(f"--out {out}: end it in .csv or .npz")
    if not out.parent.is_dir():
        what = "is not a folder" if os.path.lexists(out.parent) else "there is no such folder; make it first"
        raise Refused(f"--out {out}: {out.parent}: {what}")
    if out.is_dir():
        raise Refused(f"--out {out}: is a folder; name a file")


def write(out: Path, columns: dict[str, NDArray[Any]], classes: tuple[str, ...]) -> None:
    """Predictions as .npz or .csv; written aside and renamed, so that at any failure `out` is as it was."""
    aside = out.with_name(f".{out.name}.{secrets.token_hex(6)}")
    try:
        if out.suffix == ".npz":
            with aside.open("wb") as archive:
                np.savez(archive, **columns)  # type: ignore[arg-type]  # numpy's stub has allow_pickle among the names
        else:
            with aside.open("w", newline="", encoding="utf-8") as file:
                _write_csv(file, columns, classes)
        os.replace(aside, out)
    except OSError as error:
        raise Refused(f"--out {out}: cannot be written: {error.strerror or error}") from None
    finally:
        aside.unlink(missing_ok=True)


def _write_csv(file: IO[str], columns: dict[str, NDArray[Any]], classes: tuple[str, ...]) -> None:
    """A line per example: the prediction (a class by its name), then each class's probability."""
    made = columns["prediction"]
    single = made.reshape(len(made), -1)
    names = ["prediction"] if single.shape[1] == 1 else [f"prediction_{place}" for place in range(single.shape[1])]
    probability = columns.get("probability")
    named = classes and probability is not None
    writer = csv.writer(file)
    writer.writerow([*names, *(f"p({name})" for name in classes if probability is not None)])
    for place, row in enumerate(single):
        told = [classes[int(value)] for value in row] if named else [value.item() for value in row]
        chances = [] if probability is None else [f"{value:.6g}" for value in probability[place]]
        writer.writerow([*told, *chances])
