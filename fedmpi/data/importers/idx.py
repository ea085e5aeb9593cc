"""MNIST-style idx files, plain or gzipped: magic (two zero bytes, type, dimensions), sizes, values, all big-endian.

LeCun, Cortes, Burges 1998, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from fedmpi.data.columns import Array, Columns, targets
from fedmpi.data.errors import ShardError
from fedmpi.job import JobError

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx(
    source: Annotated[Path, Field(description="the folder that holds the files")],
    prefix: Annotated[str, Field(description="what the files' names begin with, as emnist-letters-")] = "",
) -> Columns:
    """MNIST-style idx files of a folder, with a test split where it is there, plain or gzipped (LeCun et al. 1998).

    `source` is the folder with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and, as its own split, `t10k-...`;
    .gz too.  Images are stored as (1, H, W); bytes keep their type, with scale 1/255.  Where files of several sets lie
    there, as in EMNIST's folder, `prefix` picks one set: `emnist-letters-`.
    """
    if not source.is_dir():
        raise JobError(f"source: {source} is not a folder; idx takes the one that holds the train-images file")
    train = _split(source, prefix, ("train",))
    test = _split(source, prefix, ("t10k", "test"))
    if train is None:
        raise JobError(f"source: {source} holds no {prefix}train-images-idx3-ubyte, with or without .gz")
    (y, y_test), task, classes = targets(f"{source}: labels", train[1], None if test is None else test[1], None)
    if test is not None and test[0].shape[1:] != train[0].shape[1:]:
        raise ShardError(f"{source}: test images are {test[0].shape[1:]}, training images {train[0].shape[1:]}")
    return Columns(
        x=train[0],
        y=y,
        task=task,
        classes=classes,
        test=None if test is None else (test[0], y_test),
        scale=1 / 255 if train[0].dtype == np.uint8 else 1.0,
    )


def _split(folder: Path, prefix: str, names: tuple[str, ...]) -> tuple[Array, Array] | None:
    images = _find(folder, prefix, names, "images", 3)
    labels = _find(folder, prefix, names, "labels", 1)
    if images is None or labels is None:
        if images is labels:
            return None
        raise ShardError(f"{folder}: {(images or labels)} has no {'labels' if images else 'images'} file beside it")
    x, y = read_idx(images), read_idx(labels)
    if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
        raise ShardError(f"{images}: {x.shape} images for {y.shape} labels; should be (N, H, W) and (N,)")
    if not x.size:
        raise ShardError(f"{images}: {x.shape} images: there is nothing in them")
    return x[:, None], y


def _find(folder: Path, prefix: str, names: tuple[str, ...], kind: str, dimensions: int) -> Path | None:
    """Return the one file of a split: some sets write a dot for the dash, most are gzipped; plain comes before .gz."""
    stems = [f"{prefix}{name}-{kind}{dot}idx{dimensions}-ubyte" for name in names for dot in "-."]
    for stem in stems:
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    return None


def read_idx(path: Path) -> Array:
    """Return the array of one idx file, in native byte order; ShardError where the file belies its header."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise ShardError(f"{path}: cannot be read: {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES:
        raise ShardError(f"{path}: is not an idx file; it starts with {data[:4]!r}")
    dtype, start = np.dtype(TYPES[data[2]]), 4 + 4 * data[3]
    if data[3] > 8:
        raise ShardError(f"{path}: its header tells of {data[3]} dimensions, and no set has so many; is it damaged?")
    shape = tuple(int(size) for size in np.frombuffer(data[4:start], ">u4")) if len(data) >= start else ()
    if len(data) != start + math.prod(shape) * dtype.itemsize:
        raise ShardError(f"{path}: {len(data)} bytes do not hold the shape {shape} that its header tells; cut short?")
    try:
        values: Array = np.frombuffer(data, dtype, offset=start).reshape(shape)
    except ValueError as error:  # nothing, of a size that is none
        raise ShardError(f"{path}: cannot hold the shape {shape} that its header tells: {error}") from None
    return values.astype(dtype.newbyteorder("="), copy=False)
