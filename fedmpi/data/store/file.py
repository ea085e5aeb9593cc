"""One HDF5 file of a shard set: its columns are views of a memory mapping where possible, else read.

Contiguous, uncompressed columns are mapped: the ranks of a node share their pages and a client costs no copy.  Chunked
or compressed ones, as other tools write them, are read piece by piece through h5py.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from fedmpi.data.errors import ShardError
from fedmpi.data.store.manifest import SCHEMA, Entry, Manifest

# A private mapping takes writes without touching the file, so torch takes it without complaint; but the kernel must not
# set memory aside for writes that never come, or data larger than the memory could not be opened.
NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)

Column: TypeAlias = Any  # an NDArray that views the mapping, or an h5py.Dataset: slicing either gives an NDArray


class ShardFile:
    """The columns `x (N, ...)`, `y (N, ...)`, `client_ids (K,)`, `offsets (K+1,)`, `checksums (K,)` of one file.

    Raises ShardError where the file is missing, cut short, unreadable, or differs from the manifest.
    """

    def __init__(self, folder: Path, entry: Entry, manifest: Manifest) -> None:
        self.path = folder / entry.name
        check_size(self.path, entry)
        with ExitStack() as stack:
            try:
                # No lock: the file is only read, and a parallel file system may have no locks to give.
                source = stack.enter_context(h5py.File(self.path, "r", locking=False))
                self._open(source, entry, manifest)
            except ShardError:
                raise
            except Exception as error:  # whatever h5py and NumPy meet in a file that somebody else may have written
                fault = " ".join(str(error).split())[:200] or type(error).__name__
                raise self._broken(f"cannot be read as a shard ({fault})") from None
            if any(isinstance(column, h5py.Dataset) for column in vars(self).values()):
                self._source = source  # what is read piece by piece needs its file open
                stack.pop_all()

    def _open(self, source: h5py.File, entry: Entry, manifest: Manifest) -> None:
        if source.attrs["schema_version"] != SCHEMA:
            raise self._broken(f"has schema version {source.attrs['schema_version']}, the manifest {SCHEMA}")
        shapes = {
            "x": ((entry.examples, *manifest.shape), manifest.dtype),
            "y": ((entry.examples, *manifest.target_shape), manifest.target_dtype),
            "client_ids": ((entry.clients,), None),
            "offsets": ((entry.clients + 1,), "int64"),
            "checksums": ((entry.clients,), "uint32"),
        }
        for name, (shape, dtype) in shapes.items():
            column = source[name]
            if column.shape != shape or (dtype is not None and column.dtype != np.dtype(dtype)):
                fault = f"{name} is {column.dtype} {column.shape}, the manifest says {dtype or 'text'} {shape}"
                raise self._broken(fault)
        mapping = self._map(entry)
        self.x: Column = _column(source["x"], mapping)
        self.y: Column = _column(source["y"], mapping)
        self.ids: Column = _column(source["client_ids"], mapping)
        self.offsets: NDArray[np.int64] = _column(source["offsets"], mapping)[:]
        self.checksums: NDArray[np.uint32] = _column(source["checksums"], mapping)[:]
        if digest(self.names(), self.offsets, self.checksums) != entry.index:
            raise self._broken("its ids, offsets or checksums are not those of the manifest")
        self.central_checksums = [int(value) for value in source.attrs.get("central_checksums", ())]

    def _map(self, entry: Entry) -> mmap.mmap:
        handle = os.open(self.path, os.O_RDONLY)
        try:
            # The size of the very file that is mapped: touching a mapping behind its file's end is a SIGBUS.
            if os.fstat(handle).st_size != entry.bytes:
                raise self._broken("has changed its size while it was opened")
            prot = mmap.PROT_READ | mmap.PROT_WRITE
            return mmap.mmap(handle, entry.bytes, flags=mmap.MAP_PRIVATE | NORESERVE, prot=prot)
        finally:
            os.close(handle)

    def part(self, column: Column, start: int, stop: int) -> NDArray[Any]:
        """Return rows `start` up to `stop` of a column; ShardError where a compressed piece of it is damaged."""
        try:
            values: NDArray[Any] = column[start:stop]
        except (OSError, ValueError, RuntimeError) as error:
            fault = " ".join(str(error).split())[:200]
            raise self._broken(f"rows {start} to {stop} cannot be read ({fault})") from None
        return values

    def names(self) -> NDArray[np.bytes_]:
        """Return the clients' ids `(K,)` as UTF-8 bytes, padded to the longest."""
        ids = self.ids[:]
        return ids if ids.dtype.kind == "S" else np.array([_bytes(name) for name in ids], dtype=np.bytes_)

    def name(self, client: int) -> str:
        """Return the id of one client."""
        return _bytes(self.ids[client]).decode("utf-8", "replace")

    def _broken(self, fault: str) -> ShardError:
        return ShardError(f"{self.path}: {fault}; make the set again with `fedmpi shard`, or copy it again")


def check_size(path: Path, entry: Entry) -> None:
    """Raise ShardError where a file is missing or its size is not the manifest's."""
    remedy = "make the set again with `fedmpi shard`, or copy it again"
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ShardError(f"{path}: is missing; {remedy}") from None
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ShardError(f"{path}: is not a file; {remedy}")
    size = status.st_size
    if size != entry.bytes:
        state = "cut short" if size < entry.bytes else "too long"
        raise ShardError(f"{path}: is {state}: {size} bytes, the manifest says {entry.bytes}; {remedy}")


def digest(ids: NDArray[Any], offsets: NDArray[np.int64], checksums: NDArray[np.uint32]) -> str:
    """Return the hex digest of a file's index: the clients' checksums in it cover all data of the file."""
    summed = hashlib.blake2b(digest_size=16)
    for part in (ids, offsets, checksums):
        summed.update(np.ascontiguousarray(part).data)
    return summed.hexdigest()


def _column(dataset: h5py.Dataset, mapping: mmap.mmap) -> Column:
    """Return a view of the mapping for a dataset; itself where it is chunked, compressed or of variable length."""
    if dataset.size == 0:
        return np.empty(dataset.shape, dataset.dtype)
    offset = dataset.id.get_offset()
    if offset is None or dataset.dtype.hasobject:
        return dataset
    if offset + dataset.nbytes > len(mapping):
        raise ValueError(f"{dataset.name} ends behind the end of the file")
    return np.ndarray(dataset.shape, dataset.dtype, buffer=mapping, offset=offset)


def _bytes(name: Any) -> bytes:
    return name if isinstance(name, bytes) else str(name).encode()
