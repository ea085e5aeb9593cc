"""A clipped update is no longer than its bound, and nothing but what was trained is touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedmpi.aggregation.stages import Clip
from fedmpi.flow import Layout
from tests.aggregation.test_stages import CAP, chain, drawn, every_dtype, fresh, lawful
from tests.crossings import add, passage_of


@every_dtype
@lawful
@given(seed=st.integers(0, 10**6), power=st.integers(-8, 12), bound=st.floats(1e-3, 1e3), up=st.integers(1, 2))
def test_clip_bounds_what_is_trained_and_nothing_else(
    dtype: torch.dtype, seed: int, power: int, bound: float, up: int
) -> None:
    layout = Layout(12, slice(0, 9), dtype, up, ("examples",) * up + ("none",), ("a",))
    wire = torch.from_numpy(np.random.default_rng(seed).normal(size=layout.width) * 10.0**power).to(dtype)
    before = wire.clone()
    clip = Clip(bound)
    passage = passage_of(layout, 10)
    after = clip.encode(wire, passage)

    def trained(of: Tensor) -> np.ndarray[Any, Any]:
        return layout.planes(of)[:, :9].double().numpy().ravel()

    norm = np.sqrt((trained(before) ** 2).sum())
    assert np.sqrt((trained(after) ** 2).sum()) <= bound * (1 + 1e-5)
    assert torch.equal(layout.planes(after)[:, 9:], layout.planes(before)[:, 9:])
    assert torch.equal(layout.tail(after), layout.tail(before))
    if norm < bound * (1 - 1e-6):
        assert torch.equal(after, before)
        assert clip.count() == (0,)
    elif norm > bound * (1 + 1e-6):
        np.testing.assert_allclose(trained(after), trained(before) * (bound / norm), rtol=1e-5)
        assert clip.count() == (1,)
    assert clip.count() == (0,)  # counted since the last call


@every_dtype
def test_clip_takes_a_batch_of_clients_as_it_takes_each(dtype: torch.dtype) -> None:
    layout = Layout(12, slice(0, 9), dtype)
    wires = torch.stack(drawn(layout, 6, 5)[0])
    passage = passage_of(layout, [1] * 6)
    one, all_at_once = Clip(0.5), Clip(0.5)
    each = torch.stack([one.encode(wire.clone(), passage) for wire in wires])
    torch.testing.assert_close(all_at_once.encode(wires.clone(), passage), each)
    assert one.count() == all_at_once.count()


@every_dtype
def test_clip_leaves_an_update_of_zero_alone(dtype: torch.dtype) -> None:
    layout = Layout(12, slice(0, 9), dtype)
    wire = Clip(1.0).encode(torch.zeros(layout.width, dtype=dtype), passage_of(layout, 1))
    assert not wire.any()


def test_a_clipped_update_enters_with_at_most_its_bound() -> None:
    """Clipped before it is weighed, and weighed with at most 1."""
    layout = Layout(12, slice(0, 12), torch.float64)
    path = fresh(chain({"name": "clip", "bound": 0.5}), layout)
    for examples in (1, CAP, 3 * CAP):
        passage = passage_of(layout, examples)
        path.begin(passage)
        add(path, torch.full((layout.width,), 9.0, dtype=torch.float64), passage)
        entered = float(torch.linalg.vector_norm(layout.planes(path.sum)))
        assert entered == pytest.approx(0.5 * min(examples / CAP, 1.0))
    [clip, _] = path.stages
    assert clip.count() == (3,)
    assert clip.count() == (0,)
