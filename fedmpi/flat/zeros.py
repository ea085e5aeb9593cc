"""Vectors of zeros that cost no memory before they are written."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BOUNDARY = 4096  # bytes: a large vector begins on a page, as what goes straight to a disk must
SMALL = 2**20  # bytes up to which torch's own memory serves


def zeros(size: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Return zeros `(size,)`; on the host, a large vector gets each page when something is written there.

    So a buffer that a job never uses costs nothing, and one that it does lies near the core that wrote it first.
    """
    bytes_ = size * dtype.itemsize
    if torch.device(device).type != "cpu" or bytes_ < SMALL:
        return torch.zeros(size, dtype=dtype, device=device)
    room = np.zeros(bytes_ + BOUNDARY, np.uint8)  # by calloc: pages of the system's that are zero
    start = -room.ctypes.data % BOUNDARY
    return torch.from_numpy(room[start : start + bytes_]).view(dtype)
