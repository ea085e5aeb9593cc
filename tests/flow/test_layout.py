"""The wire: where things lie on it."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.flow import Layout

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=50)


@lawful
@given(
    size=st.integers(1, 20),
    up=st.integers(1, 3),
    sums=st.integers(0, 3),
    rows=st.sampled_from([(), (1,), (4,), (2, 3)]),
)
def test_planes_and_tail_are_views_that_cover_the_wire_once(
    size: int, up: int, sums: int, rows: tuple[int, ...]
) -> None:
    names = tuple(f"s{place}" for place in range(sums))
    layout = Layout(size, slice(0, size), torch.float64, up, ("examples",) * (up + sums), names)
    wire = torch.arange(float(np.prod((*rows, layout.width)))).view(*rows, layout.width)
    planes, tail = layout.planes(wire), layout.tail(wire)
    assert planes.shape == (*rows, up, size)
    assert tail.shape == (*rows, 2 + sums)
    assert torch.equal(torch.cat([planes.flatten(-2), tail], dim=-1), wire)
    planes.add_(1)
    tail.add_(1)
    assert torch.equal(wire.flatten(), torch.arange(1.0, wire.numel() + 1))
