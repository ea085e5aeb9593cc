"""One HDF5 file of a shard set, written block by block with a checksum for each client."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from fedmpi.data.client_rows import Rows
from fedmpi.data.columns import Array
from fedmpi.data.store.file import digest
from fedmpi.data.store.manifest import Entry
from fedmpi.job import JobError

BLOCK = 2**25  # bytes gathered and written at once
TYPES = {"b1": "u1", "u2": "i4", "u4": "i8"}  # what torch computes with, for what it hardly does


class Rowed(Protocol):
    """A column of rows `(n, ...)` by row numbers `(n,)`: an array, or several as one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: Rows, /) -> Array: ...


def write_file(
    path: Path,
    names: NDArray[np.bytes_],
    own: Rows,
    parts: Sequence[tuple[Rowed, Rowed, Rows]],
    dtypes: tuple[np.dtype[Any], np.dtype[Any]],
    attributes: Mapping[str, Any],
    step: Callable[[int], None] = lambda rows: None,
) -> Entry:
    """Write one file, its parts one behind the other, and return its entry in the manifest.

    `own` are the clients' offsets in it, `(K+1,)`.  `step` is called with the number of rows after each block of x.
    """
    rows = sum(len(part[2]) for part in parts)
    checksums, central = [0] * len(names), []
    # 64-byte boundaries for whoever maps it; formats that every HDF5 since 1.10 reads.
    with h5py.File(path, "w", libver=("v108", "v110"), alignment_threshold=1, alignment_interval=64) as file:
        for place, name in enumerate(("x", "y")):
            dataset = file.create_dataset(name, (rows, *parts[0][place].shape[1:]), dtypes[place])
            at, summed = 0, [0]
            for part in parts:
                for block in _blocks(part[place], part[2], dtypes[place]):
                    dataset[at : at + len(block)] = block
                    _sum(checksums, own, at, block)
                    _sum(summed, np.array(attributes.get("central", (0, 0))), at, block)
                    at += len(block)
                    if name == "x":
                        step(len(block))
            central += summed
        file.create_dataset("client_ids", data=fixed(names))
        file.create_dataset("offsets", data=own)
        summed_ = np.array(checksums, dtype=np.uint32)
        file.create_dataset("checksums", data=summed_)
        for key, value in attributes.items():
            file.attrs[key] = value
        if "central" in attributes:
            file.attrs["central_checksums"] = np.array(central, dtype=np.uint32)
    sync(path)
    index = digest(names, own, summed_)
    return Entry(name=path.name, bytes=path.stat().st_size, clients=len(names), examples=rows, index=index)


def _blocks(column: Rowed, rows: Rows, dtype: np.dtype[Any]) -> Iterator[Array]:
    width = max(1, int(np.prod(column.shape[1:])) * dtype.itemsize)
    step = max(1, BLOCK // width)
    for start in range(0, len(rows), step):
        yield np.ascontiguousarray(column[rows[start : start + step]], dtype=dtype)


def label_range(parts: Sequence[tuple[Rowed, Rows]], dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """Return the lowest and the highest integer of `parts`, (column, rows) each; None without any."""
    if dtype.kind not in "iu":
        return None
    blocks = (block for column, rows in parts for block in _blocks(column, rows, dtype) if block.size)
    ranges = [(int(block.min()), int(block.max())) for block in blocks]
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def _sum(checksums: list[int], own: Rows, at: int, block: Array) -> None:
    """Carry each range's checksum on over its part of a block with first row `at`."""
    first = max(int(np.searchsorted(own, at, side="right")) - 1, 0)
    last = min(int(np.searchsorted(own, at + len(block))), len(checksums))
    bounds = np.clip(own[first : last + 1] - at, 0, len(block)).tolist()
    for client, start, stop in zip(range(first, last), bounds[:-1], bounds[1:], strict=True):
        checksums[client] = zlib.crc32(block[start:stop].data, checksums[client])


def fixed(text: str | Sequence[str] | NDArray[np.bytes_]) -> Array:
    """Return text of fixed length in UTF-8.

    HDF5 keeps text of variable length in a heap without a checksum; one damaged byte there can hang its reader.
    """
    if not isinstance(text, np.ndarray):
        text = np.array(text.encode() if isinstance(text, str) else [name.encode() for name in text], dtype=np.bytes_)
    return text.astype(h5py.string_dtype("utf-8", max(1, text.itemsize)))


def stored(dtype: np.dtype[Any], column: str) -> np.dtype[Any]:
    """Return a column's stored type: in native byte order, and one for torch to compute with."""
    short = f"{dtype.kind}{dtype.itemsize}"
    if short in TYPES:
        return np.dtype(TYPES[short])
    if short not in {"u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8"}:
        raise JobError(
            f"{column}: holds {dtype}; should hold numbers: integers below 2**63 or floats of at most 64 bits"
        )
    return dtype.newbyteorder("=")


def stored_target(dtype: np.dtype[Any], task: str) -> np.dtype[Any]:
    """Return the stored type of targets: int64 labels, so no step casts them; float32 or float64 for regression."""
    target = stored(dtype, "y")
    if target.kind == "f":
        return np.dtype("f4") if target.itemsize == 2 else target
    return np.dtype("f4") if task == "regression" else np.dtype("i8")


def sync(path: Path) -> None:
    """Have a file or folder on the disk, not in a cache, before it is announced."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
