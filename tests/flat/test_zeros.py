"""Zeros are zeros, on a cache line, and cost nothing before they are written."""

from __future__ import annotations

import pytest
import torch

from fedmpi.bench.memory import pss
from fedmpi.flat import zeros
from fedmpi.flat.zeros import BOUNDARY, SMALL


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("bytes_", [0, 8, SMALL - 8, SMALL, SMALL + 8, 3 * SMALL + 24])
def test_they_are_torch_s_own(dtype: torch.dtype, bytes_: int) -> None:
    size = bytes_ // dtype.itemsize
    made = zeros(size, dtype)
    assert torch.equal(made, torch.zeros(size, dtype=dtype))
    assert made.dtype == dtype
    assert made.is_contiguous()
    assert not size or made.data_ptr() % (BOUNDARY if bytes_ >= SMALL else 64) == 0
    made += 1
    assert torch.equal(made, torch.ones(size, dtype=dtype))


def test_pages_come_as_they_are_written() -> None:
    before = pss()
    made = zeros(2**24, torch.float32)  # 64 MiB
    assert pss() - before < 4
    made[: 2**23] = 1
    assert 28 < pss() - before < 40
