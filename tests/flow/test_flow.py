"""The wire and the state: where things lie, and that a header's words survive lying behind floats."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.flow import REASONS, Layout, Passage, Refused, State, Unfit

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=50)
DTYPES = [torch.float32, torch.float64]


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


@lawful
@given(
    round=st.integers(0, 2**63 - 1),
    code=st.integers(0, 255),
    private=st.sampled_from([0, 16]),
    down=st.integers(1, 2),
    dtype=st.sampled_from(DTYPES),
)
def test_a_header_survives_being_sent_as_floats(
    round: int, code: int, private: int, down: int, dtype: torch.dtype
) -> None:
    home, other = (State(private, 32, down, dtype) for _ in range(2))
    home.planes.fill_(0.5)
    home.round = round
    home.crossing = 1
    home.said[:] = [0.1, -1e300, 3.0, float(round)]
    assert not home.done
    home.ended(code)
    other.travels.copy_(home.travels)
    assert (other.round, other.crossing, other.done, other.code) == (round, 1, True, code)
    assert other.said.tolist() == home.said.tolist()
    assert torch.equal(other.planes, home.planes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_received_is_the_private_part_and_the_first_plane_in_the_buffer_that_travels(dtype: torch.dtype) -> None:
    state = State(16, 32, 2, dtype)
    assert state.received.shape == (48,)
    assert state.planes.shape == (2, 32)
    state.travels.fill_(1.0)
    assert not state.received[:16].any()
    assert (state.received[16:] == 1.0).all()
    state.planes[1].fill_(2.0)
    assert (state.received[16:] == 1.0).all()
    assert state.received.data_ptr() % 64 == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_norm_is_of_what_is_trained_in_all_planes(dtype: torch.dtype) -> None:
    layout = Layout(8, slice(0, 5), dtype, up=2, weights=("examples", "none", "none"), sums=("s",))
    wire = torch.randn(3, layout.width, dtype=dtype, generator=torch.Generator().manual_seed(0))
    passage = Passage(1, np.arange(3), layout)
    rows = wire.double().numpy()
    trained = np.concatenate([rows[:, :5], rows[:, 8:13]], axis=1)
    expected = np.sqrt((trained**2).sum(axis=1))
    np.testing.assert_allclose(passage.norm(wire).double().numpy(), expected, rtol=1e-6)
    assert passage.norm(wire[0]).shape == ()


def test_a_passage_of_a_client_is_the_same_crossing() -> None:
    passage = Passage(4, np.array([1, 5]), Layout(8, slice(0, 8), torch.float32), attempt=2)
    one = passage.of(5, 30)
    assert (one.client, one.examples) == (5, 30)
    assert dataclasses.replace(one, client=None, examples=0) == passage


def test_reasons_fit_behind_a_client_s_name() -> None:
    for reason, text in REASONS.items():
        assert Unfit(reason).reason == reason
        assert text.startswith("is ")  # "client 7's update is ..."
    assert 0 not in REASONS  # 0 in the tally is an update that entered


def test_a_refusal_found_exits_with_1() -> None:
    assert Refused("x").code == 1
