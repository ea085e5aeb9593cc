"""Shard sets written from a script's own arrays, client by client."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedmpi.data.client_rows import ClientRows, Rows, offsets, split
from fedmpi.data.columns import TASKS, Array, finite, shown
from fedmpi.data.store import writer
from fedmpi.data.store.shards import ShardSet
from fedmpi.flow import Where
from fedmpi.job import JobError, nearest


class Chained:
    """Arrays `(n_k, ...)` one behind the other, as one `(N, ...)` without a copy of them all."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self.arrays = arrays
        self.starts = offsets([len(array) for array in arrays])
        self.shape = (int(self.starts[-1]), *arrays[0].shape[1:])
        self.dtype = arrays[0].dtype

    def __getitem__(self, rows: Rows, /) -> Array:
        """Return rows `(n,)` by number, at least one; quickest where those of one array come together."""
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        cut = np.flatnonzero(np.diff(owner)) + 1
        pieces = [
            self.arrays[owner[start]][rows[start:stop] - self.starts[owner[start]]]
            for start, stop in zip([0, *cut], [*cut, len(rows)], strict=True)
        ]
        return np.concatenate(pieces)


def write_shards(
    folder: Where,
    clients: Mapping[str, Sequence[Any]] | Iterable[tuple[str, Sequence[Any]]],
    *,
    test: Sequence[Any] | None = None,
    task: str | None = None,
    classes: Sequence[str] | None = None,
    scale: float = 1.0,
    holdout: float | None = None,
    files: int = 1,
    seed: int = 0,
    overwrite: bool = False,
) -> ShardSet:
    """Write a shard set of a script's own arrays, and open it.

    `clients` gives each client's id its arrays `(x, y)`, or `(x, y, x_heldout, y_heldout)` with its own held-out
    examples: x `(n, ...)` and y `(n, ...)`, NumPy arrays or torch's, of one shape and type throughout.  `test` is a
    split `(x, y)` of the set's own.  `holdout` is the part of every client's examples to hold out: where not given, a
    fifth, or none where there is a test split or clients bring held-out arrays.  A model sees `scale` times x.  `task`
    is classification for integer y and regression for floating y where not given.  Labels are `0 .. K-1` where
    `classes` names them; where not, the labels present become those, in their order, named by their numbers, as `fedmpi
    shard` does it, with a warning.  The data are dealt to `files` HDF5 files.

    Raises JobError, naming the client, for unfit arrays; ShardError for numbers that are not finite, or where the disk
    refuses.
    """
    writer.check(folder, files, holdout, overwrite)
    listed = _listed(clients)
    if not listed:
        raise JobError("clients: none given; a shard set needs at least one")
    ids = [name for name, _ in listed]
    train, aside = [], []
    for name, arrays in listed:
        train.append(_pair(f"client {name!r}", arrays[:2]))
        if len(arrays) != 2:
            aside.append(_pair(f"client {name!r}, held out", arrays[2:]))
    if aside and (len(aside) != len(train) or holdout is not None):
        raise JobError("clients: give every client held-out arrays, (x, y, x_heldout, y_heldout), or give holdout")
    own = None if test is None else _pair("test", test)
    _check_alike(ids, train, [*aside, *([] if own is None else [own])])
    task = _task(task, train[0][1])
    relabelled = _relabelled([*train, *aside, *([] if own is None else [own])], task, classes)
    notes = []
    if relabelled is not None:
        pairs, classes, note = relabelled
        train, aside = pairs[: len(train)], pairs[len(train) : len(train) + len(aside)]
        own = None if own is None else pairs[-1]
        notes.append(note)
        warnings.warn(note, stacklevel=2)
    x, y = (Chained([pair[place] for pair in [*train, *aside]]) for place in range(2))
    every = [pair[1] for pair in [*train, *aside, *([] if own is None else [own])]]
    if task == "next-character":  # what is read and what follows are of one vocabulary
        every += [pair[0] for pair in [*train, *aside]]
    names = _classes(task, every, classes)

    sizes = np.array([len(pair[1]) for pair in train], dtype=np.int64)
    rows = np.arange(sizes.sum())
    if aside:
        bounds = offsets([len(pair[1]) for pair in aside])
        dealt = ClientRows(rows, offsets(sizes))
        heldout = ClientRows(np.arange(len(rows), len(rows) + bounds[-1]), bounds)
    else:
        fraction = (0.2 if own is None else 0.0) if holdout is None else holdout
        dealt, heldout = split(rows, sizes, fraction, np.random.default_rng((seed, 2)))
    return writer.write(
        folder,
        ids,
        writer.Source(x, y, dealt, heldout, own),
        task=task,
        classes=names,
        scale=scale,
        files=files,
        created={"source": "arrays", "clients": len(ids), "holdout": holdout, "seed": seed}
        | ({"notes": notes} if notes else {}),
        overwrite=overwrite,
    )


def _listed(clients: object) -> list[tuple[str, Sequence[Any]]]:
    """Return clients as `(id, arrays)`; JobError for one without an id, or without a sequence of arrays."""
    wanted = "give a dict of (x, y) by id, or pairs (id, (x, y))"
    if isinstance(clients, (str, np.ndarray)) or not isinstance(clients, (Mapping, Iterable)):
        raise JobError(f"clients: a {type(clients).__name__} given; {wanted}")
    listed = []
    for place, each in enumerate(clients.items() if isinstance(clients, Mapping) else clients):
        if not isinstance(each, (tuple, list)) or len(each) != 2:
            kind = f"a {type(each).__name__}" + (f" of {len(each)}" if isinstance(each, (tuple, list)) else "")
            raise JobError(f"clients: number {place} is {kind}; {wanted}")
        name, arrays = each
        if not isinstance(name, (str, int, np.integer)) or isinstance(name, bool):
            raise JobError(f"clients: number {place} has {_what(name)} where its id should be; {wanted}")
        if isinstance(arrays, str) or not isinstance(arrays, Sequence):
            raise JobError(f"client {str(name)!r}: {_what(arrays)} given; should be (x, y)")
        listed.append((str(name), arrays))
    return listed


def _what(value: object) -> str:
    """Describe a value in few words: an array's could fill a screen."""
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")


def _pair(where: str, arrays: Sequence[Any]) -> tuple[Array, Array]:
    if not isinstance(arrays, Sequence) or len(arrays) != 2:
        given = f"{len(arrays)} arrays" if isinstance(arrays, Sequence) else _what(arrays)
        raise JobError(f"{where}: {given} given; should be (x, y) or (x, y, x_heldout, y_heldout)")
    try:
        x, y = (np.asarray(array) for array in arrays)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists; tensors on a GPU, or of a type of their own
        fault = " ".join(str(error).split())[:200]
        raise JobError(f"{where}: x or y is no array of numbers: {fault}") from None
    if not x.ndim or not y.ndim or len(x) != len(y):
        raise JobError(f"{where}: x has shape {x.shape}, y {y.shape}; both should be one row per example")
    finite(f"{where}: x", x)
    finite(f"{where}: y", y)
    return x, y


Pairs = list[tuple[Array, Array]]


def _relabelled(pairs: Pairs, task: str, classes: Sequence[str] | None) -> tuple[Pairs, tuple[str, ...], str] | None:
    """Return the pairs with labels `0 .. K-1`, their names, and a note; None where the labels stay as they are.

    A label that nobody has would be an output that nothing trains: labels from 1 made one.
    """
    if classes is not None or task not in ("classification", "binary") or any(y.ndim != 1 for _, y in pairs):
        return None
    labels = np.unique(np.concatenate([np.unique(y) for _, y in pairs])).astype(object)
    if task == "binary" and set(labels) <= {0, 1}:
        return None
    if labels.tolist() == list(range(len(labels))) or (len(labels) and labels[0] < 0):
        return None  # a negative one may mean that there is none: it is refused, as classes of a person's own are
    if task == "binary" and len(labels) != 2:
        raise JobError(f"y: holds {len(labels)} labels ({shown([str(label) for label in labels])}); binary takes two")
    names = tuple(str(int(label)) for label in labels)
    relabelled = [(x, np.searchsorted(labels.astype(y.dtype), y)) for x, y in pairs]
    note = f"labels {shown(names)} are stored as 0 to {len(names) - 1}, and name the classes; classes=... names others"
    return relabelled, names, note


def _check_alike(ids: Sequence[str], train: Sequence[Any], others: Sequence[Any]) -> None:
    first = train[0]
    for place, pair in enumerate([*train, *others]):
        for column, array, model in zip("xy", pair, first, strict=True):
            if array.shape[1:] != model.shape[1:] or array.dtype != model.dtype:
                where = f"client {ids[place]!r}" if place < len(ids) else "held-out or test examples"
                kind = f"{array.dtype} of shape {array.shape[1:]} per example"
                wanted = f"client {ids[0]!r} has {model.dtype} of shape {model.shape[1:]}"
                raise JobError(f"{where}: {column} is {kind}, where {wanted}")


def _task(task: str | None, y: Array) -> str:
    if task is None:
        if y.dtype.kind in "biu" and y.ndim > 1:
            raise JobError(f"task: is missing; integer y of shape {y.shape[1:]} per example could be several")
        return "regression" if y.dtype.kind == "f" else "classification"
    if task not in TASKS and ":" not in task:
        raise JobError(
            f"task: {task!r} given; there are {', '.join(TASKS)}, or package.module:Task{nearest(task, TASKS)}"
        )
    if task in TASKS and task != "regression" and y.dtype.kind not in "biu":
        raise JobError(f"task: {task} given; it needs integer y, and this is {y.dtype}")
    return task


def _classes(task: str, every: Sequence[Array], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the labels; where not given, their numbers up to the largest."""
    if classes is not None and len(set(map(str, classes))) < len(classes):
        raise JobError(f"classes: {shown([str(name) for name in classes])} given; each should be another name")
    if task == "regression" or every[0].dtype.kind not in "biu":
        return tuple(classes or ())
    full = [y for y in every if y.size]
    low, high = min((int(y.min()) for y in full), default=0), max((int(y.max()) for y in full), default=0)
    least = 2 if task == "binary" else 1
    count = max(high + 1, least) if classes is None else len(classes)
    if low < 0 or high >= count or (task == "binary" and count != 2):
        remedy = "; leave out what has no label, or number labels from 0" if low < 0 else ""
        raise JobError(f"y: holds {low} to {high}; {task} of {count} classes takes 0 to {count - 1}{remedy}")
    return tuple(str(label) for label in range(count)) if classes is None else tuple(str(name) for name in classes)
