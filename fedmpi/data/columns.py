"""The columns of a data set as an importer gives them, before they are dealt to clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedmpi.data.errors import ShardError

Array = NDArray[Any]
Pair = tuple[Array, Array]
Kind = Literal["classification", "binary", "regression"]

TASKS = ("classification", "binary", "regression", "next-character")
BLOCK = 2**24  # values looked at at once


@dataclass(frozen=True)
class Columns:
    """Examples `x (N, ...)` with targets `y (N, ...)`.

    A model sees `scale` times a stored value, so images stay one byte a pixel.  `test` is a split of the set's own,
    `groups (N,)` names each example's owner.  `notes` are lines for a person about rows left out, `became` a line about
    the reading of each column of a file.  `features` names the columns of x: a number's by its name, one of a text's
    values as `name=value`.
    """

    x: Array
    y: Array
    task: str
    classes: tuple[str, ...] = ()
    test: Pair | None = None
    groups: Array | None = None
    scale: float = 1.0
    notes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    became: tuple[str, ...] = ()


def targets(where: str, train: Array, test: Array | None, task: Kind | None) -> tuple[Pair, str, tuple[str, ...]]:
    """Return raw targets as stored ones: `((train, test), task, classes)`, the test array empty without a test split.

    Integers and text become classes `0 .. K-1` in sorted order, known by both splits, unless `task` is regression;
    floating targets become float32 for regression, unless `task` asks for classes.  Raises ShardError where the targets
    cannot be of this `task`.
    """
    parts = [flat(train), flat(train[:0] if test is None else test)]
    if parts[0].shape[1:] != parts[1].shape[1:]:
        shapes = f"targets have shape {parts[0].shape[1:]} per example, those of the test split {parts[1].shape[1:]}"
        raise ShardError(f"{where}: {shapes}; should be alike")
    every = np.concatenate(parts)
    if task == "regression" or (task is None and every.dtype.kind == "f"):
        if every.dtype.kind not in "biuf":
            content = (
                f"text, such as {str(every[0])!r}" if every.dtype.kind in "SU" and every.size else str(every.dtype)
            )
            raise ShardError(f"{where}: holds {content}; regression needs numbers")
        return (parts[0].astype(np.float32), parts[1].astype(np.float32)), "regression", ()
    if every.ndim != 1 or every.dtype.kind not in "biufSU":
        raise ShardError(f"{where}: {every.dtype} of shape {train.shape} given; should be one label per example")
    finite(where, every)
    names, codes = np.unique(every, return_inverse=True)
    classes = tuple(_text(name) for name in names)
    if task == "binary" and len(classes) != 2:
        raise ShardError(f"{where}: holds {len(classes)} classes ({shown(classes)}); binary needs two")
    codes = codes.astype(np.int64)
    return (codes[: len(parts[0])], codes[len(parts[0]) :]), task or "classification", classes


def finite(where: str, array: Array) -> None:
    """Raise ShardError, with the number of rows, where floating numbers `(N, ...)` are NaN or infinite."""
    if array.dtype.kind != "f":
        return
    step = max(1, BLOCK // max(1, array[:1].size))  # in blocks: a mask of it all may be large
    blocks = (array[start : start + step] for start in range(0, len(array), step))
    wrong = sum(int((~np.isfinite(block.reshape(len(block), -1)).all(axis=1)).sum()) for block in blocks if block.size)
    if wrong:
        fault = f"{wrong} of {len(array)} rows hold NaN or infinity"
        raise ShardError(f"{where}: {fault}; leave these rows out, or put numbers in their place")


def flat(y: Array) -> Array:
    """Return targets of one value each as `(N,)`, however they were stored: some sets say `(N, 1)`."""
    return y.reshape(len(y)) if y.ndim == 2 and y.shape[1] == 1 else y


def shown(names: Sequence[str], most: int = 8) -> str:
    """Return a list for a message: the first names, and the number of all where there are more."""
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.floating) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)  # as many digits as tell it from every other: rounded, two classes could have one name
