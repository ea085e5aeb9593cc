"""Shard sets are written aside, synced and renamed: an unfinished one is never opened."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedmpi.data.client_rows import ClientRows, cuts
from fedmpi.data.columns import Pair
from fedmpi.data.errors import ShardError
from fedmpi.data.store.file_writer import Rowed, fixed, label_range, stored, stored_target, sync, write_file
from fedmpi.data.store.manifest import MANIFEST, SCHEMA, Manifest, text
from fedmpi.data.store.shards import ShardSet
from fedmpi.flow import Where
from fedmpi.job import JobError


@dataclass(frozen=True)
class Source:
    """The contents of a new shard set: columns, training rows, held-out rows, a test split of its own."""

    x: Rowed
    y: Rowed
    train: ClientRows
    heldout: ClientRows
    test: Pair | None = None


def check(out: Where, files: int, holdout: float | None, overwrite: bool) -> None:
    """Refuse impossible arguments before any data are read: JobError."""
    if files < 1:
        raise JobError(f"files: {files} given; should be at least 1")
    if holdout is not None and not 0 <= holdout < 1:
        raise JobError(f"holdout: {holdout} given; should be at least 0 and less than 1")
    folder = Path(out)
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise JobError(f"out: {folder} is there already; give --overwrite to replace it")
    if not folder.is_dir() or any(not _ours(path.name) for path in folder.iterdir()):
        raise JobError(f"out: {folder} holds other things than a shard set; remove it yourself, or choose another")


def write(
    out: Where,
    ids: Sequence[str],
    source: Source,
    *,
    task: str,
    classes: tuple[str, ...],
    scale: float,
    files: int,
    created: Mapping[str, Any],
    overwrite: bool,
    features: tuple[str, ...] = (),
    written: Callable[[int, int], None] | None = None,
) -> ShardSet:
    """Write a shard set and open it.  At any failure the folder is as it was before.

    `written` is called with the number of examples written so far, and of all.
    """
    if files > len(ids):
        raise JobError(f"files: {files} given; there are only {len(ids)} clients to deal to them")
    _check_ids(ids)
    if not math.isfinite(scale) or not scale:
        raise JobError(f"scale: {scale} given; x times it is what a model sees, so it should be finite and not 0")
    folder = Path(os.path.realpath(out))
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
    try:
        aside.mkdir(parents=True)
        manifest = _write_all(
            aside, ids, source, task, classes, scale, files, created, written or (lambda rows, total: None)
        )
        manifest = manifest.model_copy(update={"features": features})
        _write_text(aside / MANIFEST, text(manifest))
        sync(aside)
        _move(aside, folder, overwrite)
    except (OSError, RuntimeError) as error:  # a full disk is an OSError, or a RuntimeError when HDF5 meets it
        raise ShardError(f"{out}: cannot be written: {_reason(error)}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return ShardSet.open(out)


def _reason(error: OSError | RuntimeError) -> str:
    """Return the system's own words: HDF5 wraps them in lines of addresses and file numbers."""
    reason = re.search(r"error message = '([^']*)'", str(error))
    if reason:
        return reason[1]
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error).partition("\n")[0].partition(", buf")[0]


def _check_ids(ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in ids:
        if not name or "\0" in name or (not name.isascii() and name.encode(errors="ignore").decode() != name):
            raise JobError(f"clients: {name!r} cannot be a client's id; it should be UTF-8 without a zero character")
        if name in seen:
            raise JobError(f"clients: the id {name!r} is given twice")
        seen.add(name)


def _write_all(
    folder: Path,
    ids: Sequence[str],
    source: Source,
    task: str,
    classes: tuple[str, ...],
    scale: float,
    files: int,
    created: Mapping[str, Any],
    written: Callable[[int, int], None],
) -> Manifest:
    x_type, y_type = stored(source.x.dtype, "x"), stored_target(source.y.dtype, task)
    names = np.array([name.encode() for name in ids], dtype=np.bytes_)
    train, heldout, test = source.train, source.heldout, source.test
    attributes: dict[str, Any] = {
        "schema_version": SCHEMA,
        "task": fixed(task),
        "scale": scale,
        "classes": fixed(classes),
    }
    attributes["created"] = fixed(json.dumps(created, sort_keys=True))
    done, every_ = 0, len(train.rows) + len(heldout.rows) + (len(test[0]) if test else 0)

    def step(rows: int) -> None:
        nonlocal done
        done += rows
        written(done, every_)

    bounds = cuts(train.offsets, files)
    entries = []
    for number, (first, last) in enumerate(itertools.pairwise(bounds)):
        start, stop = train.offsets[first], train.offsets[last]
        parts = [(source.x, source.y, train.rows[start:stop])]
        path = folder / f"train-{number:05d}-of-{files:05d}.h5"
        own = train.offsets[first : last + 1] - start
        entries.append(write_file(path, names[first:last], own, parts, (x_type, y_type), attributes, step))
    parts = [(source.x, source.y, heldout.rows)]
    total = len(heldout.rows)
    central = (0, total)
    if test is not None:
        parts.append((*test, np.arange(len(test[0]))))
        central = (total, total + len(test[0]))
    attributes["central"] = central
    every = [(source.y, train.rows), (source.y, heldout.rows)]
    if test is not None:
        every.append((test[1], np.arange(len(test[1]))))
    tested = write_file(folder / "test.h5", names, heldout.offsets, parts, (x_type, y_type), attributes, step)
    return Manifest(
        task=task,
        classes=classes,
        scale=scale,
        shape=source.x.shape[1:],
        dtype=x_type.name,
        target_shape=source.y.shape[1:],
        target_dtype=y_type.name,
        clients=len(ids),
        examples=len(train.rows),
        largest=int(np.diff(train.offsets).max()),
        heldout=total,
        central=central,
        train=tuple(entries),
        test=tested,
        labels=label_range(every, y_type),
        created=dict(created),
    )


def _ours(name: str) -> bool:
    return name in (MANIFEST, "test.h5") or (name.startswith("train-") and name.endswith(".h5"))


def _write_text(path: Path, words: str) -> None:
    path.write_text(words + "\n", encoding="utf-8")
    sync(path)


def _move(aside: Path, folder: Path, overwrite: bool) -> None:
    if overwrite and folder.exists():
        old = aside.with_name(aside.name + ".old")
        folder.rename(old)
        try:
            aside.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        aside.rename(folder)
    sync(folder.parent)
