"""Tensors as a safetensors file holds them, written straight from their memory.

The library's own writer copies every tensor twice on its way to the file: 100 ms of a core for 10 M values.  Without,
through the page cache, it is 13; past it, 2, and a rank that trains on that core has the rest for itself.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow import Refused

# The format's name of each kind of number, in the order in which the library lays them: the last ones come first.
KINDS = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
}
DIRECT = getattr(os, "O_DIRECT", 0)
LARGE = 2**20  # bytes from which on a file is written past the page cache
ROOM = 2**20  # bytes of it at once
BLOCK = 4096  # bytes: the length, place and memory of each such write are multiples

ORDER = {kind: place for place, kind in enumerate(KINDS)}


def lay(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata to a file, the bytes that `safetensors.torch.save_file` writes; OSError as it comes.

    The head of a large file is longer, by spaces, which every reader of the format passes over.  The interpreter's lock
    is free while values are written, so another thread goes on.
    """
    head: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    laid, at = [], 0
    for name in sorted(tensors, key=lambda name: (-ORDER.get(tensors[name].dtype, 0), name)):
        tensor = tensors[name]
        if tensor.dtype not in KINDS:
            raise Refused(f"{path}: cannot hold the tensor {name!r}: its numbers are {tensor.dtype}")
        values = octets(tensor)
        offsets = [at, at := at + len(values)]
        head[name] = {"dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        laid.append(values)
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    # A large file's values begin on a block, so that whole pages of memory can go to the disk as they lie.
    text += b" " * (-(8 + len(text)) % (BLOCK if at >= LARGE else 8))
    parts = [np.frombuffer(len(text).to_bytes(8, "little") + text, np.uint8), *map(np.asarray, laid)]
    if at < LARGE or not _past_the_cache(path, parts):
        with path.open("wb") as file:
            for part in parts:
                file.write(part.data)


def _past_the_cache(path: Path, parts: Sequence[NDArray[np.uint8]]) -> bool:
    """Write a file straight to its disk; False where its file system does not do that (tmpfs, some network's)."""
    if not DIRECT:
        return False
    try:
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | DIRECT, 0o666)
        try:
            # Whole pages, as the disk wants them; they go with the last array that holds them.
            _through(np.frombuffer(mmap.mmap(-1, ROOM), np.uint8), file, parts)
        finally:
            os.close(file)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise
    return True


def _through(room: NDArray[np.uint8], file: int, parts: Sequence[NDArray[np.uint8]]) -> None:
    """Write parts one behind the other: whole pages as they lie where they can, else through `room`."""
    at = filled = 0
    for part in parts:
        done = 0
        while done < len(part):
            pages = (len(part) - done) // BLOCK * BLOCK
            if pages and not filled and not (part.ctypes.data + done) % BLOCK:
                _whole(file, part[done : done + pages], at)
                done, at = done + pages, at + pages
                continue
            count = min(len(part) - done, ROOM - filled)
            np.copyto(room[filled : filled + count], part[done : done + count])
            done, filled = done + count, filled + count
            if filled == ROOM:
                _whole(file, room, at)
                at, filled = at + ROOM, 0
    if filled:
        _whole(file, room[: -(-filled // BLOCK) * BLOCK], at)
    os.ftruncate(file, at + filled)


def _whole(file: int, block: NDArray[np.uint8], at: int) -> None:
    """Write all of a block: one call may take less."""
    done = 0
    while done < len(block):
        wrote = os.pwrite(file, block[done:].data, at + done)
        if not wrote:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done += wrote


def octets(tensor: Tensor) -> memoryview:
    """Return a tensor's values as bytes on the host, without a copy where they lie there side by side."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
